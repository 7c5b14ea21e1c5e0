package store

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"weak"

	"capture/internal/volume"
	"capture/snapshot"
	"capture/snapshot/rowjson"
	"capture/store/disk"
	"capture/store/manifest"
)

// When capture starts, it can read its rows back from the file, so that the database need not send them again. The file is an
// input like any other: it may be damaged, cut short, edited or forged. Load accepts a file only if it has exactly the form
// that [File.Write] produces and if its digest matches.

// Loading describes what a file must contain to be loaded, and the View that its rows become.
type Loading struct {
	Manifest manifest.Manifest // manifest that the file must match; the caller has it from [File.Existing]
	Shape    *rowjson.Shape    // shape of the table in the database, which must have the columns and the key of the manifest
	Origin   snapshot.Origin   // origin of the View
	Position snapshot.Position
	MaxRow   int64 // size limit of a row in bytes
}

// errOtherFile means that the file is not the file that Open has found.
var errOtherFile = errors.New("the file was replaced meanwhile")

// Load reads the rows of the file that [Open] has found into t, which must be empty. They become the first View of t. The
// next Write then writes only what differs from the file, as if a Write of this run had written the file. Load does not
// count as a change, so t.Changed delivers nothing.
//
// If Load returns an error, t is empty, and nothing else has changed.
func (f *File) Load(ctx context.Context, t *snapshot.Table, l Loading) error {
	if err := f.load(ctx, t, &l); err != nil {
		t.Rollback()
		return fmt.Errorf("load %s: %w", filepath.Base(f.dataPath), volume.WithHint(err))
	}
	return nil
}

func (f *File) load(ctx context.Context, t *snapshot.Table, l *Loading) error {
	if t.View() != nil {
		return errors.New("there are rows in memory already")
	}
	if err := l.check(); err != nil {
		return err
	}
	file, info, err := f.openExisting(&l.Manifest)
	if err != nil {
		return err
	}
	defer file.Close()
	r, err := newFileRows(t, l)
	if err != nil {
		return err
	}
	t.Load(l.Shape, l.Origin)
	d, err := r.readAll(ctx, file)
	if err != nil {
		return err
	}
	m := l.Manifest
	m.Bytes = r.bytes
	if d.setManifest(&m); m.Bytes != l.Manifest.Bytes || m.SHA256 != l.Manifest.SHA256 || m.Blocks != nil && *m.Blocks != *l.Manifest.Blocks {
		return errors.New("its content does not match its manifest")
	}
	if m.Rows != r.rows {
		return fmt.Errorf("it has %d rows, and its manifest says %d", r.rows, m.Rows)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if now, err := os.Lstat(f.dataPath); err != nil || !isSameVersion(now, info) || f.hasWritten || f.closed {
		return cmp.Or(err, errOtherFile)
	}
	if err := t.CommitStored(l.Position); err != nil {
		return err
	}
	f.existing.checked = true
	v := t.View()
	if layout, rows := r.layout(v); layout != nil {
		f.last = written{
			view: weak.Make(v), rowBytes: v.Bytes(), manifest: l.Manifest, file: info,
			layout: layout, rows: rows, digest: d,
		}
	}
	return nil
}

// check returns an error unless the manifest describes the table that l.Shape describes. It also returns an error for the
// manifest of a kept state, and for the manifest of a file that lacks rows of the table.
func (l *Loading) check() error {
	m, s := &l.Manifest, l.Shape
	switch {
	case m.Omitted != nil:
		return errors.New("it lacks rows that did not fit into memory")
	case m.Kept != nil:
		return errors.New("it is a kept state")
	case m.Table != manifest.TableName{Schema: s.Schema, Name: s.Table} || m.TableOID != s.OID:
		return errors.New("it is the file of another table")
	case len(m.Columns) != len(s.Columns) || len(m.Key) != len(s.Key):
		return errors.New("the table has other columns or another key")
	}
	for i, c := range m.Columns {
		if c.Name != s.Columns[i].Name || c.TypeName != s.Columns[i].TypeName {
			return errors.New("the table has other columns")
		}
	}
	for i, name := range m.Key {
		if s.Columns[s.Key[i]].Name != name {
			return errors.New("the table has another key")
		}
	}
	return nil
}

// openExisting opens the file that Open has found, and returns it with its identity.
func (f *File) openExisting(m *manifest.Manifest) (*os.File, os.FileInfo, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	switch {
	case f.closed:
		return nil, nil, os.ErrClosed
	case f.hasWritten || !f.existing.intact || f.existing.quarantine != "" || !f.existing.manifest.WrittenAt.Equal(m.WrittenAt):
		return nil, nil, errOtherFile
	}
	file, err := disk.OpenRegular(f.dataPath)
	if err != nil {
		return nil, nil, err
	}
	info, err := file.Stat()
	if err == nil && info.Size() != m.Bytes {
		err = fmt.Errorf("it has %d bytes, and its manifest says %d", info.Size(), m.Bytes)
	}
	if err != nil {
		file.Close()
		return nil, nil, err
	}
	return file, info, nil
}
