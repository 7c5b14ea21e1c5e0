package capture

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/jackc/pgx/v5"

	"capture/internal/postgres"
	"capture/snapshot"
)

const progressEvery = 10 * time.Second

// Export reads the whole table once, as one transaction sees it, without a daemon.
func Export(ctx context.Context, cfg Config) (*snapshot.View, error) {
	if cfg.Logger == nil {
		cfg.Logger = hclog.NewNullLogger()
	}
	cfg.bounds = cfg.bounds.orUsual()
	t := snapshot.NewTable()
	if err := readTable(ctx, cfg, "export", t, nil); err != nil {
		return nil, postgres.Explain(err)
	}
	return t.View(), nil
}

// readTable copies the table as any transaction sees it into t's next View. Its place in the stream is not known. check,
// where there is one, is asked now and then: its *anewError ends the copy.
func readTable(ctx context.Context, cfg Config, source string, t *snapshot.Table, check func(context.Context, *pgx.Conn) error) error {
	c := &tableCopy{attendant: attendant{cfg: cfg, traffic: &traffic{}, check: check}}
	var srv postgres.Server
	err := c.traffic.bound(ctx, cfg.bounds.silence, func(ctx context.Context) (err error) {
		if c.conn, err = postgres.Connect(ctx, c.traffic.watch(cfg.Database)); err != nil {
			return err
		}
		if srv, err = postgres.Inspect(ctx, c.conn); err != nil {
			return err
		}
		tx, err := postgres.Begin(ctx, c.conn, "ISOLATION LEVEL REPEATABLE READ READ ONLY")
		if err != nil {
			return fmt.Errorf("begin to read table %s: %w", cfg.Table, err)
		}
		c.tab, err = postgres.LoadTable(ctx, tx, cfg.Table)
		return err
	})
	if c.conn != nil {
		defer closeConn(c.conn)
	}
	if err != nil {
		return err
	}
	if c.enc, err = newEncoder(c.tab, srv); err != nil {
		return err
	}
	t.Load(c.tab.Shape, snapshot.Origin{Source: source, Database: srv.Database, SystemID: srv.SystemID, ServerVersion: srv.Version})
	w, err := c.into(ctx, t)
	if err != nil {
		t.Rollback()
		return err
	}
	if err := t.Commit(snapshot.Position{}); err != nil {
		return fmt.Errorf("copy table %s: %w", c.tab.Name(), err)
	}
	cfg.Logger.Info("read", "table", c.tab.Name().String(), "rows", w.rows, "bytes", w.bytes, "ms", millis(time.Since(w.start)))
	return nil
}

func newEncoder(tab *postgres.Table, srv postgres.Server) (*snapshot.Encoder, error) {
	return snapshot.NewEncoder(tab.Shape, srv.Encoding == "SQL_ASCII")
}

// tableCopy reads the whole table, as a connection's open transaction sees it: attended, paced, and while it fits.
type tableCopy struct {
	attendant
	tab *postgres.Table
	enc *snapshot.Encoder
}

// into reads into t's open Load. The caller commits, or rolls back.
func (c *tableCopy) into(ctx context.Context, t *snapshot.Table) (*rowWriter, error) {
	w := &rowWriter{
		enc: c.enc, table: t, log: c.cfg.Logger, start: time.Now(), said: time.Now(),
		values: make([][]byte, len(c.tab.Columns)),
	}
	fit := &fitting{to: w, limit: MemoryLimit(), rows: func() int64 { return w.rows }}
	var to io.Writer = fit
	err := c.run(ctx, func(ctx context.Context) error {
		err := c.conn.QueryRow(ctx, `
			SELECT pg_catalog.pg_size_pretty(coalesce(sum(pg_catalog.pg_table_size(relid)), pg_catalog.pg_table_size($1::oid::regclass)))
			FROM pg_catalog.pg_partition_tree($1::oid::regclass)`, c.tab.OID).Scan(&fit.size)
		if err != nil {
			return fmt.Errorf("ask for its size: %w", err)
		}
		if c.cfg.CopyRate > 0 {
			to = &paced{ctx: ctx, to: to, rate: c.cfg.CopyRate, start: w.start}
		}
		_, err = c.conn.PgConn().CopyTo(ctx, to, c.tab.CopyQuery())
		return err
	})
	if err == nil && !w.ended {
		err = errors.New("the server's copy ended before its end mark")
	}
	if err != nil {
		return w, fmt.Errorf("copy table %s: %w", c.tab.Name(), err)
	}
	return w, nil
}

// rowWriter takes a COPY in binary format apart, whatever the pieces it comes in, and puts its rows into a Table.
// (Format: PostgreSQL documentation, COPY, "Binary Format".)
type rowWriter struct {
	enc    *snapshot.Encoder
	table  *snapshot.Table
	log    hclog.Logger
	values [][]byte
	rest   []byte // of a row that has not come whole
	key    []byte
	line   []byte

	begun, ended bool
	rows         int64
	bytes        int64
	start, said  time.Time
}

var copySignature = []byte("PGCOPY\n\xff\r\n\x00")

func (w *rowWriter) Write(p []byte) (int, error) {
	b := p
	if len(w.rest) > 0 {
		w.rest = append(w.rest, p...)
		b = w.rest
	}
	w.bytes += int64(len(p))
	for {
		n, err := w.take(b)
		if err != nil {
			return 0, err
		}
		if n == 0 {
			break
		}
		b = b[n:]
	}
	w.rest = append(w.rest[:0], b...)
	return len(p), nil
}

// take uses the header or one row at the start of b, and returns its length; 0 where it is not whole yet.
func (w *rowWriter) take(b []byte) (int, error) {
	if !w.begun {
		const fixed = 19 // signature, flags, length of the extension
		if len(b) < fixed {
			return 0, nil
		}
		if !bytes.HasPrefix(b, copySignature) {
			return 0, errors.New("this is not a copy in binary format")
		}
		n := fixed + int64(binary.BigEndian.Uint32(b[15:]))
		if int64(len(b)) < n {
			return 0, nil
		}
		w.begun = true
		return int(n), nil
	}
	if w.ended && len(b) > 0 {
		return 0, errors.New("the copy goes on after its end mark")
	}
	if len(b) < 2 {
		return 0, nil
	}
	fields := int(int16(binary.BigEndian.Uint16(b)))
	if fields == -1 {
		w.ended = true
		return 2, nil
	}
	if fields != len(w.values) {
		return 0, fmt.Errorf("a row of the copy has %d fields where the table has %d columns", fields, len(w.values))
	}
	at := 2
	for i := range w.values {
		if len(b)-at < 4 {
			return 0, nil
		}
		n := int(int32(binary.BigEndian.Uint32(b[at:])))
		at += 4
		switch {
		case n == -1:
			w.values[i] = nil
		case n < -1:
			return 0, fmt.Errorf("a field of the copy has length %d", n)
		case len(b)-at < n:
			return 0, nil
		default:
			w.values[i] = b[at : at+n : at+n]
			at += n
		}
	}
	return at, w.row()
}

func (w *rowWriter) row() (err error) {
	if w.key, err = w.enc.AppendKey(w.key[:0], w.values); err != nil {
		return err
	}
	if w.line, err = w.enc.AppendCopiedRow(w.line[:0], w.values); err != nil {
		return err
	}
	w.table.Put(w.key, w.line)
	w.rows++
	if w.rows%4096 == 0 && time.Since(w.said) > progressEvery {
		w.said = time.Now()
		took := time.Since(w.start).Seconds()
		w.log.Info("copying", "rows", w.rows, "bytes", w.bytes, "rows_per_second", int64(float64(w.rows)/took))
	}
	return nil
}
