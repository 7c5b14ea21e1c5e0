package store

import (
	"context"
	"errors"

	"capture/snapshot"
	"capture/store/disk"
	"capture/store/placement"
)

// WriteAhead writes a part of the file while a table is still being copied, so that the next [File.Write] has less to do. parts
// are the first Parts of the View that Write will get. Rows are still being added to the last Part. WriteAhead returns when it
// has written all Parts but the last, or when ctx ends. It reports whether it may be called again with more Parts. If parts is
// empty, it removes what it has written and reports false.
//
// Readers see no change. After an error WriteAhead reports false. It does not return the error, because the next Write will
// probably fail with the same error.
func (f *File) WriteAhead(ctx context.Context, parts []snapshot.Part) bool {
	if len(parts) == 0 {
		f.mu.Lock()
		defer f.mu.Unlock()
		f.discardPrewrite()
		return false
	}
	c := &content{Layout: placement.New(placementParts(parts), placement.FillFactor97), parts: parts}
	for ctx.Err() == nil {
		if done, err := f.extendPrewrite(c); err != nil {
			return false
		} else if done {
			break
		}
	}
	return true
}

// extendPrewrite writes one step, and reports whether all Parts but the last are written.
func (f *File) extendPrewrite(c *content) (done bool, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	defer func() {
		if err != nil {
			f.discardPrewrite()
		}
	}()
	if err := f.ensureLocked(); err != nil {
		return false, err
	}
	pre, ok := f.temp.use.(*prewrite)
	if !ok {
		file, err := f.temp.create(f.standing.dataLike())
		if err != nil {
			return false, err
		}
		pre = &prewrite{sequentialWriter: newSequentialWriter(file, true, true)}
		f.temp.use = pre
	}
	return pre.extend(c)
}

func (f *File) discardPrewrite() {
	if _, ok := f.temp.use.(*prewrite); ok {
		f.temp.discard()
	}
}

// prewrite is the start of a future version, under the temporary name. It is written while a large table is still being copied.
// Readers see this file only after a Write has completed and published it.
type prewrite struct {
	*sequentialWriter
	regions   []placement.Region // regions that are written; the last region may be incomplete
	rewritten int64              // number of bytes that were written and then discarded by a rewind
}

const (
	prewriteStep = 8 << 20 // number of bytes of a step; a Write may run after each step

	// The prewrite ends if rewinds have discarded more bytes than one step plus a quarter (1/rewrittenShare) of the prewrite's
	// length. Then the rows do not come in the order of their keys, so writing ahead costs more than it saves.
	rewrittenShare = 4
)

var errRewritten = errors.New("the rows do not come in the order of their keys")

// extend continues the prewrite with at most about prewriteStep bytes of c. c is the newest state of the copy. extend reports
// whether all regions of c except the last are written. The last region is still growing.
func (p *prewrite) extend(c *content) (done bool, err error) {
	growing := len(c.Regions) - 1 // index of the last part, to which rows are still being added
	same := commonPrefix(p.regions, c.Regions[:growing])
	if same < len(p.regions) {
		before := p.end()
		p.rewindTo(c.PieceOff(same))
		if p.rewritten += before - p.end(); p.rewritten > prewriteStep+p.end()/rewrittenShare {
			return false, errRewritten
		}
	}
	to := same
	for n := int64(0); to < growing && n < prewriteStep; to++ {
		n += c.PieceBytes(to)
	}
	p.regions = append(p.regions[:same], c.Regions[same:to]...)
	return to == growing, p.writePieces(c, to)
}

// isStartOf reports whether at least half of the written regions are also the first regions of a version with these parts.
func (p *prewrite) isStartOf(parts []snapshot.Part) bool {
	same := 0
	for same < min(len(p.regions), len(parts)) && p.regions[same].PartID == parts[same].ID() {
		same++
	}
	return same > 0 && same >= len(p.regions)/2
}

// finish turns the prewrite into the pending version v, and syncs and closes the file.
func (p *prewrite) finish(v *pendingVersion) error {
	same := commonPrefix(p.regions, v.Regions)
	p.rewindTo(v.PieceOff(min(same, v.Pieces()-1)))
	v.bytesWritten, v.digest = v.Bytes, p.digest
	if err := p.sequentialWriter.finish(&v.content); err != nil {
		return err
	}
	// The file may have been longer before the rewind, and the writes after the rewind do not shorten it.
	if err := p.file.Truncate(v.Bytes); err != nil {
		return err
	}
	return disk.SyncAndClose(p.file)
}

// Close closes the file.
func (p *prewrite) Close() error { return p.file.Close() }

// commonPrefix returns how many regions at the start of a and b are equal.
func commonPrefix(a, b []placement.Region) int {
	n := 0
	for n < min(len(a), len(b)) && a[n] == b[n] {
		n++
	}
	return n
}
