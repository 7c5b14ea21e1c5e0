package store

import (
	"context"
	"crypto/sha256"
	"encoding"
	"encoding/hex"
	"hash"
	"math"
	"slices"

	"capture/snapshot"
	"capture/store/placement"
)

// A change of the first row of a large file is on disk in milliseconds, but its SHA-256 depends on every byte after that row,
// and hashing two gigabytes takes a second. So there are two digests. The SHA-256 of the whole file is resumed at the first byte
// that changed. If more than hashPerWrite bytes follow, the manifest of that Write has the hash of all blocks' hashes instead,
// for which only the changed blocks are hashed. [File.Idle] completes the SHA-256 later.

// hashPerWrite is the most bytes that a Write after a change hashes for the SHA-256 of the whole file, so that hashing takes no
// longer than writing. It is also the size of a step of Idle.
var hashPerWrite int64 = 64 << 20

// blockBytes is the length of a block. A longer one would take longer to hash for each changed row; a shorter one would make
// the list of hashes longer, which is hashed for each version.
var blockBytes int64 = 128 << 10

// digest is the digests of one version of the file. At least one of the two covers all of it. A patch does not copy it but turns
// the last version's digest into that of the new version, in place.
type digest struct {
	whole  prefixHash
	blocks *blockHashes // nil until a version first needs them
}

// newDigest returns a digest for a file that is written from start to end: of the whole if complete is set, of the blocks
// otherwise.
func newDigest(complete bool) *digest {
	d := &digest{whole: newPrefixHash()}
	if !complete {
		d.blocks = newBlockHashes()
	}
	return d
}

// Write hashes the next bytes of a file that is written from start to end. It never fails.
func (d *digest) Write(p []byte) (int, error) {
	if d.blocks != nil {
		return d.blocks.Write(p)
	}
	return d.whole.Write(p)
}

// setManifest sets the digest of m: the SHA-256 of the whole file if that is complete, or else that of its blocks.
func (d *digest) setManifest(m *Manifest) {
	m.SHA256, m.Blocks = "", nil
	if d.whole.n == m.Bytes {
		m.SHA256 = d.whole.sum()
	} else {
		m.Blocks = &Blocks{Bytes: blockBytes, SHA256: d.blocks.sum()}
	}
}

// update turns the digest of a file with the layout old into that of c. If complete is set, it hashes the whole file, however
// long that takes.
func (d *digest) update(c *content, old *placement.Layout, complete bool) error {
	spans, firstChange := c.ChangedSpans(old, blockBytes), old.Bytes
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
		d.blocks, spans = newBlockHashes(), []placement.Span{{To: c.Bytes}} // first needed now: hash all blocks
	}
	return d.updateBlocks(c, spans, &scratch)
}

// updateBlocks hashes the blocks in spans, which are aligned to blocks.
func (d *digest) updateBlocks(c *content, spans []placement.Span, scratch *[]byte) error {
	d.blocks.resize(c.Bytes)
	block := make([]byte, blockBytes)
	for _, s := range spans {
		for off := s.From; off < min(s.To, c.Bytes); off += blockBytes {
			b := block[:min(blockBytes, c.Bytes-off)]
			if err := c.readAt(scratch, b, off); err != nil {
				return err
			}
			d.blocks.set(off, b)
		}
	}
	return nil
}

// complete completes the SHA-256 of the whole file, which has the rows of v and this layout.
func (d *digest) complete(v *snapshot.View, layout *placement.Layout) error {
	_, err := d.completeStep(context.Background(), v, layout, math.MaxInt64)
	return err
}

// completeStep continues the SHA-256 of the whole file by limit bytes or a few more, and reports whether it is complete. It
// ends early if ctx does.
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

// adoptBlocks takes over the hashes of all blocks, which a copy of the file has made, unless it has its own.
func (d *digest) adoptBlocks(b *blockHashes) {
	if d.blocks == nil {
		b.endBlock()
		d.blocks = b
	}
}

// prefixHash is the SHA-256 of a file from its start up to some offset. It keeps what its state was at each checkpoint before,
// so hashing can be resumed where a new version begins to differ.
type prefixHash struct {
	hash        hash.Hash
	n           int64 // bytes that are hashed
	checkpoints [][]byte
}

// checkpointBytes is the distance of checkpoints.
const checkpointBytes = 1 << 20

func newPrefixHash() prefixHash { return prefixHash{hash: sha256.New()} }

// Write hashes the next bytes. It never fails.
func (h *prefixHash) Write(p []byte) (int, error) {
	for rest := p; len(rest) > 0; {
		k := min(int64(len(rest)), checkpointBytes-h.n%checkpointBytes)
		h.hash.Write(rest[:k])
		rest = rest[k:]
		if h.n += k; h.n%checkpointBytes == 0 {
			state, err := h.hash.(encoding.BinaryAppender).AppendBinary(nil)
			if err != nil {
				panic(err) // crypto/sha256 never returns one
			}
			h.checkpoints = append(h.checkpoints, state)
		}
	}
	return len(p), nil
}

// rewindTo forgets all bytes from off on, and those since the last checkpoint before it. It returns the offset from which to
// continue.
func (h *prefixHash) rewindTo(off int64) int64 {
	count := min(off/checkpointBytes, int64(len(h.checkpoints)))
	h.checkpoints = h.checkpoints[:count]
	h.n = count * checkpointBytes
	h.hash.Reset()
	if count > 0 {
		if err := h.hash.(encoding.BinaryUnmarshaler).UnmarshalBinary(h.checkpoints[count-1]); err != nil {
			panic(err) // AppendBinary made it
		}
	}
	return h.n
}

func (h *prefixHash) sum() string { return hex.EncodeToString(h.hash.Sum(nil)) }

// blockHashes are the SHA-256s of a file's blocks. They are made by writing the whole file, or set one by one.
type blockHashes struct {
	sums []byte    // the hashes, one after the other
	hash hash.Hash // of the block that is being written
	n    int64     // its bytes
}

func newBlockHashes() *blockHashes { return &blockHashes{hash: sha256.New()} }

// Write hashes the next bytes. It never fails.
func (h *blockHashes) Write(p []byte) (int, error) {
	for rest := p; len(rest) > 0; {
		k := min(int64(len(rest)), blockBytes-h.n)
		h.hash.Write(rest[:k])
		rest = rest[k:]
		if h.n += k; h.n == blockBytes {
			h.endBlock()
		}
	}
	return len(p), nil
}

// endBlock ends the block that is being written, if there is one.
func (h *blockHashes) endBlock() {
	if h.n > 0 {
		h.sums = h.hash.Sum(h.sums)
		h.hash.Reset()
		h.n = 0
	}
}

// resize makes room for the hashes of a file of n bytes. The caller sets those that are new or whose block changes its length.
func (h *blockHashes) resize(n int64) {
	h.endBlock()
	size := int((n + blockBytes - 1) / blockBytes * sha256.Size)
	h.sums = slices.Grow(h.sums, max(0, size-len(h.sums)))[:size]
}

// set sets the hash of the block that begins at off.
func (h *blockHashes) set(off int64, block []byte) {
	sum := sha256.Sum256(block)
	copy(h.sums[off/blockBytes*sha256.Size:], sum[:])
}

func (h *blockHashes) sum() string {
	h.endBlock()
	sum := sha256.Sum256(h.sums)
	return hex.EncodeToString(sum[:])
}
