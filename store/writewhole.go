package store

import (
	"os"

	"capture/store/disk"
)

const (
	chunks         = 4       // number of chunks that may be waiting to be hashed or written
	largeChunk     = 4 << 20 // maximum size in bytes of a chunk that is reused; only a very large row needs a larger chunk
	writebackBytes = 8 << 20 // number of bytes after which the kernel is asked to start writing them to the device
)

// sequentialWriter writes a file from start to end, in large chunks. Another goroutine hashes each chunk while the writer
// writes it, so a large file takes only as long as the slower of the two. If the file system supports it, large files are
// written with direct I/O, which bypasses the page cache. This leaves the page cache to the database. Gigabytes of the file
// would only waste the page cache, because hardly any program will read them soon.
type sequentialWriter struct {
	file             *os.File
	direct           bool        // whether the file is written with direct I/O
	digest           *digest     // digest of the bytes that have been hashed
	off              int64       // offset up to which the file is written and hashed; a multiple of disk.DirectAlign
	buf              []byte      // bytes that begin at off and are not written yet
	writebackStarted int64       // offset up to which writeback has started
	recycled         chan []byte // chunks that are free because the hasher no longer needs them; a nil chunk is not allocated yet
}

// newSequentialWriter returns a writer for an empty file. large is set for a large file. complete selects the digest, as in
// newDigest.
func newSequentialWriter(file *os.File, large, complete bool) *sequentialWriter {
	w := &sequentialWriter{file: file, direct: large && disk.SetDirectIO(file), recycled: make(chan []byte, chunks)}
	w.digest = newDigest(complete)
	for range chunks {
		w.recycled <- nil
	}
	return w
}

// end returns the offset at which the writer continues.
func (w *sequentialWriter) end() int64 { return w.off + int64(len(w.buf)) }

// writePieces writes the next pieces of c and releases their rows. endPiece is the index of the first piece that is not
// written. The last bytes stay in buf.
func (w *sequentialWriter) writePieces(c *content, endPiece int) (err error) {
	full := make(chan []byte, chunks) // chunks for the hasher
	done := make(chan struct{})
	go func() {
		defer close(done)
		for chunk := range full {
			w.digest.Write(chunk)
			if cap(chunk) > largeChunk {
				chunk = nil
			}
			w.recycled <- chunk[:0]
		}
	}()
	defer func() {
		close(full)
		<-done
	}()
	piece := c.PieceAt(w.end())
	for skip := int(w.end() - c.PieceOff(piece)); piece < endPiece; piece, skip = piece+1, 0 {
		from := len(w.buf)
		w.ensureRoom(int(c.PieceBytes(piece)))
		if w.buf, err = c.appendPiece(w.buf, piece); err != nil {
			return err
		}
		c.releasePiece(piece)
		if skip > 0 { // a part of this piece is already written or in buf
			w.buf = append(w.buf[:from], w.buf[from+skip:]...)
		}
		if len(w.buf) < disk.ChunkBytes {
			continue
		}
		aligned := len(w.buf) &^ (disk.DirectAlign - 1)
		chunk, rest := w.buf[:aligned], w.buf[aligned:]
		w.buf = <-w.recycled
		w.ensureRoom(len(rest))
		w.buf = append(w.buf, rest...)
		// The hasher may put the chunk into recycled before the chunk is written. That is safe: only this goroutine takes
		// chunks from recycled, and only after the write.
		full <- chunk
		large := len(chunk) > largeChunk
		if err := w.write(chunk); err != nil {
			return err
		}
		if chunk = nil; large {
			w.awaitHasher()
		}
	}
	return nil
}

// awaitHasher waits until all chunks are hashed. It is called after each large chunk, so that this chunk is freed before the
// next one is allocated.
func (w *sequentialWriter) awaitHasher() {
	var all [chunks][]byte
	for i := range all {
		all[i] = <-w.recycled
	}
	for _, chunk := range all {
		w.recycled <- chunk
	}
}

// ensureRoom makes room for n more bytes in buf. It keeps buf aligned for direct I/O.
func (w *sequentialWriter) ensureRoom(n int) {
	if n += len(w.buf); n > cap(w.buf) {
		w.buf = append(disk.AlignedBuffer(max(n, disk.ChunkBytes+disk.ChunkBytes/4))[:0], w.buf...)
	}
}

func (w *sequentialWriter) write(b []byte) error {
	n, err := w.file.WriteAt(b, w.off)
	if err != nil {
		return err
	}
	if w.off += int64(n); !w.direct && w.off-w.writebackStarted >= writebackBytes {
		startWriteback(w.file, w.writebackStarted, w.off-w.writebackStarted)
		w.writebackStarted = w.off
	}
	return nil
}

// rewindTo discards all bytes at and after offset, and perhaps some bytes before it. The digest must be of the whole file,
// not of blocks.
func (w *sequentialWriter) rewindTo(offset int64) {
	switch {
	case offset >= w.end():
	case offset >= w.off:
		w.buf = w.buf[:offset-w.off]
	default:
		w.off = w.digest.whole.rewindTo(offset)
		w.buf, w.writebackStarted = w.buf[:0], min(w.writebackStarted, w.off)
	}
}

// finish writes the rest of c. It does not sync the file.
func (w *sequentialWriter) finish(c *content) error {
	if err := w.writePieces(c, c.Pieces()); err != nil {
		return err
	}
	n := len(w.buf)
	w.digest.Write(w.buf)
	b := w.buf
	if w.direct { // direct I/O writes whole pages only, so pad the last page and truncate the file later
		w.ensureRoom(-n & (disk.DirectAlign - 1))
		b = w.buf[:(n+disk.DirectAlign-1)&^(disk.DirectAlign-1)]
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
	return w.file.Truncate(c.Bytes)
}
