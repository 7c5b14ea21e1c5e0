package store

import (
	"io"
	"os"
)

const (
	chunkBytes     = 1 << 20
	chunks         = 4
	writeBackBytes = 8 << 20
)

// whole writes a file from its start, in large pieces, and hashes each on another goroutine while it is written: a large
// file takes as long as the slower of the two and not as both. Where the file system can, a large one goes to disk past the
// system's cache, which keeps what the database has there: nobody reads gigabytes of feedback.json soon.
type whole struct {
	file   *os.File
	direct bool
	digest *digest     // of what is written: of the whole, or of the blocks
	hash   io.Writer   // which one
	off    int64       // all before is written and hashed; a multiple of spareAlign
	buf    []byte      // what comes next
	sent   int64       // all before is on its way to disk
	free   chan []byte // chunks that the hasher is done with; nil for one that is not there yet
}

func newWhole(file *os.File, large, complete bool) *whole {
	w := &whole{file: file, direct: large && pastCache(file), free: make(chan []byte, chunks)}
	w.digest = &digest{whole: newPrefix()}
	w.hash = &w.digest.whole
	if !complete {
		w.digest.blocks = newBlocks()
		w.hash = w.digest.blocks
	}
	for range chunks {
		w.free <- nil
	}
	return w
}

// end is up to where it has come.
func (w *whole) end() int64 { return w.off + int64(len(w.buf)) }

// add goes on with what l has there, up to its piece number to, and lets go of its rows.
func (w *whole) add(l *layout, to int) (err error) {
	full := make(chan []byte, chunks) // to the hasher
	done := make(chan struct{})
	go func() {
		defer close(done)
		for b := range full {
			w.hash.Write(b)
			w.free <- b[:0]
		}
	}()
	defer func() {
		close(full)
		<-done
	}()
	i := l.find(w.end())
	for skip := int(w.end() - l.start(i)); i < to; i, skip = i+1, 0 {
		from := len(w.buf)
		w.room(int(l.length(i)))
		if w.buf, err = l.appendRegion(w.buf, i); err != nil {
			return err
		}
		l.leave(i)
		if skip > 0 {
			w.buf = append(w.buf[:from], w.buf[from+skip:]...)
		}
		if len(w.buf) < chunkBytes {
			continue
		}
		n := len(w.buf) &^ (spareAlign - 1)
		b, rest := w.buf[:n], w.buf[n:]
		w.buf = <-w.free
		w.room(len(rest))
		w.buf = append(w.buf, rest...)
		// The hasher may hand the chunk back before it is written, but nobody takes it until it is.
		full <- b
		if err := w.write(b); err != nil {
			return err
		}
	}
	return nil
}

// room makes room for n more bytes at a place that direct I/O takes.
func (w *whole) room(n int) {
	if n += len(w.buf); n > cap(w.buf) {
		w.buf = append(alignedBuffer(max(n, chunkBytes+chunkBytes/4))[:0], w.buf...)
	}
}

func (w *whole) write(b []byte) error {
	n, err := w.file.WriteAt(b, w.off)
	if err != nil {
		return err
	}
	if w.off += int64(n); !w.direct && w.off-w.sent >= writeBackBytes {
		startWriteBack(w.file, w.sent, w.off-w.sent)
		w.sent = w.off
	}
	return nil
}

// back forgets all from off on, and maybe some before; the digest is of the whole.
func (w *whole) back(off int64) {
	switch {
	case off >= w.end():
	case off >= w.off:
		w.buf = w.buf[:off-w.off]
	default:
		w.off = w.digest.whole.rewind(off)
		w.buf, w.sent = w.buf[:0], min(w.sent, w.off)
	}
}

// finish writes the rest of l.
func (w *whole) finish(l *layout) error {
	if err := w.add(l, l.count()); err != nil {
		return err
	}
	n := len(w.buf)
	w.hash.Write(w.buf)
	b := w.buf
	if w.direct {
		w.room(-n & (spareAlign - 1))
		b = w.buf[:(n+spareAlign-1)&^(spareAlign-1)]
		clear(b[n:])
	}
	if len(b) > 0 {
		if err := w.write(b); err != nil {
			return err
		}
	}
	if !w.direct {
		return nil
	}
	return w.file.Truncate(l.bytes)
}
