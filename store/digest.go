package store

import (
	"context"
	"crypto/sha256"
	"encoding"
	"encoding/hex"
	"hash"
	"math"

	"capture/snapshot"
	"capture/store/manifest"
	"capture/store/placement"
)

// A change of the first row of a large file is on disk within milliseconds. But the SHA-256 of the file depends on every byte
// after that row, and hashing two gigabytes takes a second. Therefore there are two digests. The first digest is the SHA-256 of
// the whole file. To update it, hashing resumes near the first byte that changed. If more than hashPerWrite bytes would have to
// be hashed for that, the manifest gets the second digest instead: a hash of the hashes of all blocks. To update the second
// digest, only the changed blocks and the list of hashes are hashed. [File.Idle] completes the first digest later.

// hashPerWrite is the maximum number of bytes that a Write after a change hashes for the SHA-256 of the whole file. With this
// limit, hashing takes no longer than writing. hashPerWrite is also the number of bytes that one step of Idle hashes.
var hashPerWrite int64 = 64 << 20

// blockBytes is the length of a block in bytes. Longer blocks would take longer to hash for each changed row. Shorter blocks
// would make the list of their hashes longer, and the whole list is hashed for each version.
var blockBytes int64 = 128 << 10

// digest holds the two digests of one version of the file. At least one of them is complete. When a patch makes the next
// version, the digest of the last version is updated in place, without a copy.
type digest struct {
	whole  prefixHash            // SHA-256 of the whole file, or of its start
	blocks *manifest.BlockHashes // hashes of all blocks; nil until a version first needs them
}

// newDigest returns an empty digest for a file that is written from start to end. If complete is set, the digest hashes the
// whole file, otherwise the blocks.
func newDigest(complete bool) *digest {
	d := &digest{whole: newPrefixHash()}
	if !complete {
		d.blocks = manifest.NewBlockHashes(blockBytes)
	}
	return d
}

// Write hashes the next bytes of a file that is written from start to end. It never returns an error.
func (d *digest) Write(p []byte) (int, error) {
	if d.blocks != nil {
		return d.blocks.Write(p)
	}
	return d.whole.Write(p)
}

// setManifest sets the digest in m: the SHA-256 if the whole file has been hashed, otherwise the digest of the blocks.
func (d *digest) setManifest(m *manifest.Manifest) {
	m.SHA256, m.Blocks = "", nil
	if d.whole.n == m.Bytes {
		m.SHA256 = d.whole.sum()
	} else {
		m.Blocks = &manifest.Blocks{Bytes: blockBytes, SHA256: d.blocks.Sum()}
	}
}

// update changes d in place from the digest of the previous version of the file to the digest of the new version. oldLayout is
// the layout of the previous version, and c is the content of the new version. If complete is set, update also completes
// the SHA-256 of the whole file, however long that takes.
func (d *digest) update(c *content, oldLayout *placement.Layout, complete bool) error {
	spans, firstChange := c.ChangedSpans(oldLayout, blockBytes), oldLayout.Bytes
	if len(spans) > 0 {
		firstChange = spans[0].From
	}
	var scratch []byte
	from := d.whole.rewindTo(min(firstChange, c.Bytes))
	complete = complete || c.Bytes-from <= hashPerWrite
	if complete {
		if err := c.walk(&scratch, from, func(b []byte) error {
			d.whole.Write(b)
			return nil
		}); err != nil {
			return err
		}
	}
	if d.blocks == nil {
		if complete {
			return nil
		}
		// No version has needed block hashes before, so hash all blocks.
		d.blocks, spans = manifest.NewBlockHashes(blockBytes), []placement.Span{{To: c.Bytes}}
	}
	return d.updateBlocks(c, spans, &scratch)
}

// updateBlocks hashes the blocks in spans, which begin and end at multiples of blockBytes.
func (d *digest) updateBlocks(c *content, spans []placement.Span, scratch *[]byte) error {
	d.blocks.Resize(c.Bytes)
	block := make([]byte, blockBytes)
	for _, s := range spans {
		for off := s.From; off < min(s.To, c.Bytes); off += blockBytes {
			b := block[:min(blockBytes, c.Bytes-off)]
			if err := c.readAt(scratch, b, off); err != nil {
				return err
			}
			d.blocks.Set(off, b)
		}
	}
	return nil
}

// complete finishes the SHA-256 of the whole file. The file was written from the rows of v, with the given layout.
func (d *digest) complete(v *snapshot.View, layout *placement.Layout) error {
	_, err := d.completeStep(context.Background(), v, layout, math.MaxInt64)
	return err
}

// completeStep continues the SHA-256 of the whole file. It hashes the next limit bytes, or slightly more, and reports whether
// the SHA-256 is complete. It stops early if ctx ends.
func (d *digest) completeStep(ctx context.Context, v *snapshot.View, layout *placement.Layout, limit int64) (done bool, err error) {
	if d.whole.n == layout.Bytes {
		return true, nil
	}
	c, err := contentOf(v, layout)
	if err != nil {
		return false, err
	}
	var scratch []byte
	err = c.walk(&scratch, d.whole.n, func(b []byte) error {
		d.whole.Write(b)
		if limit -= int64(len(b)); limit <= 0 || ctx.Err() != nil {
			return errStop
		}
		return nil
	})
	return d.whole.n == layout.Bytes, err
}

// adoptBlocks makes b the block hashes of d if d has none yet. b has the hashes of all blocks, which were computed while the
// file was copied.
func (d *digest) adoptBlocks(b *manifest.BlockHashes) {
	if d.blocks == nil {
		b.EndBlock()
		d.blocks = b
	}
}

// prefixHash is the SHA-256 of a file from its start to some offset. It saves its state at checkpoints, so that hashing can
// resume near the point where a new version begins to differ.
type prefixHash struct {
	hash        hash.Hash
	n           int64    // number of hashed bytes
	checkpoints [][]byte // saved states of the hash, one after every checkpointBytes bytes
}

// checkpointBytes is the number of bytes from one checkpoint to the next.
const checkpointBytes = 1 << 20

func newPrefixHash() prefixHash { return prefixHash{hash: sha256.New()} }

// Write hashes the next bytes. It never returns an error.
func (h *prefixHash) Write(p []byte) (int, error) {
	for rest := p; len(rest) > 0; {
		k := min(int64(len(rest)), checkpointBytes-h.n%checkpointBytes)
		h.hash.Write(rest[:k])
		rest = rest[k:]
		if h.n += k; h.n%checkpointBytes == 0 {
			state, err := h.hash.(encoding.BinaryAppender).AppendBinary(nil)
			if err != nil {
				panic(err) // crypto/sha256 never returns an error
			}
			h.checkpoints = append(h.checkpoints, state)
		}
	}
	return len(p), nil
}

// rewindTo goes back to the last checkpoint at or before off. It returns the offset of the checkpoint, where hashing must
// continue.
func (h *prefixHash) rewindTo(off int64) int64 {
	count := min(off/checkpointBytes, int64(len(h.checkpoints)))
	h.checkpoints = h.checkpoints[:count]
	h.n = count * checkpointBytes
	h.hash.Reset()
	if count > 0 {
		if err := h.hash.(encoding.BinaryUnmarshaler).UnmarshalBinary(h.checkpoints[count-1]); err != nil {
			panic(err) // the state comes from AppendBinary, so it is valid
		}
	}
	return h.n
}

func (h *prefixHash) sum() string { return hex.EncodeToString(h.hash.Sum(nil)) }
