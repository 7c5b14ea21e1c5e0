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
