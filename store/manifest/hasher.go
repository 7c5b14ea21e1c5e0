package manifest

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"hash"
	"io"

	"capture/store/disk"
)

// Hasher computes the digests of a file, so that the file can be compared with manifests.
type Hasher struct {
	n      int64 // number of hashed bytes
	whole  hash.Hash
	blocks []*BlockHashes // one entry for each block length that occurs in the manifests
}

// NewHasher returns an empty Hasher. It computes the digests that are needed to compare a file with the manifests.
func NewHasher(manifests ...Manifest) *Hasher {
	h := &Hasher{whole: sha256.New()}
	for _, m := range manifests {
		if m.Blocks != nil {
			h.HashBlocks(m.Blocks.Bytes)
		}
	}
	return h
}

// HashBlocks makes h also hash blocks of the given length, and returns their hashes. h must still be empty.
func (h *Hasher) HashBlocks(bytes int64) *BlockHashes {
	if b := h.blocksOf(bytes); b != nil {
		return b
	}
	b := NewBlockHashes(bytes)
	h.blocks = append(h.blocks, b)
	return b
}

// blocksOf returns the hashes of the blocks of the given length, or nil if h does not have them.
func (h *Hasher) blocksOf(bytes int64) *BlockHashes {
	for _, b := range h.blocks {
		if b.bytes == bytes {
			return b
		}
	}
	return nil
}

// Write hashes the next bytes. It never returns an error.
func (h *Hasher) Write(p []byte) (int, error) {
	h.n += int64(len(p))
	for _, b := range h.blocks {
		b.Write(p)
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
	if m.Blocks == nil {
		return ""
	}
	if b := h.blocksOf(m.Blocks.Bytes); b != nil {
		if sum := b.Sum(); sum != m.Blocks.SHA256 {
			return fmt.Sprintf("the SHA-256 of its blocks is %.12s…, and the manifest says %.12s…", sum, m.Blocks.SHA256)
		}
	}
	return ""
}

// HashFile hashes the regular file at path, so that it can be compared with the manifests.
func HashFile(path string, manifests ...Manifest) (*Hasher, error) {
	f, err := disk.OpenRegular(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	h := NewHasher(manifests...)
	_, err = io.CopyBuffer(struct{ io.Writer }{h}, struct{ io.Reader }{f}, make([]byte, 1<<20))
	return h, err
}
