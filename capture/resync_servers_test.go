package capture

import (
	"errors"
	"os"
	osexec "os/exec"
	"syscall"
	"testing"

	"github.com/jackc/pgx/v5"

	"capture/internal/faultproxy"
	"capture/internal/pgserver"
)

// TestResyncClonedDatabase: while capture is disconnected, a clone of the database takes the database's name. The clone's
// table has the same OID, file, row locations and transaction IDs. After the cloning, the clone's table gets changes of its
// own. Therefore, capture must copy the whole table.
func TestResyncClonedDatabase(t *testing.T) {
	t.Parallel()
	s := pgserver.ForTest(t, pgserver.Options{})
	admin := connect(t, s.URL("postgres"))
	exec(t, admin, "CREATE DATABASE app")
	app := connect(t, s.URL("app"))
	attackedTable(t, app)
	exec(t, app, "CREATE PUBLICATION capture FOR TABLE t")
	app.Close(t.Context())
	exec(t, admin, "CREATE DATABASE clone TEMPLATE app")
	clone := connect(t, s.URL("clone"))
	exec(t, clone, "UPDATE t SET n = -n WHERE id < 50")
	clone.Close(t.Context())
	app = connect(t, s.URL("app"))
	attack(t, s, s.URL("app"), app, func(*daemon, *faultproxy.Proxy) *pgx.Conn {
		app.Close(t.Context())
		eventually(t, "nobody uses the databases", func() error {
			if queryOne[int](t, admin, "SELECT count(*) FROM pg_stat_activity WHERE datname IN ('app', 'clone') AND backend_type IN ('client backend', 'walsender')") > 0 {
				return errors.New("somebody does")
			}
			return nil
		})
		exec(t, admin, "ALTER DATABASE app RENAME TO app_old")
		exec(t, admin, "ALTER DATABASE clone RENAME TO app")
		return connect(t, s.URL("app"))
	}, outcome{fools: true, reason: "another database"})
}

// TestResyncRestarted: after a restart of the server, the table is copied, because the server might have been restored
// meanwhile.
func TestResyncRestarted(t *testing.T) {
	t.Parallel()
	s := pgserver.ForTest(t, pgserver.Options{})
	conn := connect(t, s.URL("postgres"))
	attackedTable(t, conn)
	attack(t, s, s.URL("postgres"), conn, func(*daemon, *faultproxy.Proxy) *pgx.Conn {
		restart(t, s, nil)
		return connect(t, s.URL("postgres"))
	}, outcome{reason: "restarted"})
}

// restart stops the server, calls the function change, and starts the server again.
func restart(t *testing.T, s *pgserver.Server, change func()) {
	t.Helper()
	if err := s.Stop("fast"); err != nil {
		t.Fatal(err)
	}
	if change != nil {
		change()
	}
	if err := s.StartAgain(t.Context()); err != nil {
		t.Fatal(err)
	}
}

// TestResyncRestoredVolume: the server's volume goes back to an earlier state, and other transactions get the same IDs.
// System identifier, timeline, OIDs and files are the same. Only the start time differs. Therefore, capture must copy the
// whole table.
func TestResyncRestoredVolume(t *testing.T) {
	t.Parallel()
	s := pgserver.ForTest(t, pgserver.Options{})
	url := s.URL("postgres")
	conn := connect(t, url)
	attackedTable(t, conn)
	exec(t, conn, "CREATE PUBLICATION capture FOR TABLE t")
	backup := s.Dir() + ".backup"
	restart(t, s, func() { run(t, "cp", "-a", s.Dir(), backup) })
	conn = connect(t, url)
	exec(t, conn, "UPDATE t SET n = n + 1000 WHERE id < 50")
	attack(t, s, url, conn, func(*daemon, *faultproxy.Proxy) *pgx.Conn {
		restart(t, s, func() {
			run(t, "rm", "-r", s.Dir())
			run(t, "mv", backup, s.Dir())
		})
		conn := connect(t, url)
		exec(t, conn, "UPDATE t SET n = n + 2000 WHERE id < 50")
		exec(t, conn, "SELECT pg_switch_wal()") // moves the WAL past the position that it had before the volume went back
		for range 50 {
			exec(t, conn, "SELECT txid_current()")
		}
		return conn
	}, outcome{fools: true, reason: "restarted"})
}

func run(t *testing.T, name string, args ...string) {
	t.Helper()
	if out, err := osexec.Command(name, args...).CombinedOutput(); err != nil {
		t.Fatalf("%s %s: %v: %s", name, args, err, out)
	}
}

// TestResyncFailover: a lagging standby is promoted. Its new transactions get IDs that the old primary has used for other
// transactions. Therefore, capture must copy the whole table.
func TestResyncFailover(t *testing.T) {
	t.Parallel()
	s := pgserver.ForTest(t, pgserver.Options{})
	conn := connect(t, s.URL("postgres"))
	attackedTable(t, conn)
	exec(t, conn, "CREATE PUBLICATION capture FOR TABLE t")
	standby, err := s.Standby(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(standby.Close)
	replica := connect(t, standby.URL("postgres"))
	eventually(t, "the standby has the table", func() error {
		_, err := replica.Exec(t.Context(), "SELECT FROM pg_publication_rel, t")
		return err
	})
	if err := standby.Reload(t.Context(), map[string]string{"primary_conninfo": ""}); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the standby is alone", func() error {
		if queryOne[int](t, conn, "SELECT count(*) FROM pg_stat_replication WHERE application_name = 'standby'") > 0 {
			return errors.New("it is not")
		}
		return nil
	})
	exec(t, conn, "UPDATE t SET n = n + 1000 WHERE id < 50")
	attack(t, s, s.URL("postgres"), conn, func(_ *daemon, p *faultproxy.Proxy) *pgx.Conn {
		if err := standby.Promote(t.Context()); err != nil {
			t.Fatal(err)
		}
		p.Target(standby.Addr())
		exec(t, replica, "UPDATE t SET n = n + 2000 WHERE id < 50")
		for range 50 {
			exec(t, replica, "SELECT txid_current()")
		}
		return replica
	}, outcome{fools: true, reason: "timeline"})
}

// TestResyncAnotherCluster: the server address leads to another cluster with a table of the same name. capture must copy
// that table whole.
func TestResyncAnotherCluster(t *testing.T) {
	t.Parallel()
	s, other := pgserver.ForTest(t, pgserver.Options{}), pgserver.ForTest(t, pgserver.Options{})
	conn, elsewhere := connect(t, s.URL("postgres")), connect(t, other.URL("postgres"))
	attackedTable(t, conn)
	attackedTable(t, elsewhere)
	exec(t, elsewhere, "UPDATE t SET n = -n WHERE id < 50")
	for range 100 {
		exec(t, conn, "SELECT txid_current()")
	}
	attack(t, s, s.URL("postgres"), conn, func(_ *daemon, p *faultproxy.Proxy) *pgx.Conn {
		p.Target(other.Addr())
		return elsewhere
	}, outcome{fools: true, reason: "cluster"})
}

// TestResyncAfterTwoBillionTransactions: Postgres compares transaction IDs modulo 2^32. If a horizon is more than 2^31
// transactions old, rows that have changed look older than the horizon, so the whole table must be copied.
func TestResyncAfterTwoBillionTransactions(t *testing.T) {
	t.Parallel()
	bin, err := pgserver.Bin()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(bin + "/pg_resetwal"); err != nil {
		t.Skip("the server's programs lack pg_resetwal")
	}
	s := pgserver.ForTest(t, pgserver.Options{})
	conn := connect(t, s.URL("postgres"))
	attackedTable(t, conn)
	restart(t, s, func() {
		owner, err := os.Stat(s.Dir())
		if err != nil {
			t.Fatal(err)
		}
		cmd := osexec.Command(bin+"/pg_resetwal", "-e", "7", s.Dir())
		if st := owner.Sys().(*syscall.Stat_t); os.Getuid() == 0 {
			cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: st.Uid, Gid: st.Gid}}
		}
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
	})
	conn = connect(t, s.URL("postgres"))
	attack(t, s, s.URL("postgres"), conn, func(d *daemon, _ *faultproxy.Proxy) *pgx.Conn {
		exec(t, conn, "UPDATE t SET n = -n WHERE id < 50")
		h := *d.table.View().Horizon()
		h.XID -= 1<<31 + 1000
		d.table.SetHorizon(&h) // the supervisor's state is stateWaiting, so no source writes to the Table
		return conn
	}, outcome{fools: true, reason: "too many transactions"})
}
