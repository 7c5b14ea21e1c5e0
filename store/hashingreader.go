package store

import (
	"context"
	"io"

	"capture/store/disk"
)

// hashingReader is a Reader that also hashes what it reads: another goroutine adds the bytes to a digest.
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
