package recovery

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"fmt"
	"io"
	"os"

	"capture/store"
)

// input is an open feedback.json. What it is read as is the JSON itself, also where the file is gzipped.
type input struct {
	path string   // "-" for standard input
	file *os.File // nil for standard input
	raw  *bufio.Reader
	gzip bool
	sums *store.Hasher // of the JSON read so far

	manifest  *store.Manifest  // nil where there is none
	manifests []store.Manifest // those that may be its own, as far as can be told before all is read
}

const inputBuffer = 256 << 10

// openInput opens the file at path, and the manifest beside it; "-" is stdin, which has none.
func openInput(path string, stdin io.Reader) (*input, error) {
	in := &input{path: path}
	from := stdin
	if path != "-" {
		f, manifests, err := store.OpenRead(path)
		if err != nil {
			return nil, err
		}
		info, err := f.Stat()
		if err == nil && info.IsDir() {
			f.Close()
			return nil, fmt.Errorf("%s is a folder; give the file in it", path)
		}
		in.file, from, in.manifests = f, f, manifests
		for i, m := range manifests {
			if i == 0 || err == nil && m.Bytes == info.Size() {
				in.manifest = &manifests[i]
			}
		}
	}
	in.sums = store.NewHasher(in.manifests...)
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
	return in, nil
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
	in.sums.Write(p[:n])
	if in.gzip && err != nil && err != io.EOF {
		err = fmt.Errorf("the gzip file is cut short or damaged: %w", err)
	}
	return n, err
}

// whole compares what has been read, to the end, with the manifest, if there is one.
func (in *input) whole(rows int) error {
	for i, m := range in.manifests {
		if m.Rows == rows && in.sums.Mismatch(m) == "" {
			in.manifest = &in.manifests[i]
			return nil
		}
	}
	if in.manifest == nil {
		return nil
	}
	why := in.sums.Mismatch(*in.manifest)
	if why == "" {
		why = fmt.Sprintf("it has %d rows, and the manifest says %d", rows, in.manifest.Rows)
	}
	return &MismatchError{why}
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
