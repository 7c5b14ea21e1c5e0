package tablecopy

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pglogrepl"
	"github.com/jackc/pgx/v5"

	"capture/capture/source"
	"capture/internal/postgres"
	"capture/snapshot"
	"capture/snapshot/rowjson"
)

// Reader reads a table in its own transactions. Each transaction sees one committed state of the table.
type Reader struct {
	Conn   *pgx.Conn // nil before Open
	Server postgres.Server
	Table  *postgres.Table    // definition of the table as the last transaction saw it
	Reads  postgres.ReadClock // records when data last arrived from Conn

	env         *source.Env
	name        string // name of the source, for the View's origin
	encoder     *rowjson.Encoder
	read        *snapshot.Horizon // horizon of the last read of the whole table; nil if that read has no horizon
	unconfirmed *snapshot.Horizon // horizon that the last View gets once its rows are durable; nil if the View has its horizon already, or can have none

	confirmAt    time.Time     // time of the next call of Confirm, if unconfirmed is set
	confirmPause time.Duration // pause after the next call of Confirm if the rows are not durable by then
}

// NewReader returns a Reader for a source with this name.
func NewReader(env *source.Env, sourceName string) *Reader {
	return &Reader{env: env, name: sourceName}
}

// Open connects if there is no open connection, and reports the server to Progress.
func (r *Reader) Open(ctx context.Context) (err error) {
	if r.Conn != nil && !r.Conn.IsClosed() {
		return nil
	}
	r.setUnconfirmed(nil) // only the session that has read the rows can confirm them
	if err := r.connect(ctx); err != nil {
		return err
	}
	r.env.SetServer(r.Server.SystemID, &r.Server)
	return nil
}

// connect opens the connection and loads the server's properties.
func (r *Reader) connect(ctx context.Context) (err error) {
	if r.Conn, err = postgres.Connect(ctx, postgres.WithReadBuffer(r.Reads.Attach(r.env.Database), r.env.RowLimit())); err != nil {
		return err
	}
	r.Server, err = postgres.LoadServer(ctx, r.Conn)
	return err
}

// Close closes the connection.
func (r *Reader) Close() {
	if r.Conn != nil {
		postgres.CloseNow(r.Conn.PgConn())
		r.Conn = nil
	}
}

// LoadRows loads into t the rows that an earlier run left in feedback.json, if they can be used; see [source.Env.LoadRows].
func (r *Reader) LoadRows(ctx context.Context, t *snapshot.Table, table *postgres.Table) error {
	if !r.env.NeedsRows(t) {
		return nil
	}
	var place *snapshot.Place
	err := r.withIdleTimeout(ctx, func(ctx context.Context) (err error) {
		place, err = LoadPlace(ctx, r.Conn, table, &r.Server)
		return err
	})
	if err != nil {
		return err
	}
	r.env.LoadRows(ctx, t, table.Shape, place)
	return ctx.Err()
}

// Begin opens a transaction and sets Table to the table's definition as the transaction sees it; see [postgres.BeginLocked].
func (r *Reader) Begin(ctx context.Context) (tx pgx.Tx, err error) {
	err = r.withIdleTimeout(ctx, func(ctx context.Context) (err error) {
		tx, err = r.begin(ctx)
		return err
	})
	return tx, err
}

// withIdleTimeout calls f, and cancels f's context if Conn receives nothing for Timeouts.Idle. f must not run a query during
// which the server may be silent for that long.
func (r *Reader) withIdleTimeout(ctx context.Context, f func(context.Context) error) error {
	return r.Reads.WithIdleTimeout(ctx, r.env.Timeouts.Idle, f)
}

func (r *Reader) begin(ctx context.Context) (pgx.Tx, error) {
	tx, table, err := postgres.BeginLocked(ctx, r.Conn, r.env.Table, r.Table, postgres.LoadTable)
	if table != r.Table {
		r.Table, r.encoder = table, nil
	}
	if errors.Is(err, postgres.ErrRedefined) {
		return nil, &source.ResyncError{Reason: err.Error(), Backoff: true}
	}
	if err != nil {
		return nil, err
	}
	if r.encoder == nil {
		if r.encoder, err = NewEncoder(r.Table, r.Server, r.env.RowLimit()); err != nil {
			postgres.Rollback(ctx, tx)
			return nil, err
		}
	}
	return tx, nil
}

// WithWatchdog calls f under a [Watchdog]. f runs a query on Conn that may take long.
func (r *Reader) WithWatchdog(ctx context.Context, f func(context.Context) error) error {
	return NewWatchdog(r.env, &r.Reads, nil).Run(ctx, r.Conn, f)
}

// KeyLookupProblem returns the reason why ReadRows cannot be used for the table, or "" if ReadRows can be used. One reason is
// a key column that only the server can encode. The server no longer has deleted rows, so it cannot encode their keys. Another
// reason is that the user may not use the schema of a key column's type.
func (r *Reader) KeyLookupProblem() string {
	for _, k := range r.Table.Key {
		if r.Table.Columns[k].Type.NeedsServer() {
			return "only the server can write the type of a key column"
		}
	}
	if err := r.Table.KeyProblem(); err != nil {
		return err.Error()
	}
	return ""
}

// ReadRows reads the rows with these keys, as the transaction opened by Begin sees them, and commits them to t as its next
// View. If a key has no row in the table, ReadRows deletes the row with this key from t. Each key is a list of its columns'
// values in text form. position is the View's WAL position. The caller must query the position in the same transaction before
// this call. ReadRows may make the server write WAL that nothing flushes. A position that is queried afterwards might therefore
// not be durable for a long time. ReadRows returns the numbers of changes. If there are no changes, there is no new View.
func (r *Reader) ReadRows(ctx context.Context, t *snapshot.Table, keys [][]string, position pglogrepl.LSN) (stats *source.TxnStats, err error) {
	err = r.withIdleTimeout(ctx, func(ctx context.Context) (err error) {
		stats, err = r.applyRows(ctx, t, keys)
		return err
	})
	if err != nil {
		t.Rollback()
		return nil, fmt.Errorf("read rows of table %s by their keys: %w", r.Table.Name(), err)
	}
	if stats.Changes() > 0 {
		if err := r.commitRows(ctx, t, position); err != nil {
			return nil, err
		}
	}
	return stats, nil
}

func (r *Reader) applyRows(ctx context.Context, t *snapshot.Table, keys [][]string) (*source.TxnStats, error) {
	stats := &source.TxnStats{}
	found, err := r.putRows(ctx, t, keys, stats)
	if err != nil {
		return nil, err
	}
	var key []byte
	values := make([][]byte, len(r.Table.Columns))
	for _, k := range keys {
		for i, column := range r.Table.Key {
			values[column] = []byte(k[i])
		}
		if key, err = r.encoder.AppendKey(key[:0], values); err != nil {
			return nil, err
		}
		if found[string(key)] {
			continue
		}
		old, err := t.Get(key)
		if err != nil {
			return nil, err
		}
		if _, omitted := t.OmittedSizes(key); old != nil || omitted {
			stats.Deletes++
			stats.AddKey(key)
			t.Delete(key)
		}
	}
	return stats, nil
}

// putRows looks up the rows with the given keys in the table. It puts those that exist into t, and returns the keys that it
// found. A row that t already contains with the same values does not count as a change.
func (r *Reader) putRows(ctx context.Context, t *snapshot.Table, keys [][]string, stats *source.TxnStats) (found map[string]bool, err error) {
	found = make(map[string]bool, len(keys))
	result := r.Conn.PgConn().ExecParams(ctx, r.Table.RowsByKeyQuery(), keyArrays(keys, len(r.Table.Key)), nil, nil, []int16{1})
	defer func() {
		if _, closeErr := result.Close(); err == nil {
			err = closeErr
		}
	}()
	var key, line, old []byte
	for result.NextRow() {
		var sizes []int64
		if key, line, sizes, err = r.encodeRow(key[:0], line[:0], result.Values()); err != nil {
			return nil, err
		}
		found[string(key)] = true
		if old, err = t.Get(key); err != nil {
			return nil, err
		}
		oldSizes, wasOmitted := t.OmittedSizes(key)
		switch {
		case sizes == nil && bytes.Equal(old, line), sizes != nil && slices.Equal(oldSizes, sizes):
			continue
		case old == nil && !wasOmitted:
			stats.Inserts++
		default:
			stats.Updates++
		}
		stats.AddKey(key)
		if sizes != nil {
			t.Omit(key, sizes)
		} else {
			t.Put(key, line)
		}
		if cap(line) > batchBytes {
			line = nil
		}
	}
	return found, nil
}

// encodeRow appends the row's key to key and its line to line. If the row is too large, it returns the sizes of its values
// instead of a line.
func (r *Reader) encodeRow(key, line []byte, values [][]byte) (_, _ []byte, sizes []int64, err error) {
	sizes, omitted := postgres.OmittedSizes(values, len(r.Table.Columns))
	values = values[:min(len(values), len(r.Table.Columns))]
	if key, err = r.encoder.AppendKey(key, values); err != nil || omitted {
		return key, line, sizes, err
	}
	line, err = r.encoder.AppendCopiedRow(line, values)
	if sizes, tooLarge := rowjson.IsTooLarge(err); tooLarge {
		return key, line, sizes, nil
	}
	return key, line, nil, err
}

// keyArrays returns one array for each of the n columns of the keys, in the text form of type text[].
func keyArrays(keys [][]string, n int) [][]byte {
	escape := strings.NewReplacer(`\`, `\\`, `"`, `\"`)
	arrays := make([][]byte, n)
	for i := range arrays {
		var b strings.Builder
		for j, k := range keys {
			b.WriteByte("{,"[min(j, 1)])
			b.WriteByte('"')
			_, _ = escape.WriteString(&b, k[i]) // a Builder returns no errors
			b.WriteByte('"')
		}
		b.WriteByte('}')
		arrays[i] = []byte(b.String())
	}
	return arrays
}
