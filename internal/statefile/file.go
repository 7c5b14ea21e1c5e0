package statefile

import (
	"bufio"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"capture/internal/foreign"
	"capture/internal/postgres"
	"capture/store/manifest"
)

const bufferSize = 256 << 10

// File is an open feedback.json. Read returns its JSON, decompressed and in UTF-8.
type File struct {
	path         string          // path of the file; "-" for standard input
	file         *os.File        // opened file; nil for standard input
	content      *bufio.Reader   // JSON, after decompression and conversion to UTF-8
	raw          *countingReader // reads the file's bytes as they are on disk; content is made from these bytes
	compression  compression
	transcoded   bool             // whether the file is encoded in UTF-16
	closeDecoder func()           // frees the decompressor; nil if there is nothing to free
	hasher       *manifest.Hasher // hash and size of the JSON read so far

	// manifests are the manifests that may describe the file. Between the two renames of a flush, there are two manifests.
	// Which of the two describes the file is certain only after the whole file has been read.
	manifests []manifest.Manifest
	manifest  *manifest.Manifest // most likely manifest of the file; nil if there is none
	original  *manifest.Manifest // manifest before the call to AcceptEdited; nil if AcceptEdited was not called
}

// Progress describes the progress of a long operation on a file and a table.
type Progress struct {
	Doing     string // current step: "reading the file", "waiting for the table", …
	Rows      int    // number of rows so far
	TotalRows int    // expected number of rows, for a step that reads no file; 0 if unknown
	Bytes     int64  // number of bytes of the file's JSON read so far
	Total     int64  // size of the file's JSON in bytes; 0 if unknown
}

// Open opens the file at path and reads its manifest. The path "-" means stdin, which has no manifest. If the file is a
// pipe, Open and Read may wait for the pipe's writer until ctx ends.
func Open(ctx context.Context, path string, stdin io.Reader) (*File, error) {
	f := &File{path: path}
	content := stdin
	if path != "-" {
		if err := f.openPath(ctx); err != nil {
			return nil, &UnreadableError{err}
		}
		content = f.file
	}
	if !f.IsRegular() {
		content = &interruptible{ctx: ctx, from: content}
	}
	f.hasher = manifest.NewHasher(f.manifests...)
	f.raw = &countingReader{from: content}
	f.content = bufio.NewReaderSize(f.raw, bufferSize)
	err := f.openContent()
	if ctx.Err() != nil {
		err = ctx.Err()
	}
	if err != nil {
		f.Close()
		return nil, &UnreadableError{err}
	}
	return f, nil
}

func (f *File) openPath(ctx context.Context) error {
	var manifests []manifest.Manifest
	var err error
	open := func() { f.file, manifests, err = manifest.OpenRead(f.path) }
	if info, serr := os.Stat(f.path); serr == nil && !info.Mode().IsRegular() {
		// Opening a pipe waits for a writer, and this wait cannot be canceled. If ctx ends first, the goroutine stays blocked.
		opened := make(chan struct{})
		go func() {
			defer close(opened)
			open()
		}()
		select {
		case <-opened:
		case <-ctx.Done():
			return ctx.Err()
		}
	} else {
		open()
	}
	if err != nil {
		return err
	}
	info, err := f.file.Stat()
	if err == nil && info.IsDir() {
		f.file.Close()
		return fmt.Errorf("%s is a folder; give the file in it", f.path)
	}
	f.manifests = manifests
	for i := range manifests {
		if i == 0 || err == nil && manifests[i].Bytes == info.Size() {
			f.manifest = &manifests[i]
		}
	}
	return nil
}

// IsRegular reports whether the file is a regular file. A read of a regular file never waits for another program.
func (f *File) IsRegular() bool {
	if f.file == nil {
		return false
	}
	info, err := f.file.Stat()
	return err == nil && info.Mode().IsRegular()
}

// interruptible reads from a pipe or a terminal until ctx ends. A read that is blocked at that time is abandoned.
type interruptible struct {
	ctx  context.Context
	from io.Reader
	buf  []byte
}

func (r *interruptible) Read(p []byte) (int, error) {
	if r.ctx.Err() != nil {
		return 0, r.ctx.Err()
	}
	if r.buf == nil {
		r.buf = make([]byte, bufferSize)
	}
	type result struct {
		n   int
		err error
	}
	read := make(chan result, 1)
	buf := r.buf[:min(len(p), len(r.buf))]
	go func() {
		n, err := r.from.Read(buf)
		read <- result{n, err}
	}()
	select {
	case got := <-read:
		return copy(p, buf[:got.n]), got.err
	case <-r.ctx.Done():
		return 0, r.ctx.Err()
	}
}

// countingReader counts the bytes that it reads.
type countingReader struct {
	from  io.Reader
	bytes int64
	err   error // error of a failed read; nil at the end of the input
}

func (c *countingReader) Read(p []byte) (int, error) {
	n, err := c.from.Read(p)
	c.bytes += int64(n)
	if err != nil && err != io.EOF {
		c.err = err
	}
	return n, err
}

// Close closes the file. Standard input stays open.
func (f *File) Close() {
	if f.closeDecoder != nil {
		f.closeDecoder()
	}
	if f.file != nil {
		f.file.Close()
	}
}

// Name returns the name of the file for messages.
func (f *File) Name() string { return Name(f.path) }

// Name returns the name of the file at path for messages.
func Name(path string) string {
	if path == "-" {
		return "standard input"
	}
	return path
}

// Manifest returns the manifest of the file, or nil if there is none.
func (f *File) Manifest() *manifest.Manifest { return f.manifest }

// AcceptEdited makes f accept content that somebody has edited: f is then read as a file without a manifest. Only
// TableManifest, Table and DescribeOmitted still use the manifest. A caller calls it before [NewReader].
func (f *File) AcceptEdited() { f.original, f.manifest = f.manifest, nil }

// TableManifest returns the manifest that describes the file's table, or nil if there is none. Unlike the result of Manifest,
// it may not describe the file's content.
func (f *File) TableManifest() *manifest.Manifest { return cmp.Or(f.manifest, f.original) }

// DescribeOmitted says which rows the file lacks because they did not fit into memory when it was written. It returns "" if the
// file has all rows of the table.
func (f *File) DescribeOmitted() string {
	for i := range f.manifests {
		if o := f.manifests[i].Omitted; o != nil {
			rows := "1 row"
			if o.Rows != 1 {
				rows = fmt.Sprintf("%d rows", o.Rows)
			}
			return fmt.Sprintf("the file lacks %s of its table: %s", rows, foreign.Text(strings.Join(o.Keys, ", ")))
		}
	}
	return ""
}

// Table returns the table that the file belongs to. If the user named a table, the caller passes this table in the parameter
// asked, and the method returns it unchanged. Otherwise it returns the manifest's table. Without a manifest, it returns the
// table votes.
func (f *File) Table(asked postgres.Name) postgres.Name {
	switch m := f.TableManifest(); {
	case asked.Table != "":
		return asked
	case m != nil:
		return postgres.Name{Schema: m.Table.Schema, Table: m.Table.Name}
	}
	return postgres.Name{Table: "votes"}
}

// Read reads the JSON and adds it to the hash.
func (f *File) Read(p []byte) (int, error) {
	n, err := f.content.Read(p)
	f.hasher.Write(p[:n])
	return n, f.explainCompression(err)
}

// BytesRead returns the number of bytes of JSON that have been read.
func (f *File) BytesRead() int64 { return f.hasher.Bytes() }

// SHA256 returns the hash of the JSON that has been read, in lower-case hexadecimal digits.
func (f *File) SHA256() string { return f.hasher.SHA256() }

// ReadToEnd reads the rest of the file, so that the hash covers the whole file.
func (f *File) ReadToEnd() error {
	_, err := io.CopyBuffer(io.Discard, struct{ io.Reader }{f}, make([]byte, bufferSize))
	return err
}

// Size returns the size of the JSON in bytes. It returns 0 if the size is unknown until the whole file has been read.
func (f *File) Size() int64 {
	if f.manifest != nil {
		return f.manifest.Bytes
	}
	return max(0, f.sizeOnDisk())
}

// isPlain reports whether the bytes on disk are the JSON: neither compressed nor encoded in UTF-16.
func (f *File) isPlain() bool { return f.compression == notCompressed && !f.transcoded }

// sizeOnDisk returns the file's size on disk in bytes if the file is a regular file with plain JSON, and -1 otherwise.
func (f *File) sizeOnDisk() int64 {
	if !f.isPlain() || !f.IsRegular() {
		return -1
	}
	info, err := f.file.Stat()
	if err != nil {
		return -1
	}
	return info.Size()
}

// Replaced reports whether the path now leads to a different file than the one that was opened.
func (f *File) Replaced() bool {
	if f.file == nil {
		return false
	}
	opened, err := f.file.Stat()
	now, err2 := os.Stat(f.path)
	return err == nil && err2 == nil && !os.SameFile(opened, now)
}

// CheckSize compares the size of the file with its manifest, to detect a truncated file before anything is read. It returns a
// [*MismatchError] if the sizes differ.
func (f *File) CheckSize() error {
	size := f.sizeOnDisk()
	if f.manifest == nil || size < 0 || size == f.manifest.Bytes {
		return nil
	}
	return &MismatchError{fmt.Sprintf("it has %d bytes, and the manifest says %d", size, f.manifest.Bytes)}
}

// CheckManifest reads the rest of the file and compares the whole file with its manifest. rowCount is the number of rows
// that have been read. rowErr is the error that ended the reading of rows, or nil if there was none.
//
// If the file does not match its manifest, the error wraps both a [*MismatchError] and rowErr, because damage to the file
// explains a bad row. If the file matches or has no manifest, CheckManifest returns rowErr.
func (f *File) CheckManifest(rowCount int, rowErr error) error {
	var known *MismatchError
	if f.manifest == nil || errors.As(rowErr, &known) {
		return rowErr
	}
	if err := f.ReadToEnd(); err != nil {
		return cmp.Or(rowErr, error(&UnreadableError{err}))
	}
	for i, m := range f.manifests {
		// After a bad row, the number of rows is unknown, so only the hash is compared.
		if (m.Rows == rowCount || rowErr != nil) && f.hasher.Mismatch(m) == "" {
			f.manifest = &f.manifests[i]
			return rowErr
		}
	}
	reason := f.hasher.Mismatch(*f.manifest)
	if reason == "" {
		reason = fmt.Sprintf("it has %d rows, and the manifest says %d", rowCount, f.manifest.Rows)
	}
	if rowErr != nil {
		return fmt.Errorf("%w; found at: %w", &MismatchError{reason}, rowErr)
	}
	return &MismatchError{reason}
}

// MismatchError is the error for a file that does not match its manifest.
type MismatchError struct{ reason string }

func (e *MismatchError) Error() string {
	return "it is not the file that its manifest describes: " + e.reason + "; it was damaged, cut short or edited"
}

// UnreadableError is the error for a file that cannot be opened or read. For example, the file is gone, cut short or not
// valid JSON, or its manifest cannot be read.
type UnreadableError struct{ error }

func (e *UnreadableError) Unwrap() error { return e.error }

// IsUnusable reports whether the cause of err is a file, and not the database or the user.
func IsUnusable(err error) bool {
	return errors.As(err, new(*MismatchError)) || errors.As(err, new(*UnreadableError))
}
