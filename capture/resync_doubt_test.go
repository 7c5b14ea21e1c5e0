package capture

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"iter"
	"os"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"capture/internal/pgserver"
	"capture/internal/postgres"
	"capture/internal/verify"
	"capture/snapshot"
	"capture/snapshot/rowjson"
)

// TestResyncFrozenByForce: pg_surgery makes a deleted row visible again, with a transaction ID that is older than every
// horizon. The next resync must nevertheless transfer this row.
func TestResyncFrozenByForce(t *testing.T) {
	t.Parallel()
	url := pgserver.Database(t)
	conn := connect(t, url)
	if !available(t, conn, "pg_surgery") {
		t.Skip("the server has no pg_surgery")
	}
	exec(t, conn, "CREATE EXTENSION pg_surgery")
	attackedTable(t, conn)
	exec(t, conn, "ALTER TABLE t SET (autovacuum_enabled = off)")
	place := queryOne[string](t, conn, "SELECT ctid::text FROM t WHERE id = 7")
	exec(t, conn, "DELETE FROM t WHERE id = 7")
	p := proxied(t, pgserver.Shared(t))
	cfg := proxiedConfig(t, p, url)
	cfg.Table = postgres.Name{Table: "t"}
	d := start(t, cfg)
	d.ready()
	d.waitHorizon(conn)
	r := d.disconnected(p, func() { exec(t, conn, "SELECT heap_force_freeze('t', ARRAY[$1::text::tid])", place) })
	if r.Message != "resynced" || r.Changed != 1 || r.Rows != 100 {
		t.Errorf("%+v", r)
	}
	d.flushAndCompare(conn, "t", "id")
}

// TestResyncOutOfDoubt: if somebody requests a resync because the rows may be wrong, the whole table is copied, even if the
// connection is lost at the same moment.
func TestResyncOutOfDoubt(t *testing.T) {
	t.Parallel()
	url := pgserver.Database(t)
	conn := connect(t, url)
	attackedTable(t, conn)
	p := proxied(t, pgserver.Shared(t))
	cfg := proxiedConfig(t, p, url)
	cfg.Table = postgres.Name{Table: "t"}
	d := start(t, cfg)
	d.ready()
	for _, what := range []string{"while following", "while waiting"} {
		d.waitHorizon(conn)
		var r readLine
		if n := len(d.loggedReads()); what == "while following" {
			d.supervisor.resync("test")
			r = d.waitRead(n)
		} else {
			r = d.disconnected(p, func() { d.supervisor.resync("test") })
		}
		if r.Message != "copied" || !strings.Contains(r.Reason, "not known") {
			t.Errorf("%s: %+v", what, r)
		}
	}
}

// TestResyncUnknownRow: according to the server, a row has not changed since the horizon, but memory does not have the row.
// capture then copies the whole table. We know no case in which this happens, so the test itself removes the row from
// memory.
func TestResyncUnknownRow(t *testing.T) {
	t.Parallel()
	url := pgserver.Database(t)
	conn := connect(t, url)
	attackedTable(t, conn)
	p := proxied(t, pgserver.Shared(t))
	cfg := proxiedConfig(t, p, url)
	cfg.Table = postgres.Name{Table: "t"}
	d := start(t, cfg)
	d.ready()
	d.waitHorizon(conn)
	r := d.disconnected(p, func() { d.corrupt(func(key rowjson.Key, _ []byte) { d.table.Delete(key) }) })
	if r.Message != "copied" {
		t.Errorf("%+v", r)
	}
	d.flushAndCompare(conn, "t", "id")
}

// corrupt changes one row in memory, in a transaction that never happened in the database. The horizon of the rows stays the
// same, so a resync does not notice the change. The caller ensures that the supervisor is in the state stateWaiting, so that
// no source writes to the Table.
func (d *daemon) corrupt(change func(key rowjson.Key, line []byte)) {
	d.t.Helper()
	v := d.table.View()
	n := 0
	for row, err := range v.From(nil) {
		if err != nil {
			d.t.Fatal(err)
		}
		if n++; n == 50 {
			change(row.Key, slices.Clone(row.Line))
		}
	}
	if err := d.table.Commit(v.Position()); err != nil {
		d.t.Fatal(err)
	}
}

// TestVerifyFindsMistakeOfResync: a resync keeps a wrong row, because the row has not changed since the horizon. The regular
// comparison finds this mistake, and the table is copied. The test itself changes the row in memory before the resync.
func TestVerifyFindsMistakeOfResync(t *testing.T) {
	t.Parallel()
	url := pgserver.Database(t)
	conn := connect(t, url)
	attackedTable(t, conn)
	p := proxied(t, pgserver.Shared(t))
	cfg := proxiedConfig(t, p, url)
	cfg.Table, cfg.VerifyInterval = postgres.Name{Table: "t"}, 100*time.Millisecond
	var comparing atomic.Bool
	cfg.Compare = func(ctx context.Context, database *pgx.ConnConfig, _ int64, newestView func(context.Context) (*snapshot.View, error)) (int64, []string, error) {
		if !comparing.Load() {
			return 0, nil, nil
		}
		found, err := verify.Compare(ctx, verify.Comparison{Database: database, Table: cfg.Table, Live: true,
			State: func(ctx context.Context, _ *postgres.Table) (iter.Seq2[snapshot.Row, error], error) {
				v, err := newestView(ctx)
				if err != nil {
					return nil, err
				}
				return v.From(nil), nil
			}})
		if err != nil || found.Empty() {
			return 0, nil, err
		}
		return found.Different.Rows, []string{"50"}, nil
	}
	d := start(t, cfg)
	d.ready()
	d.waitHorizon(conn)
	r := d.disconnected(p, func() {
		d.corrupt(func(key rowjson.Key, line []byte) {
			d.table.Put(key, bytes.Replace(line, []byte(`"n":50`), []byte(`"n":51`), 1))
		})
	})
	if r.Message != "resynced" {
		t.Fatalf("%+v", r)
	}
	eventually(t, "the mistake is in the file", func() error {
		b, err := os.ReadFile(d.path)
		if err == nil && !bytes.Contains(b, []byte(`"n":51}`)) {
			err = errors.New("it is not there")
		}
		return err
	})
	n := len(d.loggedReads())
	comparing.Store(true)
	if r := d.waitRead(n); r.Message != "copied" {
		t.Errorf("%+v", r)
	}
	if !strings.Contains(d.log.String(), "rows differ from the table") {
		t.Error("the comparison found nothing")
	}
	d.flushAndCompare(conn, "t", "id")
}

// TestResyncRefused: if the server refuses what a resync needs, the whole table is copied. This also holds for a copy over
// several connections.
func TestResyncRefused(t *testing.T) {
	t.Parallel()
	url := pgserver.Database(t)
	conn := connect(t, url)
	attackedTable(t, conn)
	role := "refused_" + queryOne[string](t, conn, "SELECT md5(current_database())")
	exec(t, conn, fmt.Sprintf(`CREATE ROLE %s LOGIN REPLICATION; GRANT SELECT ON t TO %[1]s; CREATE PUBLICATION capture FOR TABLE t;
		REVOKE EXECUTE ON FUNCTION pg_postmaster_start_time() FROM PUBLIC`, role), pgx.QueryExecModeSimpleProtocol)
	t.Cleanup(func() {
		_, _ = conn.Exec(context.Background(), fmt.Sprintf("DROP OWNED BY %s; DROP ROLE %[1]s", role), pgx.QueryExecModeSimpleProtocol)
	})
	cfg := resyncing(config(t, strings.Replace(url, "postgres@", role+"@", 1)))
	cfg.Table = postgres.Name{Table: "t"}
	cfg.copying.Connections, cfg.copying.RangeBytes = 2, 1
	d := start(t, cfg)
	d.ready()
	d.flushAndCompare(conn, "t", "id")
	if r := d.cut(conn, func() { exec(t, conn, "UPDATE t SET n = -n WHERE id < 50") }); r.Message != "copied" || !strings.Contains(r.Reason, "refuses") {
		t.Errorf("%+v", r)
	}
	d.flushAndCompare(conn, "t", "id")
	for line := range strings.Lines(d.log.String()) {
		if strings.Contains(line, "regular check of the table failed") && !strings.Contains(line, "57P01") { // 57P01: d.cut has ended the session of a check
			t.Errorf("the regular check fails: %s", line)
		}
	}
}
