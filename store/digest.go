package store

import (
	"crypto/sha256"
	"encoding"
	"encoding/hex"
	"fmt"
	"hash"
	"io"
	"os"
	"slices"
)

// The SHA-256 of a whole file can't be had without hashing all that follows the first byte that changed: a second for two
// gigabytes, where the change itself is on disk in milliseconds. That of its blocks can: where the one takes too long, the
// manifest has the SHA-256 of the SHA-256s of the blocks for a while, until [File.Complete] has had its time.

// blockBytes is the length of a block: short, since each changed row has its whole block hashed anew; not shorter, since the
// digests of all blocks are hashed for each version.
var blockBytes int64 = 128 << 10

// completeBytes is the most that is hashed for a change alone, lest it take longer than the writing.
var completeBytes int64 = 64 << 20

// digest is what is known for a manifest of the bytes of a file: one of the two at least, to its end.
type digest struct {
	whole  prefix
	blocks *blocks // nil where they are not known
}

// describe puts into m what is known of the file, whose length m has.
func (d *digest) describe(m *Manifest) {
	m.SHA256, m.Blocks = "", nil
	if d.whole.n == m.Bytes {
		m.SHA256 = d.whole.sum()
	} else {
		m.Blocks = &Blocks{Bytes: blockBytes, SHA256: d.blocks.sum()}
	}
}

// prefix is the SHA-256 of a file up to some place, with what it was at places before, so that it need not begin anew where
// the file is the same as before up to there.
type prefix struct {
	hash   hash.Hash
	n      int64
	states [][]byte // after 1, 2, … times prefixStep
}

const prefixStep = 1 << 20

func newPrefix() prefix { return prefix{hash: sha256.New()} }

// Write adds bytes to what is hashed. It never fails.
func (d *prefix) Write(p []byte) (int, error) {
	for rest := p; len(rest) > 0; {
		k := min(int64(len(rest)), prefixStep-d.n%prefixStep)
		d.hash.Write(rest[:k])
		rest = rest[k:]
		if d.n += k; d.n%prefixStep == 0 {
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
func (d *prefix) rewind(off int64) int64 {
	steps := min(off/prefixStep, int64(len(d.states)))
	d.states = d.states[:steps]
	d.n = steps * prefixStep
	d.hash.Reset()
	if steps > 0 {
		if err := d.hash.(encoding.BinaryUnmarshaler).UnmarshalBinary(d.states[steps-1]); err != nil {
			panic(err) // it is what AppendBinary gave
		}
	}
	return d.n
}

func (d *prefix) sum() string { return hex.EncodeToString(d.hash.Sum(nil)) }

// blocks are the SHA-256s of a file's blocks. They are written one after the other, or set.
type blocks struct {
	sums []byte    // of those that are ended
	hash hash.Hash // of the block that is begun
	n    int64     // its bytes
}

func newBlocks() *blocks { return &blocks{hash: sha256.New()} }

// Write adds bytes to what is hashed. It never fails.
func (b *blocks) Write(p []byte) (int, error) {
	for rest := p; len(rest) > 0; {
		k := min(int64(len(rest)), blockBytes-b.n)
		b.hash.Write(rest[:k])
		rest = rest[k:]
		if b.n += k; b.n == blockBytes {
			b.end()
		}
	}
	return len(p), nil
}

// end ends the block that is begun.
func (b *blocks) end() {
	if b.n > 0 {
		b.sums = b.hash.Sum(b.sums)
		b.hash.Reset()
		b.n = 0
	}
}

// resize makes room for the blocks of a file of n bytes. Those that are new or of another length are to be set.
func (b *blocks) resize(n int64) {
	b.end()
	size := int((n + blockBytes - 1) / blockBytes * sha256.Size)
	b.sums = slices.Grow(b.sums, max(0, size-len(b.sums)))[:size]
}

// set is the block that begins at off.
func (b *blocks) set(off int64, block []byte) {
	sum := sha256.Sum256(block)
	copy(b.sums[off/blockBytes*sha256.Size:], sum[:])
}

func (b *blocks) sum() string {
	b.end()
	sum := sha256.Sum256(b.sums)
	return hex.EncodeToString(sum[:])
}

// Hasher hashes a file as its manifest does, to compare the two.
type Hasher struct {
	n      int64
	whole  hash.Hash
	blocks *blocks // nil where no manifest has them
}

// NewHasher begins with no bytes; they can be compared with these manifests.
func NewHasher(manifests ...Manifest) *Hasher {
	s := &Hasher{whole: sha256.New()}
	if slices.ContainsFunc(manifests, func(m Manifest) bool { return m.Blocks != nil }) {
		s.blocks = newBlocks()
	}
	return s
}

// Write adds bytes. It never fails.
func (s *Hasher) Write(p []byte) (int, error) {
	s.n += int64(len(p))
	if s.blocks != nil {
		s.blocks.Write(p)
	}
	return s.whole.Write(p)
}

// Bytes is how many there were.
func (s *Hasher) Bytes() int64 { return s.n }

// SHA256 is that of all bytes so far, in lower-case hex.
func (s *Hasher) SHA256() string { return hex.EncodeToString(s.whole.Sum(nil)) }

// Mismatch says in what the bytes, all of them, are not those of m; "" where they are.
func (s *Hasher) Mismatch(m Manifest) string {
	if s.n != m.Bytes {
		return fmt.Sprintf("it has %d bytes, and the manifest says %d", s.n, m.Bytes)
	}
	if m.SHA256 != "" {
		if sum := s.SHA256(); sum != m.SHA256 {
			return fmt.Sprintf("its SHA-256 is %.12s…, and the manifest says %.12s…", sum, m.SHA256)
		}
	}
	if m.Blocks != nil && s.blocks != nil {
		if sum := s.blocks.sum(); sum != m.Blocks.SHA256 {
			return fmt.Sprintf("the SHA-256 of its blocks is %.12s…, and the manifest says %.12s…", sum, m.Blocks.SHA256)
		}
	}
	return ""
}

// sumFile hashes the file at path, for these manifests.
func sumFile(path string, manifests ...Manifest) (*Hasher, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	s := NewHasher(manifests...)
	_, err = io.CopyBuffer(struct{ io.Writer }{s}, struct{ io.Reader }{f}, make([]byte, 1<<20))
	return s, err
}
