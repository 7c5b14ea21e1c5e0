package manifest

import (
	"crypto/sha256"
	"encoding/hex"
	"hash"
	"slices"
)

// BlockHashes holds the SHA-256s of a file's blocks. Write hashes a whole file from start to end. Set stores the hash of one
// block.
type BlockHashes struct {
	bytes int64     // length of a block in bytes; the last block may be shorter
	sums  []byte    // hashes of the complete blocks, one after the other
	hash  hash.Hash // hash of the block that is being written
	n     int64     // number of bytes that have been hashed for that block
}

// NewBlockHashes returns the hashes of an empty file, for blocks of the given length.
func NewBlockHashes(bytes int64) *BlockHashes { return &BlockHashes{bytes: bytes, hash: sha256.New()} }

// Write hashes the next bytes. It never returns an error.
func (h *BlockHashes) Write(p []byte) (int, error) {
	for rest := p; len(rest) > 0; {
		k := min(int64(len(rest)), h.bytes-h.n)
		h.hash.Write(rest[:k])
		rest = rest[k:]
		if h.n += k; h.n == h.bytes {
			h.EndBlock()
		}
	}
	return len(p), nil
}

// EndBlock appends the hash of the block that is being written, if there is one.
func (h *BlockHashes) EndBlock() {
	if h.n > 0 {
		h.sums = h.hash.Sum(h.sums)
		h.hash.Reset()
		h.n = 0
	}
}

// Resize changes the number of hashes to the number of blocks in a file of n bytes. The caller must then call Set for all
// blocks that are new or whose length has changed.
func (h *BlockHashes) Resize(n int64) {
	h.EndBlock()
	size := int((n + h.bytes - 1) / h.bytes * sha256.Size)
	h.sums = slices.Grow(h.sums, max(0, size-len(h.sums)))[:size]
}

// Set stores the hash of the block that begins at off.
func (h *BlockHashes) Set(off int64, block []byte) {
	sum := sha256.Sum256(block)
	copy(h.sums[off/h.bytes*sha256.Size:], sum[:])
}

// Sum returns the digest that [Blocks] defines.
func (h *BlockHashes) Sum() string {
	h.EndBlock()
	sum := sha256.Sum256(h.sums)
	return hex.EncodeToString(sum[:])
}
