package recovery

import (
	"context"
	"fmt"
	"hash/maphash"
	"strconv"
	"strings"

	"github.com/jackc/pgx/v5"

	"capture/internal/postgres"
	"capture/snapshot/rowjson"
)

// look is a snapshot of the table.
type look struct {
	conn  *pgx.Conn
	tx    pgx.Tx
	table *postgres.Table
	enc   *rowjson.Encoder
	seed  maphash.Seed
	line  []byte
}

func (c *Comparison) look(ctx context.Context) (*look, error) {
	conn, err := postgres.Connect(ctx, c.Database)
	if err != nil {
		return nil, err
	}
	l := &look{conn: conn}
	if err := l.open(ctx, c.Table); err != nil {
		l.close()
		return nil, err
	}
	return l, nil
}

func (l *look) open(ctx context.Context, name postgres.Name) (err error) {
	if l.tx, err = postgres.Begin(ctx, l.conn, "ISOLATION LEVEL REPEATABLE READ READ ONLY"); err != nil {
		return postgres.Explain(fmt.Errorf("begin to read table %s: %w", name, err))
	}
	if l.table, err = postgres.LoadTable(ctx, l.tx, name); err != nil { // takes the snapshot
		return err
	}
	l.enc, err = rowjson.NewEncoder(l.table.Shape, l.conn.PgConn().ParameterStatus("server_encoding") == "SQL_ASCII")
	return err
}

func (l *look) close() {
	// The connection's end ends the transaction, too.
	l.conn.Close(context.Background())
}

// hash is the same for lines that differ in white space between tokens alone. It is never 0.
func (l *look) hash(line []byte) uint64 {
	l.line = appendCompact(l.line[:0], line)
	return max(maphash.Bytes(l.seed, l.line), 1)
}

// read puts all of the table's rows into s.
func (l *look) read(ctx context.Context, s *sorter, progress func(Progress)) error {
	rows, err := l.tx.Query(ctx, "SELECT "+l.table.SelectList()+" FROM "+l.table.FromClause())
	if err != nil {
		return explain("read table "+l.table.Name().String(), err)
	}
	defer rows.Close()
	var key, line []byte
	for n := 1; rows.Next(); n++ {
		values := rows.RawValues()
		if key, err = l.enc.AppendKey(key[:0], values); err == nil {
			line, err = l.enc.AppendCopiedRow(line[:0], values)
		}
		if err == nil {
			err = s.add(key, l.hash(line))
		}
		if err != nil {
			return err
		}
		if progress != nil && n%10_000 == 0 {
			progress(Progress{Doing: "reading the table", Rows: n})
		}
	}
	return explainNil("read table "+l.table.Name().String(), rows.Err())
}

// row is the line of one row, nil where there is none.
func (l *look) row(ctx context.Context, key []byte) ([]byte, error) {
	sql := "SELECT " + l.table.SelectList() + " FROM " + l.table.FromClause() + " WHERE "
	var args []any
	for i, text := range keyTexts(l.table.Shape, key) {
		c := &l.table.Columns[l.table.Key[i]]
		if i > 0 {
			sql += " AND "
		}
		sql += fmt.Sprintf("%s = $%d::text::%s", postgres.QuoteIdentifier(c.Name), i+1, c.TypeName)
		args = append(args, text)
	}
	rows, err := l.tx.Query(ctx, sql, args...)
	if err != nil {
		return nil, explain("read a row of table "+l.table.Name().String(), err)
	}
	defer rows.Close()
	var line []byte
	if rows.Next() {
		if line, err = l.enc.AppendCopiedRow(nil, rows.RawValues()); err != nil {
			return nil, err
		}
	}
	rows.Close()
	return line, explainNil("read a row of table "+l.table.Name().String(), rows.Err())
}

// keyTexts are the text forms of a key's columns, as [rowjson.Shape.KeyString] writes them.
func keyTexts(s *rowjson.Shape, key []byte) []string {
	text := s.KeyString(key)
	if len(s.Key) > 1 && len(text) > 1 && text[0] == '(' {
		text = text[1 : len(text)-1]
	}
	var texts []string
	for {
		part := text
		if len(text) > 0 && text[0] == '"' {
			quoted, err := strconv.QuotedPrefix(text)
			if err != nil {
				break
			}
			part = quoted
			unquoted, _ := strconv.Unquote(quoted)
			texts = append(texts, unquoted)
		} else {
			if i := strings.IndexByte(text, ','); i >= 0 {
				part = text[:i]
			}
			texts = append(texts, part)
		}
		text = text[len(part):]
		if text == "" {
			break
		}
		text = text[1:]
	}
	return texts
}
