package statefile

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"

	"capture/snapshot"
	"capture/store/manifest"
)

// LoadView reads the file at path into memory, so that its rows can be served while the database is down. The rows are as they
// were written, with the shape that the manifest describes. LoadView also returns the manifest. LoadView returns an error if
// the file does not match its manifest, or if the keys cannot be computed without the database.
func LoadView(ctx context.Context, path string) (*snapshot.View, manifest.Manifest, error) {
	v, m, err := loadView(ctx, path)
	if err != nil {
		return nil, manifest.Manifest{}, fmt.Errorf("load %s: %w", path, err)
	}
	return v, *m, nil
}

func loadView(ctx context.Context, path string) (*snapshot.View, *manifest.Manifest, error) {
	f, err := Open(ctx, path, bytes.NewReader(nil))
	if err != nil {
		return nil, nil, err
	}
	defer f.Close()
	m := f.Manifest()
	switch {
	case m == nil:
		return nil, nil, errors.New("it has no manifest")
	case !f.isPlain() || !f.IsRegular():
		return nil, nil, errors.New("it is compressed, in UTF-16 or not a file at all, so capture did not write it")
	}
	if err := f.CheckSize(); err != nil {
		return nil, nil, err
	}
	rows, keys, table := NewReader(f), NewManifestKeyReader(m), snapshot.NewTable()
	table.Load(shapeOf(m), snapshot.Origin{Source: m.Source, Database: m.Database, SystemID: m.SystemID, ServerVersion: m.ServerVersion})
	for ctx.Err() == nil {
		row, err := rows.Next()
		if err == io.EOF {
			break
		}
		if err != nil {
			return nil, nil, err
		}
		key, err := keys.Key(row.Members)
		if noKey := NoKeyError(""); errors.As(err, &noKey) {
			return nil, nil, noKey
		} else if err != nil {
			return nil, nil, fmt.Errorf("line %d: %w", row.Line, err)
		}
		table.Put(key, row.Text)
	}
	if err := cmp.Or(ctx.Err(), f.CheckManifest(rows.Rows(), nil)); err != nil {
		return nil, nil, err
	}
	if err := table.Commit(snapshot.Position{CommitTime: f.Manifest().CommitTime}); err != nil {
		return nil, nil, err
	}
	return table.View(), f.Manifest(), nil
}
