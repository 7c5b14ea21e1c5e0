package store

import (
	"crypto/sha256"
	"encoding"
	"encoding/hex"
	"hash"
	"io"
	"os"
)

// digest is the SHA-256 of a file, with what it was after each block, so that it need not begin anew where the file is the
// same as before up to some place: of a table that grows at its end, the last block is hashed and nothing else.
type digest struct {
	hash   hash.Hash
	n      int64
	states [][]byte // after 1, 2, … blocks
}

const digestBlock = 1 << 20

func newDigest() *digest { return &digest{hash: sha256.New()} }

// Write adds bytes to what is hashed. It never fails.
func (d *digest) Write(p []byte) (int, error) {
	for rest := p; len(rest) > 0; {
		k := min(int64(len(rest)), digestBlock-d.n%digestBlock)
		d.hash.Write(rest[:k])
		rest = rest[k:]
		if d.n += k; d.n%digestBlock == 0 {
			state, err := d.hash.(encoding.BinaryAppender).AppendBinary(nil)
			if err != nil {
				panic(err) // crypto/sha256 documents none
			}
			d.states = append(d.states, state)
		}
	}
	return len(p), nil
}

// rewind forgets all from off on, and some bytes before it; it returns where it goes on.
func (d *digest) rewind(off int64) int64 {
	blocks := min(off/digestBlock, int64(len(d.states)))
	d.states = d.states[:blocks]
	d.n = blocks * digestBlock
	d.hash.Reset()
	if blocks > 0 {
		if err := d.hash.(encoding.BinaryUnmarshaler).UnmarshalBinary(d.states[blocks-1]); err != nil {
			panic(err) // it is what AppendBinary gave
		}
	}
	return d.n
}

func (d *digest) sum() string { return hex.EncodeToString(d.hash.Sum(nil)) }

const (
	chunkBytes     = 256 << 10
	chunks         = 4
	writeBackBytes = 8 << 20
)

// writeWhole writes a file of that layout, and hashes it on another goroutine meanwhile, so that a large file takes as long as the
// slower of the two and not as both.
func writeWhole(file *os.File, l *layout) (_ *digest, err error) {
	d := newDigest()
	full := make(chan []byte, chunks) // to the hasher
	free := make(chan []byte, chunks) // from it
	for range chunks {
		free <- nil
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for b := range full {
			d.Write(b)
			free <- b[:0]
		}
	}()
	defer func() {
		close(full)
		<-done
	}()
	var n, sent int64 // bytes written, and those of them that the kernel was told to write back
	for i := 0; i < l.count(); {
		b := <-free
		for ; i < l.count() && len(b) < chunkBytes; i++ {
			if b, err = l.appendRegion(b, i); err != nil {
				return nil, err
			}
		}
		// The hasher may hand the chunk back before it is written, but nobody takes it until it is.
		full <- b
		m, err := file.Write(b)
		if err != nil {
			return nil, err
		}
		if n += int64(m); n-sent >= writeBackBytes {
			startWriteBack(file, sent, n-sent)
			sent = n
		}
	}
	return d, nil
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
