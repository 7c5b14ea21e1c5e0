package store

import (
	"bytes"
	"context"
	"io"
	"slices"

	"capture/store/disk"
)

// lineScanner reads the lines of a file.
type lineScanner struct {
	from    io.Reader
	maxLine int // length in bytes above which a line is an error
	buf     []byte
	start   int  // offset in buf of the bytes that next has not returned yet
	end     bool // whether all of from has been read
}

// next returns the next line without its newline. The line is valid until the next call. After the last line, the error is
// io.EOF.
func (s *lineScanner) next() ([]byte, error) {
	for scanned := 0; ; {
		if i := bytes.IndexByte(s.buf[s.start+scanned:], '\n'); i >= 0 {
			line := s.buf[s.start : s.start+scanned+i]
			s.start += scanned + i + 1
			return line, nil
		}
		scanned = len(s.buf) - s.start
		switch {
		case s.end && scanned > 0, scanned > s.maxLine:
			return nil, errNotRow
		case s.end:
			return nil, io.EOF
		}
		if err := s.fill(); err != nil {
			return nil, err
		}
	}
}

// fill reads more of the file into buf.
func (s *lineScanner) fill() error {
	s.buf = append(s.buf[:0], s.buf[s.start:]...)
	s.start = 0
	if cap(s.buf)-len(s.buf) < disk.ChunkBytes/2 {
		s.buf = slices.Grow(s.buf, max(disk.ChunkBytes, len(s.buf)))
	}
	n, err := s.from.Read(s.buf[len(s.buf):cap(s.buf)])
	s.buf = s.buf[:len(s.buf)+n]
	if err == io.EOF {
		s.end, err = true, nil
	}
	return err
}

// hashingReader passes the bytes that are read to a digest, on another goroutine.
type hashingReader struct {
	ctx  context.Context
	from io.Reader
	full chan []byte // bytes to be hashed
	free chan []byte // empty buffers
	done chan struct{}
}

func newHashingReader(ctx context.Context, from io.Reader, d *digest) *hashingReader {
	r := &hashingReader{ctx, from, make(chan []byte, chunks), make(chan []byte, chunks), make(chan struct{})}
	for range chunks {
		r.free <- nil
	}
	go func() {
		defer close(r.done)
		for b := range r.full {
			d.Write(b)
			r.free <- b
		}
	}()
	return r
}

func (r *hashingReader) Read(p []byte) (int, error) {
	if err := r.ctx.Err(); err != nil {
		return 0, err
	}
	n, err := r.from.Read(p[:min(len(p), disk.ChunkBytes)])
	if n > 0 {
		b := <-r.free
		r.full <- append(b[:0], p[:n]...)
	}
	return n, err
}

// finish waits until everything that was read is hashed.
func (r *hashingReader) finish() {
	close(r.full)
	<-r.done
}
