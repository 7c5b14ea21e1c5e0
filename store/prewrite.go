package store

import (
	"errors"

	"capture/snapshot"
	"capture/store/placement"
)

// prewrite is the start of a version to come, under the temporary name: while a large table is being copied, the rows that
// have arrived are written. Nobody is shown that file before the Write that finishes it.
type prewrite struct {
	*sequentialWriter
	regions   []placement.Region // the regions that are written; the last one maybe in part
	rewritten int64              // bytes that were written and then rewound over
}

const (
	prewriteStep   = 8 << 20 // bytes after which a Write may come in between
	rewrittenShare = 4       // a prewrite ends once more than one part in so many was rewritten
)

var errRewritten = errors.New("the rows do not come in the order of their keys")

// extend continues with c, the newest state of the copy, by one step. It reports whether that was the last one.
func (p *prewrite) extend(c *content) (done bool, err error) {
	growing := len(c.Regions) - 1 // rows are still added to the last part
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

// isStartOf reports whether a version of parts begins with at least half of what is written.
func (p *prewrite) isStartOf(parts []snapshot.Part) bool {
	same := 0
	for same < min(len(p.regions), len(parts)) && p.regions[same].PartID == parts[same].ID() {
		same++
	}
	return same > 0 && same >= len(p.regions)/2
}

// finish makes the file the pending version, and syncs and closes it.
func (p *prewrite) finish(v *pendingVersion) error {
	same := commonPrefix(p.regions, v.Regions)
	p.rewindTo(v.PieceOff(min(same, v.Pieces()-1)))
	v.bytesWritten, v.digest = v.Bytes, p.digest
	if err := p.sequentialWriter.finish(&v.content); err != nil {
		return err
	}
	if err := p.file.Truncate(v.Bytes); err != nil { // it may have been longer
		return err
	}
	return syncAndClose(p.file)
}

// Close closes the file.
func (p *prewrite) Close() error { return p.file.Close() }

// commonPrefix returns how many regions at the start are the same in both.
func commonPrefix(a, b []placement.Region) int {
	n := 0
	for n < min(len(a), len(b)) && a[n] == b[n] {
		n++
	}
	return n
}
