package store

import (
	"crypto/sha256"
	"encoding/hex"
	"hash"
	"io"
	"os"
)

// hashingWriter writes a file in chunks and hashes them beside it, on another goroutine, so that a large file takes as
// long as the slower of the two and not as both.
type hashingWriter struct {
	file *os.File
	hash hash.Hash
	n    int64 // bytes written to file
	sent int64 // of them, told to the kernel to write back
	err  error

	buf  []byte
	full chan []byte // to the hasher
	free chan []byte // from it
	done chan struct{}
}

const (
	chunkBytes     = 256 << 10
	chunks         = 4
	writeBackBytes = 8 << 20
)

func newHashingWriter(f *os.File) *hashingWriter {
	w := &hashingWriter{
		file: f, hash: sha256.New(),
		full: make(chan []byte, chunks), free: make(chan []byte, chunks), done: make(chan struct{}),
	}
	for range chunks {
		w.free <- nil
	}
	go func() {
		defer close(w.done)
		for b := range w.full {
			w.hash.Write(b)
			w.free <- b[:0]
		}
	}()
	return w
}

func (w *hashingWriter) Write(p []byte) (int, error) {
	var n int
	for n < len(p) && w.err == nil {
		if w.buf == nil {
			if w.buf = <-w.free; w.buf == nil { // made when first needed: most files are one chunk
				w.buf = make([]byte, 0, chunkBytes)
			}
		}
		m := copy(w.buf[len(w.buf):cap(w.buf)], p[n:])
		w.buf = w.buf[:len(w.buf)+m]
		n += m
		if len(w.buf) == cap(w.buf) {
			w.spill()
		}
	}
	return n, w.err
}

// spill writes the buffer while it is being hashed. The hasher may hand it back before it is written, but nobody takes it
// again before this returns.
func (w *hashingWriter) spill() {
	b := w.buf
	w.buf = nil
	w.full <- b
	n, err := w.file.Write(b)
	w.n += int64(n)
	w.err = err
	if w.n-w.sent >= writeBackBytes {
		startWriteBack(w.file, w.sent, w.n-w.sent)
		w.sent = w.n
	}
}

// finish writes what is left, ends the hasher and waits for it. It must be called, also after an error.
func (w *hashingWriter) finish() (sum string, n int64, err error) {
	if w.err == nil && len(w.buf) > 0 {
		w.spill()
	}
	close(w.full)
	<-w.done
	return hex.EncodeToString(w.hash.Sum(nil)), w.n, w.err
}

// hashFile is the SHA-256 of the file at path, in hex, and its size.
func hashFile(path string) (sum string, size int64, err error) {
	f, err := os.Open(path)
	if err != nil {
		return "", 0, err
	}
	defer f.Close()
	h := sha256.New()
	size, err = io.CopyBuffer(struct{ io.Writer }{h}, struct{ io.Reader }{f}, make([]byte, 1<<20))
	return hex.EncodeToString(h.Sum(nil)), size, err
}
