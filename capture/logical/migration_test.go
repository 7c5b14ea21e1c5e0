package logical

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"capture/capture/source"
	"capture/capture/sourcetest"
	"capture/capture/tablecopy"
	"capture/internal/busy"
	"capture/internal/locktest"
	"capture/internal/pgserver"
	"capture/internal/postgres"
	"capture/snapshot"
)

// TestPlainReadDuringMigration checks that a plain read waits for the end of a migration that rewrites the table, or that
// creates a new table under the same name. A snapshot from before the end of the migration would show an empty table, because
// the rows that the migration wrote are not visible to this snapshot.
func TestPlainReadDuringMigration(t *testing.T) {
	t.Parallel()
	url := pgserver.Database(t)
	conn := sourcetest.Connect(t, url)
	conn.MustExec(sourcetest.Votes)
	conn.MustExec("INSERT INTO votes (user_query) SELECT 'question ' || i FROM generate_series(1, 20) i")
	for _, migration := range []string{
		"ALTER TABLE votes ALTER user_query TYPE text USING user_query || '!'",
		"CREATE TABLE new_votes (LIKE votes INCLUDING ALL); INSERT INTO new_votes SELECT * FROM votes; ALTER TABLE votes RENAME TO old_votes; ALTER TABLE new_votes RENAME TO votes",
	} {
		conn.MustExec("BEGIN")
		if _, err := conn.Exec(t.Context(), migration, pgx.QueryExecModeSimpleProtocol); err != nil {
			t.Fatal(err)
		}
		env, dst := newEnv(t, url), snapshot.NewTable()
		read := make(chan error, 1)
		go func() { read <- tablecopy.ReadTable(t.Context(), env, "logical", dst, nil) }()
		sourcetest.WaitFor(t, "the read waits for the migration", func() error {
			if len(read) > 0 {
				t.Fatalf("%s: the read did not wait: %v", migration, <-read)
			}
			var waiting int
			err := conn.QueryRow(t.Context(), "SELECT count(*) FROM pg_locks WHERE NOT granted AND pg_backend_pid() = ANY (pg_blocking_pids(pid))").Scan(&waiting)
			if err == nil && waiting == 0 {
				err = errors.New("nobody waits")
			}
			return err
		})
		conn.MustExec("COMMIT")
		if err := <-read; err != nil {
			t.Fatalf("%s: %v", migration, err)
		}
		conn.CheckRows(dst.View(), "votes", "vote_id")
	}
}

// TestReadBetweenPartitions checks that capture causes no deadlock with a migration that locks two partitions in the
// order opposite to capture's. If capture waited for the lock of one partition while it held the lock of the other, the
// migration would fail: its deadlock_timeout is very short, so Postgres would cancel the migration and not capture's
// statement.
func TestReadBetweenPartitions(t *testing.T) {
	t.Parallel()
	url := pgserver.Database(t)
	conn, observer := sourcetest.Connect(t, url), sourcetest.Connect(t, url)
	for _, statement := range []string{
		"CREATE TABLE votes (vote_id int PRIMARY KEY) PARTITION BY RANGE (vote_id)",
		"CREATE TABLE votes_1 PARTITION OF votes FOR VALUES FROM (0) TO (10)",
		"CREATE TABLE votes_2 PARTITION OF votes FOR VALUES FROM (10) TO (20)",
		"INSERT INTO votes VALUES (1), (11)",
		"SET deadlock_timeout = '1ms'",
	} {
		conn.MustExec(statement)
	}
	for name, read := range map[string]func(env *source.Env) error{
		"ReadTable": func(env *source.Env) error {
			dst := snapshot.NewTable()
			err := tablecopy.ReadTable(t.Context(), env, "logical", dst, nil)
			if err == nil && dst.View().Rows() != 2 {
				err = fmt.Errorf("%d rows", dst.View().Rows())
			}
			return err
		},
		"ImportSnapshot": func(env *source.Env) error {
			exporter, err := postgres.Connect(t.Context(), env.Database)
			if err != nil {
				return err
			}
			defer postgres.CloseNow(exporter.PgConn())
			importer, err := postgres.Connect(t.Context(), env.Database)
			if err != nil {
				return err
			}
			defer postgres.CloseNow(importer.PgConn())
			table, err := postgres.LoadTable(t.Context(), importer, env.Table)
			if err != nil {
				return err
			}
			var snapshotName string
			tx, err := postgres.Begin(t.Context(), exporter, "ISOLATION LEVEL REPEATABLE READ")
			if err == nil {
				err = tx.QueryRow(t.Context(), "SELECT pg_export_snapshot()").Scan(&snapshotName)
			}
			if err != nil {
				return err
			}
			return tablecopy.ImportSnapshot(t.Context(), env, importer, table, snapshotName)
		},
		"count": func(env *source.Env) error {
			loaded, err := postgres.LoadTable(t.Context(), sourcetest.Connect(t, url).Conn, env.Table)
			if err != nil {
				return err
			}
			rows, err := (&rowCounter{env: env, table: loaded}).count(t.Context())
			if err == nil && rows != 2 {
				err = fmt.Errorf("%d rows", rows)
			}
			return err
		},
	} {
		tracer := locktest.New("LOCK TABLE", func() {
			if _, err := conn.Exec(t.Context(), "BEGIN; LOCK TABLE votes_2", pgx.QueryExecModeSimpleProtocol); err != nil {
				t.Error(err)
			}
		})
		env := newEnv(t, url)
		env.Database.Tracer = tracer
		ended := make(chan error, 1)
		go func() { ended <- read(env) }()
		sourcetest.WaitFor(t, name+" cannot lock votes_2", func() error {
			select {
			case err := <-ended:
				t.Fatalf("%s did not need the lock: %v", name, err)
			case <-tracer.Refused:
				return nil
			default:
			}
			var waiting int // conn does not count, because it may wait for a lock that the previous round's session still holds
			err := observer.QueryRow(t.Context(), `SELECT count(*) FROM pg_locks l JOIN pg_database d ON d.oid = l.database
				WHERE NOT l.granted AND d.datname = current_database() AND l.pid <> $1`, conn.PgConn().PID()).Scan(&waiting)
			if err == nil && waiting == 0 {
				err = errors.New("it neither waits nor was refused")
			}
			return err
		})
		conn.MustExec("LOCK TABLE votes_1")
		conn.MustExec("COMMIT")
		if err := <-ended; err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestImportAfterNameSwap checks that the import requests a resync if two tables have exchanged their names since the
// snapshot was exported. A statement that names votes then finds the new table, but in the catalog as of the snapshot, votes
// is the old table. If the new table was created after the snapshot, this catalog does not contain it.
func TestImportAfterNameSwap(t *testing.T) {
	t.Parallel()
	url := pgserver.Database(t)
	conn := sourcetest.Connect(t, url)
	conn.MustExec(sourcetest.Votes)
	const create = "CREATE TABLE new_votes (LIKE votes INCLUDING ALL)"
	for _, later := range []bool{false, true} {
		for _, name := range []postgres.Name{{Table: "votes"}, {Schema: "public", Table: "votes"}} {
			env := newEnv(t, url)
			env.Table = name
			exporter, reader := sourcetest.Connect(t, url), sourcetest.Connect(t, url)
			table, err := postgres.LoadTable(t.Context(), reader.Conn, name)
			if err != nil {
				t.Fatal(err)
			}
			if !later {
				conn.MustExec(create)
			}
			exporter.MustExec("BEGIN ISOLATION LEVEL REPEATABLE READ")
			var snapshotName string
			if err := exporter.QueryRow(t.Context(), "SELECT pg_export_snapshot()").Scan(&snapshotName); err != nil {
				t.Fatal(err)
			}
			if later {
				conn.MustExec(create)
			}
			_, err = conn.Exec(t.Context(), "BEGIN; ALTER TABLE votes RENAME TO old_votes; ALTER TABLE new_votes RENAME TO votes; COMMIT",
				pgx.QueryExecModeSimpleProtocol)
			if err != nil {
				t.Fatal(err)
			}
			err = tablecopy.ImportSnapshot(t.Context(), env, reader.Conn, table, snapshotName)
			if resync := (*source.ResyncError)(nil); !errors.As(err, &resync) {
				t.Errorf("%s, created after the snapshot: %v: %v", name, later, err)
			}
			reader.MustExec("ROLLBACK")
			exporter.MustExec("ROLLBACK")
			conn.MustExec("DROP TABLE old_votes CASCADE") // CASCADE, because the new table votes uses the sequence of old_votes
		}
	}
}

// TestImportAfterDetach checks that the import requests a resync if another session has detached and locked a partition since
// the snapshot was exported. The import does not wait for the lock.
func TestImportAfterDetach(t *testing.T) {
	t.Parallel()
	url := pgserver.Database(t)
	conn, exporter, reader := sourcetest.Connect(t, url), sourcetest.Connect(t, url), sourcetest.Connect(t, url)
	conn.MustExec("CREATE TABLE votes (vote_id int PRIMARY KEY) PARTITION BY RANGE (vote_id)")
	conn.MustExec("CREATE TABLE votes_1 PARTITION OF votes FOR VALUES FROM (0) TO (10)")
	conn.MustExec("CREATE TABLE votes_2 PARTITION OF votes FOR VALUES FROM (10) TO (20)")
	env := newEnv(t, url)
	table, err := postgres.LoadTable(t.Context(), reader.Conn, env.Table)
	if err != nil {
		t.Fatal(err)
	}
	exporter.MustExec("BEGIN ISOLATION LEVEL REPEATABLE READ")
	var snapshotName string
	if err := exporter.QueryRow(t.Context(), "SELECT pg_export_snapshot()").Scan(&snapshotName); err != nil {
		t.Fatal(err)
	}
	importSnapshot := func() error {
		ctx, cancel := context.WithTimeout(t.Context(), busy.Limit(10*time.Second))
		defer cancel()
		return tablecopy.ImportSnapshot(ctx, env, reader.Conn, table, snapshotName)
	}
	if err := importSnapshot(); err != nil {
		t.Fatal(err)
	}
	var timeout string
	if err := reader.QueryRow(t.Context(), "SELECT current_setting('lock_timeout')").Scan(&timeout); err != nil || timeout != "0" {
		t.Errorf("lock_timeout is %s after the import, %v", timeout, err)
	}
	reader.MustExec("ROLLBACK")
	conn.MustExec("ALTER TABLE votes DETACH PARTITION votes_2")
	conn.MustExec("BEGIN")
	conn.MustExec("LOCK TABLE votes_2")
	if resync := (*source.ResyncError)(nil); !errors.As(importSnapshot(), &resync) || !resync.Backoff {
		t.Errorf("it returned %v", resync)
	}
}
