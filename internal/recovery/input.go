package recovery

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"io/fs"
	"os"
	"strings"

	"capture/store"
)

// input is an open feedback.json. What it is read as is the JSON itself, also where the file is gzipped.
type input struct {
	path string   // "-" for standard input
	file *os.File // nil for standard input
	raw  *bufio.Reader
	gzip bool
	hash hash.Hash
	n    int64 // bytes of JSON read so far

	manifest *store.Manifest // nil where there is none
	former   *store.Manifest // the one that stood there before the file was opened
}

const inputBuffer = 256 << 10

// openInput opens the file at path; "-" is stdin. It reads the manifest beside it, but for standard input.
func openInput(path string, stdin io.Reader) (*input, error) {
	in := &input{path: path, hash: sha256.New()}
	if err := in.readManifest(); err != nil {
		return nil, err
	}
	in.former = in.manifest
	from := stdin
	if path != "-" {
		f, err := os.Open(path)
		if err != nil {
			return nil, err
		}
		if info, err := f.Stat(); err == nil && info.IsDir() {
			f.Close()
			return nil, fmt.Errorf("%s is a folder; give the file in it", path)
		}
		in.file, from = f, f
	}
	in.raw = bufio.NewReaderSize(from, inputBuffer)
	if magic, _ := in.raw.Peek(2); bytes.Equal(magic, []byte{0x1f, 0x8b}) {
		z, err := gzip.NewReader(in.raw)
		if err != nil {
			in.close()
			return nil, fmt.Errorf("%s is no whole gzip file: %w", in.name(), err)
		}
		in.gzip = true
		in.raw = bufio.NewReaderSize(z, inputBuffer)
	}
	if err := in.readManifest(); err != nil {
		in.close()
		return nil, err
	}
	return in, nil
}

// readManifest reads the manifest again: that of feedback.json.gz is the one of feedback.json.
func (in *input) readManifest() error {
	if in.path == "-" {
		return nil
	}
	m, err := store.ReadManifest(strings.TrimSuffix(in.path, ".gz"))
	switch {
	case err == nil:
		in.manifest = &m
	case errors.Is(err, fs.ErrNotExist):
		in.manifest = nil
	default:
		return err
	}
	return nil
}

// name is what errors call the input.
func (in *input) name() string {
	if in.path == "-" {
		return "standard input"
	}
	return in.path
}

// Read reads the JSON, and hashes it on the way.
func (in *input) Read(p []byte) (int, error) {
	n, err := in.raw.Read(p)
	in.hash.Write(p[:n])
	in.n += int64(n)
	if in.gzip && err != nil && err != io.EOF {
		err = fmt.Errorf("the gzip file is cut short or damaged: %w", err)
	}
	return n, err
}

// fits says whether m describes what has been read, to the end.
func (in *input) fits(m *store.Manifest, sum string, rows int) bool {
	return m != nil && m.SHA256 == sum && m.Bytes == in.n && m.Rows == rows
}

// whole compares what has been read, to the end, with the manifest, if there is one. Beside a running daemon, that may be the
// one from before the file was opened, from after, or, between the two renames of a flush, one that comes a moment later.
func (in *input) whole(rows int) error {
	if in.manifest == nil {
		return nil
	}
	sum := hex.EncodeToString(in.hash.Sum(nil))
	if in.fits(in.manifest, sum, rows) || in.fits(in.former, sum, rows) {
		return nil
	}
	was := in.manifest
	if err := in.readManifest(); err != nil {
		return err
	}
	if in.fits(in.manifest, sum, rows) {
		return nil
	}
	in.manifest = was
	switch {
	case was.Bytes != in.n:
		return &MismatchError{fmt.Sprintf("it has %d bytes, and the manifest says %d", in.n, was.Bytes)}
	case was.SHA256 != sum:
		return &MismatchError{fmt.Sprintf("its SHA-256 is %s…, and the manifest says %.12s…", sum[:12], was.SHA256)}
	}
	return &MismatchError{fmt.Sprintf("it has %d rows, and the manifest says %d", rows, was.Rows)}
}

// drain reads the rest, so that the hash is of the whole file.
func (in *input) drain() error {
	_, err := io.CopyBuffer(io.Discard, struct{ io.Reader }{in}, make([]byte, inputBuffer))
	return err
}

func (in *input) close() {
	if in.file != nil {
		in.file.Close()
	}
}

// MismatchError is that a file is not the one that its manifest describes.
type MismatchError struct{ why string }

func (e *MismatchError) Error() string {
	return "it is not the file that its manifest describes: " + e.why + "; it was damaged, cut short or edited"
}
