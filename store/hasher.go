package store

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"hash"
	"io"
	"os"
	"slices"
)

// Hasher hashes a file as manifests do, to compare it with them.
type Hasher struct {
	n      int64
	whole  hash.Hash
	blocks *blockHashes // nil if no manifest has them
}

// NewHasher returns a Hasher of no bytes yet. They can be compared with these manifests.
func NewHasher(manifests ...Manifest) *Hasher {
	return newHasher(slices.ContainsFunc(manifests, func(m Manifest) bool { return m.Blocks != nil }))
}

func newHasher(withBlocks bool) *Hasher {
	h := &Hasher{whole: sha256.New()}
	if withBlocks {
		h.blocks = newBlockHashes()
	}
	return h
}

// Write hashes the next bytes. It never fails.
func (h *Hasher) Write(p []byte) (int, error) {
	h.n += int64(len(p))
	if h.blocks != nil {
		h.blocks.Write(p)
	}
	return h.whole.Write(p)
}

// Bytes returns the number of bytes so far.
func (h *Hasher) Bytes() int64 { return h.n }

// SHA256 returns the SHA-256 of the bytes so far, in lower-case hex.
func (h *Hasher) SHA256() string { return hex.EncodeToString(h.whole.Sum(nil)) }

// Mismatch returns how the bytes written so far differ from the file that m describes; "" if they do not.
func (h *Hasher) Mismatch(m Manifest) string {
	if h.n != m.Bytes {
		return fmt.Sprintf("it has %d bytes, and the manifest says %d", h.n, m.Bytes)
	}
	if m.SHA256 != "" {
		if sum := h.SHA256(); sum != m.SHA256 {
			return fmt.Sprintf("its SHA-256 is %.12s…, and the manifest says %.12s…", sum, m.SHA256)
		}
	}
	if m.Blocks != nil && h.blocks != nil {
		if sum := h.blocks.sum(); sum != m.Blocks.SHA256 {
			return fmt.Sprintf("the SHA-256 of its blocks is %.12s…, and the manifest says %.12s…", sum, m.Blocks.SHA256)
		}
	}
	return ""
}

// hashFile hashes the file at path, to compare it with these manifests.
func hashFile(path string, manifests ...Manifest) (*Hasher, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	h := NewHasher(manifests...)
	_, err = io.CopyBuffer(struct{ io.Writer }{h}, struct{ io.Reader }{f}, make([]byte, 1<<20))
	return h, err
}
