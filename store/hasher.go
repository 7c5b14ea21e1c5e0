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

// Hasher computes the digests that a manifest has, so that a file can be compared with its manifest.
type Hasher struct {
	n      int64 // number of hashed bytes
	whole  hash.Hash
	blocks *blockHashes // hashes of the blocks; nil if no manifest needs them
}

// NewHasher returns an empty Hasher. It computes the digests that are needed to compare a file with the manifests.
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

// Write hashes the next bytes. It never returns an error.
func (h *Hasher) Write(p []byte) (int, error) {
	h.n += int64(len(p))
	if h.blocks != nil {
		h.blocks.Write(p)
	}
	return h.whole.Write(p)
}

// Bytes returns the number of bytes written to h.
func (h *Hasher) Bytes() int64 { return h.n }

// SHA256 returns the SHA-256 of the bytes written to h, in lower-case hex.
func (h *Hasher) SHA256() string { return hex.EncodeToString(h.whole.Sum(nil)) }

// Mismatch describes how the bytes written to h differ from the file that m describes. It returns "" if they match.
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

// hashFile hashes the file at path, so that it can be compared with the manifests.
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
