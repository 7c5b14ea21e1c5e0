package capture

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"capture/capture/source"
	"capture/internal/postgres"
	"capture/snapshot/rowjson"
)

// serverShape writes values that only the server can, through the side connection.
type serverShape struct {
	ctx     context.Context
	side    *postgres.QueryConn
	shape   *rowjson.Shape
	missing []int    // the columns that the stream leaves out: generated ones
	query   string   // for their values
	from    []int    // the columns that they are made of
	types   []uint32 // of those
	params  [][]byte
}

func newServerShape(ctx context.Context, s *postgres.QueryConn, tab *postgres.Table) *serverShape {
	w := &serverShape{ctx: ctx, side: s, shape: tab.Shape}
	for i, c := range tab.Columns {
		if !c.Published {
			w.missing = append(w.missing, i)
		}
	}
	w.query, w.from, w.types = tab.GeneratedColumnsQuery()
	return w
}

// toJSON is to_json of the value that text stands for in a column's type.
func (w *serverShape) toJSON(column int, text []byte) (answer []byte, err error) {
	types := []uint32{w.shape.Columns[column].TypeOID} // the type's name would need the right to use its schema
	err = w.side.Do(w.ctx, func(ctx context.Context, conn *pgx.Conn) error {
		values, err := textRow(ctx, conn, "SELECT pg_catalog.to_json($1)", types, text)
		if err == nil {
			answer = values[0]
		}
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("ask the server to write column %q: %w", w.shape.Columns[column].Name, err)
	}
	return answer, nil
}

// generate gives the text forms of the columns that the stream leaves out, for a row of which values has the others. What
// an update left unchanged is taken from the row's line.
func (w *serverShape) generate(enc *rowjson.Encoder, values [][]byte, line []byte) (generated [][]byte, err error) {
	w.params = w.params[:0]
	for _, i := range w.from {
		v := values[i]
		if isUnchanged(v) {
			raw, ok := enc.Field(line, i)
			if ok {
				v, ok = textOf(&w.shape.Columns[i].Type, raw)
			}
			if !ok {
				return nil, &source.ResyncError{Reason: fmt.Sprintf("an update left out column %q, which generated columns need", w.shape.Columns[i].Name), Backoff: true}
			}
		}
		w.params = append(w.params, v)
	}
	err = w.side.Do(w.ctx, func(ctx context.Context, conn *pgx.Conn) error {
		generated, err = textRow(ctx, conn, w.query, w.types, w.params...)
		return err
	})
	if pg := (*pgconn.PgError)(nil); errors.As(err, &pg) && w.ctx.Err() == nil {
		// The server did answer: its definitions have moved on since the row was written.
		return nil, &source.ResyncError{Reason: "the server does not compute generated columns as it did: " + pg.Error(), Backoff: true}
	}
	if err != nil {
		return nil, fmt.Errorf("ask the server for generated columns: %w", err)
	}
	return generated, nil
}

// textOf is a text form that Postgres reads as the value whose JSON is given; nil for NULL. It is false where JSON does
// not tell: of what only the server writes, and where arrays may be an array's elements or its dimensions. (Bounds of
// arrays and line feeds between the tokens of json are not in the JSON.)
func textOf(t *rowjson.Type, raw json.RawMessage) (text []byte, ok bool) {
	if string(raw) == "null" {
		return nil, t.Kind != rowjson.JSON // which has a null of its own
	}
	switch t.Kind {
	case rowjson.JSON:
		return raw, true
	case rowjson.Array:
		return arrayText(t, raw)
	case rowjson.Vector:
		return bytes.ReplaceAll(bytes.Trim(raw, "[]"), []byte(","), []byte(" ")), true
	case rowjson.Composite:
		return compositeText(t, raw)
	case rowjson.Cast:
		return nil, false
	}
	if len(raw) == 0 || raw[0] != '"' {
		return raw, len(raw) > 0
	}
	var s string
	err := json.Unmarshal(raw, &s)
	return []byte(s), err == nil
}

func arrayText(t *rowjson.Type, raw json.RawMessage) (text []byte, ok bool) {
	var elems []json.RawMessage
	if err := json.Unmarshal(raw, &elems); err != nil {
		return nil, false
	}
	text = append(text, '{')
	for i, e := range elems {
		if i > 0 {
			text = append(text, t.Delim)
		}
		if e[0] == '[' {
			switch t.Elem.Kind {
			case rowjson.Array, rowjson.Vector, rowjson.JSON:
				return nil, false
			}
			inner, ok := arrayText(t, e)
			if !ok {
				return nil, false
			}
			text = append(text, inner...)
			continue
		}
		v, ok := textOf(t.Elem, e)
		switch {
		case !ok:
			return nil, false
		case v == nil:
			text = append(text, "NULL"...)
		default:
			text = appendQuoted(text, v)
		}
	}
	return append(text, '}'), true
}

func compositeText(t *rowjson.Type, raw json.RawMessage) (text []byte, ok bool) {
	var fields map[string]json.RawMessage
	if err := json.Unmarshal(raw, &fields); err != nil {
		return nil, false
	}
	text = append(text, '(')
	for i := range t.Fields {
		if i > 0 {
			text = append(text, ',')
		}
		v, ok := textOf(&t.Fields[i].Type, fields[t.Fields[i].Name])
		if !ok {
			return nil, false
		}
		if v != nil {
			text = appendQuoted(text, v)
		}
	}
	return append(text, ')'), true
}

// appendQuoted appends a value as arrays and composites alike take it.
func appendQuoted(dst, v []byte) []byte {
	dst = append(dst, '"')
	for _, c := range v {
		if c == '"' || c == '\\' {
			dst = append(dst, '\\')
		}
		dst = append(dst, c)
	}
	return append(dst, '"')
}

// textRow returns the one row of a query, all as text. types are the OIDs of the parameters' types. The query may call
// functions of the table's owner, so it runs in a read-only transaction.
func textRow(ctx context.Context, conn *pgx.Conn, query string, types []uint32, params ...[]byte) ([][]byte, error) {
	b := &pgconn.Batch{}
	b.ExecParams("BEGIN READ ONLY", nil, nil, nil, nil)
	b.ExecParams(query, params, types, nil, nil)
	b.ExecParams("COMMIT", nil, nil, nil, nil)
	results, err := conn.PgConn().ExecBatch(ctx, b).ReadAll()
	if err != nil {
		_ = conn.PgConn().Exec(ctx, "ROLLBACK").Close() // a connection that cannot roll back is closed
		return nil, err
	}
	if len(results) != 3 || len(results[1].Rows) != 1 {
		return nil, errors.New("the server did not return one row")
	}
	return results[1].Rows[0], nil
}
