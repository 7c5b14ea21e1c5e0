package verify

import (
	"bytes"
	"context"
	"fmt"
	"hash/maphash"

	"github.com/go-json-experiment/json/jsontext"
	"github.com/jackc/pgx/v5"

	"capture/internal/postgres"
	"capture/snapshot/rowjson"
)

// tableSnapshot reads the table in one snapshot of the database.
type tableSnapshot struct {
	conn    *pgx.Conn
	tx      pgx.Tx
	pid     int32 // process ID of the session
	table   *postgres.Table
	encoder *rowjson.Encoder
	seed    maphash.Seed
	values  *valueHasher // hasher of the rows in a comparison by value; nil in any other comparison
	compact []byte       // buffer that hashLine reuses
}

// openSnapshot takes a snapshot on a new connection, and adds the snapshot's session to w. To end the comparison, w closes
// this connection.
func (c *Comparison) openSnapshot(ctx context.Context, seed maphash.Seed, w *lockWatch) (*tableSnapshot, error) {
	conn, err := postgres.Connect(ctx, postgres.WithReadBuffer(c.Database, c.MaxRow))
	if err != nil {
		return nil, err
	}
	t := &tableSnapshot{conn: conn, seed: seed}
	if err := t.takeSnapshot(ctx, c.Table, c.Key); err != nil {
		t.close()
		return nil, err
	}
	w.add(t)
	t.encoder.MaxLine = int(c.MaxRow)
	if c.ByValue {
		t.values = newValueHasher(seed, t.table.Shape)
	}
	return t, nil
}

// takeSnapshot locks the table and takes the snapshot; see [postgres.BeginLocked].
func (t *tableSnapshot) takeSnapshot(ctx context.Context, name postgres.Name, key []string) (err error) {
	load := func(ctx context.Context, q postgres.Querier, name postgres.Name) (*postgres.Table, error) {
		return postgres.LoadTarget(ctx, q, name, key)
	}
	if t.tx, t.table, err = postgres.BeginLocked(ctx, t.conn, name, nil, load); err != nil {
		return postgres.Explain(err)
	}
	if t.pid, err = postgres.LimitFrozenSession(ctx, t.tx, frozenTimeout); err != nil {
		return postgres.Explain(err)
	}
	return t.prepareRows(name)
}

// prepareRows prepares t for reading the table's rows.
func (t *tableSnapshot) prepareRows(name postgres.Name) (err error) {
	if len(t.table.Key) == 0 {
		return &postgres.Problem{
			Summary: fmt.Sprintf("table %s has no primary key", name),
			Reason:  "rows are compared by their key, and the file has no manifest that names one",
			Hint:    fmt.Sprintf("ALTER TABLE %s ADD PRIMARY KEY (…);", t.table.Name().Quoted()),
		}
	}
	t.encoder, err = rowjson.NewEncoder(t.table.Shape, t.conn.PgConn().ParameterStatus("server_encoding") == "SQL_ASCII")
	return err
}

// close closes the connection, which ends the transaction.
func (t *tableSnapshot) close() { postgres.CloseNow(t.conn.PgConn()) }

// hashLine returns a hash of a line. Lines that differ only in white space between tokens have the same hash. In a comparison
// by value, lines with the same values also have the same hash. The hash is never 0, because 0 stands for a missing row.
func (t *tableSnapshot) hashLine(line []byte) uint64 {
	if t.values != nil {
		return max(t.values.hashRow(line), 1)
	}
	t.compact = appendCompact(t.compact[:0], line)
	return max(maphash.Bytes(t.seed, t.compact), 1)
}

// compacting lists options for AppendFormat. With these options, AppendFormat removes only white space, and accepts all JSON
// that package statefile accepts, see its variable named decoding.
var compacting = []jsontext.Options{jsontext.AllowDuplicateNames(true), jsontext.AllowInvalidUTF8(true), jsontext.PreserveRawStrings(true)}

// appendCompact appends JSON without the white space between its tokens.
func appendCompact(dst, value []byte) []byte {
	// AppendFormat fails only for invalid JSON, and then appends value unchanged. The callers never pass invalid JSON.
	dst, _ = jsontext.AppendFormat(dst, value, compacting...)
	return dst
}

// encodeRow appends the key and the line of a row to the buffers key and line. If the row is too large, it appends tooLarge as
// the line.
func (t *tableSnapshot) encodeRow(key, line []byte, values [][]byte) (_, _ []byte, err error) {
	_, omitted := postgres.OmittedSizes(values, len(t.table.Columns))
	values = values[:min(len(values), len(t.table.Columns))]
	if key, err = t.encoder.AppendKey(key, values); err != nil || omitted {
		return key, append(line, tooLarge...), err
	}
	line, err = t.encoder.AppendCopiedRow(line, values)
	if _, large := rowjson.IsTooLarge(err); large {
		return key, append(line, tooLarge...), nil
	}
	return key, line, err
}

// isSameValue reports whether two values of a column are equal.
func (t *tableSnapshot) isSameValue(column string, a, b []byte) bool {
	if t.values != nil {
		return t.values.hashColumn(column, a) == t.values.hashColumn(column, b)
	}
	return bytes.Equal(appendCompact(nil, a), appendCompact(nil, b))
}

// tooLarge represents the line of a row that is too large. No row has this line, because every row has a key.
const tooLarge = "{}"

// keptLineBytes is the maximum size in bytes of a buffer that is reused for the next row.
const keptLineBytes = 1 << 20

// readHashes adds the key and the hash of each row of the table to s. If isOmitted is not nil, readHashes skips
// the rows for whose keys isOmitted returns true.
func (t *tableSnapshot) readHashes(ctx context.Context, s *sorter, isOmitted func(rowjson.Key) bool, progress func(rows int)) error {
	action := "read table " + t.table.Name().String()
	rows, err := t.tx.Query(ctx, "SELECT "+t.table.SelectList()+" FROM "+t.table.FromClause())
	if err != nil {
		return postgres.ExplainRedacted(action, err)
	}
	defer rows.Close()
	var key, line []byte
	for n := 1; rows.Next(); n++ {
		var row []byte
		if key, row, err = t.encodeRow(key[:0], line[:0], rows.RawValues()); err != nil {
			return err
		}
		if isOmitted == nil || !isOmitted(key) {
			if err := s.addEntry(key, t.hashLine(row)); err != nil {
				return err
			}
		}
		if line = row; cap(line) > keptLineBytes {
			line, t.compact = nil, nil
		}
		if n%1000 == 0 {
			progress(n)
		}
	}
	return postgres.ExplainRedacted(action, rows.Err())
}

// readRow returns the line of the row with the given key, or nil if the table has no such row.
func (t *tableSnapshot) readRow(ctx context.Context, key rowjson.Key) ([]byte, error) {
	action := "read a row of table " + t.table.Name().String()
	texts, ok := t.table.KeyTexts(key)
	if !ok {
		return nil, fmt.Errorf("%s: malformed key", action)
	}
	args := make([]any, len(texts))
	for i, text := range texts {
		args[i] = string(text)
	}
	sql := "SELECT " + t.table.SelectList() + " FROM " + t.table.FromClause() + " WHERE " + t.table.KeyCondition()
	rows, err := t.tx.Query(ctx, sql, args...)
	if err != nil {
		return nil, postgres.ExplainRedacted(action, err)
	}
	defer rows.Close()
	var line []byte
	if rows.Next() {
		if _, line, err = t.encodeRow(nil, nil, rows.RawValues()); err != nil {
			return nil, err
		}
	}
	rows.Close()
	return line, postgres.ExplainRedacted(action, rows.Err())
}
