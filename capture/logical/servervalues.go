package logical

import (
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

// serverValues queries values that only the server can compute: the JSON of values whose types rowjson does not know, and
// generated columns, which the stream leaves out. The applier waits for the result of each query before it continues.
type serverValues struct {
	ctx         context.Context // context of the stream, because rowjson.Encoder passes no context to encode
	queries     *postgres.QueryConn
	shape       *rowjson.Shape
	unpublished []int    // indices of the columns that the stream leaves out
	query       string   // SQL query that computes the unpublished columns
	inputs      []int    // indices of the columns that are the query's parameters
	inputTypes  []uint32 // type OIDs of the query's parameters
	params      [][]byte // buffer for the query's parameters
}

func newServerValues(ctx context.Context, queries *postgres.QueryConn, table *postgres.Table) *serverValues {
	v := &serverValues{ctx: ctx, queries: queries, shape: table.Shape}
	for i, c := range table.Columns {
		if !c.Published {
			v.unpublished = append(v.unpublished, i)
		}
	}
	v.query, v.inputs, v.inputTypes = table.GeneratedColumnsQuery()
	return v
}

// encode sends the text form of a column's value to the server, and returns the JSON that the server computes by to_json.
// The stream's rowjson.Encoder calls encode through its field Server.
func (v *serverValues) encode(column int, text []byte) (answer []byte, err error) {
	c := &v.shape.Columns[column]
	types := []uint32{c.TypeOID} // the OID, because the name of the type would require USAGE on the type's schema
	err = v.queries.Do(v.ctx, func(ctx context.Context, conn *pgx.Conn) error {
		values, err := queryTextRow(ctx, conn, "SELECT pg_catalog.to_json($1)", types, text)
		if err != nil {
			return err
		}
		if sizes, omitted := postgres.OmittedSizes(values, 1); omitted {
			all := make([]int64, len(v.shape.Columns))
			all[column] = sizes[0]
			return &rowjson.TooLargeError{Sizes: all}
		}
		answer = values[0]
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("query the JSON of column %q: %w", c.Name, err)
	}
	return answer, nil
}

// generate returns the text forms of the unpublished columns for a row with these values. The stream omits values
// that an update left unchanged. generate takes them from newLine, the JSON of the row after the update.
func (v *serverValues) generate(encoder *rowjson.Encoder, values [][]byte, newLine []byte) (generated [][]byte, err error) {
	v.params = v.params[:0]
	for _, i := range v.inputs {
		text := values[i]
		if isUnchanged(text) {
			var ok bool
			if text, ok = v.textOf(encoder, newLine, i); !ok {
				return nil, &source.ResyncError{Reason: fmt.Sprintf("an update leaves column %q unchanged, which generated columns need", v.shape.Columns[i].Name), Backoff: true}
			}
		}
		v.params = append(v.params, text)
	}
	err = v.queries.Do(v.ctx, func(ctx context.Context, conn *pgx.Conn) error {
		generated, err = queryTextRow(ctx, conn, v.query, v.inputTypes, v.params...)
		return err
	})
	if pg := (*pgconn.PgError)(nil); errors.As(err, &pg) && v.ctx.Err() == nil {
		// The connection works, so the column's definition must have changed since the row was written.
		return nil, &source.ResyncError{Reason: "the server no longer computes generated columns as it did: " + postgres.RedactedMessage(pg), Backoff: true}
	}
	if err != nil {
		return nil, fmt.Errorf("query the generated columns: %w", err)
	}
	if sizes, omitted := postgres.OmittedSizes(generated, len(v.unpublished)); omitted {
		all := make([]int64, len(values))
		for i, column := range v.unpublished {
			all[column] = sizes[i]
		}
		return nil, &rowjson.TooLargeError{Sizes: all}
	}
	return generated, nil
}

// textOf derives the text form of a column's value from the given line, which is the row's JSON. The text of NULL is nil. ok is
// false if the JSON does not determine the value.
func (v *serverValues) textOf(encoder *rowjson.Encoder, line []byte, column int) (text []byte, ok bool) {
	value, ok := encoder.Field(line, column)
	t := &v.shape.Columns[column].Type
	if !ok || !determinesValue(t, value) {
		return nil, false
	}
	if string(value) == "null" {
		return nil, true
	}
	text, err := rowjson.AppendText([]byte{}, t, value)
	return text, err == nil
}

// determinesValue reports whether the JSON of a value of type t determines the value. There are three cases in which it does
// not. A type that only the server encodes may have any JSON. A null of type json may be SQL's NULL or JSON's null. In an array
// whose elements may be JSON arrays, such as json[], an inner JSON array may be an element or another dimension.
func determinesValue(t *rowjson.Type, value json.RawMessage) bool {
	switch {
	case string(value) == "null":
		return t.Kind != rowjson.JSON
	case t.Kind == rowjson.Cast:
		return false
	case t.Kind == rowjson.Array:
		var elements []json.RawMessage
		if json.Unmarshal(value, &elements) != nil {
			return false
		}
		for _, e := range elements {
			elementType := t.Elem
			if e[0] == '[' {
				switch t.Elem.Kind {
				case rowjson.Array, rowjson.Vector, rowjson.JSON:
					return false
				}
				elementType = t // e is a sub-array of a multidimensional array, so the type of e is t, too
			}
			if !determinesValue(elementType, e) {
				return false
			}
		}
	case t.Kind == rowjson.Composite:
		var fields map[string]json.RawMessage
		if json.Unmarshal(value, &fields) != nil {
			return false
		}
		for i := range t.Fields {
			if !determinesValue(&t.Fields[i].Type, fields[t.Fields[i].Name]) {
				return false
			}
		}
	}
	return true
}

// queryTextRow runs a query that returns one row, and returns the row's values in text form. The parameters are in text form,
// too, and types holds the OIDs of their types. The query may call functions of the table's owner, so it runs in a read-only
// transaction.
func queryTextRow(ctx context.Context, conn *pgx.Conn, query string, types []uint32, params ...[]byte) ([][]byte, error) {
	b := &pgconn.Batch{}
	b.ExecParams("BEGIN READ ONLY", nil, nil, nil, nil)
	b.ExecParams(query, params, types, nil, nil)
	b.ExecParams("ROLLBACK", nil, nil, nil, nil) // ROLLBACK also reverts settings that a function has changed
	results, err := conn.PgConn().ExecBatch(ctx, b).ReadAll()
	if err != nil {
		_ = conn.PgConn().Exec(ctx, "ROLLBACK").Close() // if this fails, pgconn has closed the connection
		return nil, err
	}
	if len(results) != 3 || len(results[1].Rows) != 1 {
		return nil, errors.New("the server did not return one row")
	}
	return results[1].Rows[0], nil
}
