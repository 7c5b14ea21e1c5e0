package capture

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/jackc/pglogrepl"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"capture/capture/source"
	"capture/internal/postgres"
	"capture/snapshot"
	"capture/snapshot/rowjson"
)

// tableReader reads a table in transactions of its own, each of which sees one committed state of it.
type tableReader struct {
	env     *source.Env
	source  string // for the manifest
	traffic postgres.ReadClock

	conn *pgx.Conn
	srv  postgres.Server
	tab  *postgres.Table // as the last transaction saw it
	enc  *rowjson.Encoder
	took time.Duration // by the last copy
}

// open connects, where there is no connection (any more), and looks at the server.
func (r *tableReader) open(ctx context.Context) (err error) {
	if r.conn != nil && !r.conn.IsClosed() {
		return nil
	}
	if r.conn, err = postgres.Connect(ctx, inBulk(r.traffic.Attach(r.env.Database))); err != nil {
		return err
	}
	if r.srv, err = postgres.LoadServer(ctx, r.conn); err != nil {
		return err
	}
	r.env.SetServer(r.srv.SystemID, r.srv.Version)
	return nil
}

func (r *tableReader) close() {
	if r.conn != nil {
		postgres.CloseNow(r.conn.PgConn())
		r.conn = nil
	}
}

// begin opens a transaction. The lock comes before the snapshot, so that no other shape and no truncation (neither of
// which is bound to snapshots) can come in between: r.tab is the table's shape as the transaction sees it.
func (r *tableReader) begin(ctx context.Context) (tx pgx.Tx, err error) {
	err = r.bound(ctx, func(ctx context.Context) (err error) {
		tx, err = r.enter(ctx)
		return err
	})
	return tx, err
}

// bound runs f, which asks the server for something that it answers soon.
func (r *tableReader) bound(ctx context.Context, f func(context.Context) error) error {
	return r.traffic.WithIdleTimeout(ctx, r.env.Timeouts.Idle, f)
}

func (r *tableReader) enter(ctx context.Context) (pgx.Tx, error) {
	name := r.env.Table
	for range 5 {
		if r.tab == nil {
			tab, err := postgres.LoadTable(ctx, r.conn, name)
			if err != nil {
				return nil, err
			}
			r.tab, r.enc = tab, nil
		}
		tx, err := postgres.Begin(ctx, r.conn, "ISOLATION LEVEL REPEATABLE READ READ ONLY")
		if err != nil {
			return nil, fmt.Errorf("begin to read table %s: %w", name, err)
		}
		now := r.tab
		if err = lockShape(ctx, tx, r.tab); err == nil {
			now, err = postgres.LoadTable(ctx, tx, name)
		}
		if err == nil && now.Fingerprint == r.tab.Fingerprint {
			if r.enc == nil {
				r.enc, err = newEncoder(r.tab, r.srv)
			}
			if err == nil {
				return tx, nil
			}
		}
		rollback(ctx, tx)
		if r.tab, r.enc = now, nil; gone(err) {
			r.tab = nil
		} else if err != nil {
			return nil, err
		}
	}
	return nil, &source.ResyncError{Reason: fmt.Sprintf("the definition of table %s changes all the time", name), Backoff: true}
}

func lockShape(ctx context.Context, tx pgx.Tx, tab *postgres.Table) error {
	lock := "SET LOCAL lock_timeout = '10s'; LOCK TABLE " + tab.FromClause() + " IN ACCESS SHARE MODE; SET LOCAL lock_timeout = 0"
	if _, err := tx.Exec(ctx, lock, pgx.QueryExecModeSimpleProtocol); err != nil {
		return fmt.Errorf("lock table %s against changes of its definition: %w", tab.Name(), err)
	}
	return nil
}

// gone says whether the table that was locked is no more; another one may bear its name by now.
func gone(err error) bool {
	var pg *pgconn.PgError
	return errors.As(err, &pg) && (pg.Code == "42P01" || pg.Code == "3F000")
}

// rollback ends a transaction that only read. Where that fails the connection is of no use any more, and says so at its
// next use.
func rollback(ctx context.Context, tx pgx.Tx) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
	defer cancel()
	_ = tx.Rollback(ctx)
}

// whole copies all of the table, as the transaction opened by begin sees it, into t's next View. position is that View's
// place in the WAL; 0 for an unknown one.
func (r *tableReader) whole(ctx context.Context, t *snapshot.Table, why string, position pglogrepl.LSN) error {
	t.Load(r.tab.Shape, snapshot.Origin{
		Source: r.source, Database: r.srv.Database, SystemID: r.srv.SystemID, ServerVersion: r.srv.Version,
	})
	done, err := (&tableCopy{attendant: attendant{env: r.env, conn: r.conn, traffic: &r.traffic}, tab: r.tab, srv: r.srv}).into(ctx, t)
	if err != nil {
		t.Rollback()
		return err
	}
	if err := t.Commit(snapshot.Position{LSN: position}); err != nil {
		return fmt.Errorf("copy table %s: %w", r.tab.Name(), err)
	}
	r.took = done.took
	r.env.Progress.RecordCopy(r.took)
	r.env.Logger.Info("copied", "table", r.tab.Name().String(), "why", why, "rows", done.rows, "bytes", done.bytes, "jobs", done.jobs, "ms", millis(r.took))
	if done.replaced {
		r.env.WarnInvalidUTF8()
	}
	return nil
}

// attended runs f, which may take long.
func (r *tableReader) attended(ctx context.Context, f func(context.Context) error) error {
	a := attendant{env: r.env, conn: r.conn, traffic: &r.traffic}
	return a.run(ctx, f)
}

// keyed says whether rows can be read back by their keys' text forms: not where only the server can write a key.
func (r *tableReader) keyed() bool {
	for _, k := range r.tab.Key {
		if r.tab.Columns[k].Type.NeedsServer() {
			return false
		}
	}
	return true
}

// rows reads the rows with these keys, as the transaction opened by begin sees them, and brings them to t's next View;
// a key without a row is a deletion. It says what that changed.
func (r *tableReader) rows(ctx context.Context, t *snapshot.Table, keys [][]string) (x *source.TxnStats, err error) {
	err = r.bound(ctx, func(ctx context.Context) (err error) {
		x, err = r.apply(ctx, t, keys)
		return err
	})
	if err != nil {
		t.Rollback()
		return nil, fmt.Errorf("read rows of table %s by their keys: %w", r.tab.Name(), err)
	}
	if x.Changes() > 0 {
		if err := t.Commit(snapshot.Position{}); err != nil {
			return nil, fmt.Errorf("commit to memory: %w", err)
		}
	}
	return x, nil
}

func (r *tableReader) apply(ctx context.Context, t *snapshot.Table, keys [][]string) (*source.TxnStats, error) {
	x := &source.TxnStats{}
	found := make(map[string]bool, len(keys))
	result := r.conn.PgConn().ExecParams(ctx, r.tab.RowsByKeyQuery(), keyArrays(keys, len(r.tab.Key)), nil, nil, []int16{1})
	var key, line []byte
	var err error
	for err == nil && result.NextRow() {
		values := result.Values()
		if key, err = r.enc.AppendKey(key[:0], values); err != nil {
			break
		}
		if line, err = r.enc.AppendCopiedRow(line[:0], values); err != nil {
			break
		}
		found[string(key)] = true
		var old []byte
		if old, err = t.Get(key); err != nil {
			break
		}
		if bytes.Equal(old, line) {
			continue
		}
		if x.AddKey(key); old == nil {
			x.Inserts++
		} else {
			x.Updates++
		}
		t.Put(key, line)
	}
	if _, e := result.Close(); err == nil {
		err = e
	}
	if err != nil {
		return nil, err
	}
	values := make([][]byte, len(r.tab.Columns))
	for _, k := range keys {
		for i, column := range r.tab.Key {
			values[column] = []byte(k[i])
		}
		if key, err = r.enc.AppendKey(key[:0], values); err != nil {
			return nil, err
		}
		if found[string(key)] {
			continue
		}
		old, err := t.Get(key)
		if err != nil {
			return nil, err
		}
		if old != nil {
			x.Deletes++
			x.AddKey(key)
			t.Delete(key)
		}
	}
	return x, nil
}

// keyArrays turns keys into one text array, in text form, for each of the key's n columns.
func keyArrays(keys [][]string, n int) [][]byte {
	escape := strings.NewReplacer(`\`, `\\`, `"`, `\"`)
	arrays := make([][]byte, n)
	for i := range arrays {
		var b strings.Builder
		for j, k := range keys {
			b.WriteByte("{,"[min(j, 1)])
			b.WriteByte('"')
			_, _ = escape.WriteString(&b, k[i]) // a Builder takes all
			b.WriteByte('"')
		}
		b.WriteByte('}')
		arrays[i] = []byte(b.String())
	}
	return arrays
}

// storage says whether part of the table lies on another server, and whether all of it is stored as Postgres itself
// does it.
func storage(ctx context.Context, q postgres.Querier, tab *postgres.Table) (foreign, heap bool, err error) {
	err = q.QueryRow(ctx, `
		SELECT COALESCE(bool_or(c.relkind = 'f'), false), COALESCE(bool_and(c.relam = 2), false) -- 2 is heap, whatever its name
		FROM pg_catalog.pg_class c
		WHERE c.relkind <> 'p' AND (c.oid = $1 OR c.oid IN (SELECT relid FROM pg_catalog.pg_partition_tree($1::oid::regclass)))`,
		tab.OID).Scan(&foreign, &heap)
	if err != nil {
		return false, false, fmt.Errorf("look at how table %s is stored: %w", tab.Name(), err)
	}
	return foreign, heap, nil
}
