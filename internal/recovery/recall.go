package recovery

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"capture/snapshot"
	"capture/snapshot/rowjson"
	"capture/store"
)

// Recall reads the file at path back into memory, for readers while the database is away: the rows as they were written,
// with the shape that the manifest describes. The error says why it is not that file, or what can't be told without the
// database.
func Recall(ctx context.Context, path string) (*snapshot.View, error) {
	v, err := recall(ctx, path)
	if err != nil {
		return nil, fmt.Errorf("recall %s: %w", path, err)
	}
	return v, nil
}

func recall(ctx context.Context, path string) (*snapshot.View, error) {
	in, err := openInput(path, bytes.NewReader(nil))
	if err != nil {
		return nil, err
	}
	defer in.close()
	m := in.manifest
	if m == nil {
		return nil, errors.New("it has no manifest")
	}
	k := keyerOf(m)
	t := snapshot.NewTable()
	t.Load(shapeOf(m), snapshot.Origin{Source: m.Source, Database: m.Database, SystemID: m.SystemID, ServerVersion: m.ServerVersion})
	from := newReader(in)
	var ms []member
	for {
		at, err := from.next()
		if err == io.EOF {
			break
		}
		if err == nil {
			ms, err = members(ms[:0], at.text)
		}
		var key rowjson.Key
		if err == nil {
			key, err = k.key(ms)
		}
		if errors.Is(err, errNoKeyer) {
			return nil, errors.New(k.whyNot)
		}
		if err == nil {
			err = ctx.Err()
		}
		if err != nil {
			return nil, fmt.Errorf("line %d: %w", at.line, err)
		}
		t.Put(key, withoutPadding(at.text))
	}
	if err := in.drain(); err != nil {
		return nil, err
	}
	if err := in.whole(from.rows); err != nil {
		return nil, err
	}
	if err := t.Commit(snapshot.Position{CommitTime: m.CommitTime}); err != nil {
		return nil, err
	}
	return t.View(), nil
}

// withoutPadding is a row without the spaces that stand before its closing brace in a large file.
func withoutPadding(row []byte) []byte {
	body := bytes.TrimRight(row[:len(row)-1], " ")
	return append(body, '}')
}

// shapeOf is the shape that a manifest describes, as far as it tells: of types that it can't tell apart, the values are text.
func shapeOf(m *store.Manifest) *rowjson.Shape {
	s := &rowjson.Shape{Schema: m.Table.Schema, Table: m.Table.Name, Fingerprint: "manifest"}
	for _, c := range m.Columns {
		c.Type = typeNamed(modifier.ReplaceAllString(c.TypeName, ""))
		s.Columns = append(s.Columns, c)
	}
	for _, name := range m.Key {
		s.Key = append(s.Key, slices.IndexFunc(m.Columns, func(c rowjson.Column) bool { return c.Name == name }))
	}
	return s
}

func typeNamed(name string) rowjson.Type {
	if elem, ok := strings.CutSuffix(name, "[]"); ok {
		t := typeNamed(elem)
		return rowjson.Type{Kind: rowjson.Array, Elem: &t, Delim: ','}
	}
	t := rowjson.Type{OID: builtin[name], Kind: rowjson.Text}
	switch name {
	case "smallint", "integer", "bigint", "numeric", "real", "double precision":
		t.Kind = rowjson.Number
	case "boolean":
		t.Kind = rowjson.Bool
	case "json", "jsonb":
		t.Kind = rowjson.JSON
	case "timestamp without time zone":
		t.Kind = rowjson.Timestamp
	case "timestamp with time zone":
		t.Kind = rowjson.TimestampTZ
	}
	return t
}
