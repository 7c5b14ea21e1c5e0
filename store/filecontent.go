package store

import (
	"errors"
	"fmt"

	"capture/snapshot"
	"capture/store/placement"
)

// content produces the bytes of one version of the file from the Parts of the table and their positions in the file. It
// produces the bytes piece by piece, so they are never in memory as a whole.
type content struct {
	*placement.Layout
	parts []snapshot.Part // Part of each region; zero after its rows are released
}

// placementParts returns parts in the form that package placement uses.
func placementParts(parts []snapshot.Part) []placement.Part {
	list := make([]placement.Part, len(parts))
	for i, p := range parts {
		list[i] = placement.Part{ID: p.ID(), Bytes: int64(p.Bytes())}
	}
	return list
}

// contentOf returns the content of a file that was written from v with the layout. It returns an error if v does not have the
// rows of that file.
func contentOf(v *snapshot.View, layout *placement.Layout) (content, error) {
	c := content{Layout: layout, parts: make([]snapshot.Part, 0, len(layout.Regions))}
	for p := range v.Parts() {
		if i := len(c.parts); i == len(layout.Regions) || p.ID() != layout.Regions[i].PartID {
			return content{}, errors.New("the rows are not those that were written")
		}
		c.parts = append(c.parts, p)
	}
	if len(c.parts) != len(layout.Regions) {
		return content{}, errors.New("the rows are not those that were written")
	}
	return c, nil
}

// appendPiece appends the bytes of piece i to b.
func (c *content) appendPiece(b []byte, i int) ([]byte, error) {
	return c.AppendPiece(b, i, func(b []byte) ([]byte, error) {
		from := len(b)
		b, err := c.parts[i].AppendTo(b)
		if n := len(b) - from; err == nil && n != c.parts[i].Bytes() {
			err = fmt.Errorf("read part %d of the table: %d bytes where %d were counted", c.parts[i].ID(), n, c.parts[i].Bytes())
		}
		return b, err
	})
}

// releasePiece drops the rows of piece i, so that they can be freed if the table no longer has them. Afterwards, the piece
// cannot be produced again.
func (c *content) releasePiece(i int) {
	if len(c.parts) > 0 {
		c.parts[i] = snapshot.Part{}
	}
}

// errStop is the error that a callback of walk returns to end the walk early.
var errStop = errors.New("stop")

// walk calls f with the bytes of the file from offset off to the end, piece by piece. It stops early if f returns an error.
// If that error is errStop, walk returns nil. The bytes are valid only during the call of f. walk stores them in scratch, so
// that the next walk need not allocate.
func (c *content) walk(scratch *[]byte, off int64, f func(b []byte) error) (err error) {
	b := *scratch
	for i := c.PieceAt(off); i < c.Pieces() && err == nil; i++ {
		if b, err = c.appendPiece(b[:0], i); err == nil {
			err = f(b[max(0, off-c.PieceOff(i)):])
		}
	}
	*scratch = b
	if err == errStop {
		return nil
	}
	return err
}

// readAt fills p with the bytes of the file that begin at offset off, and with zeros beyond the end of the file.
func (c *content) readAt(scratch *[]byte, p []byte, off int64) error {
	err := c.walk(scratch, off, func(b []byte) error {
		if p = p[copy(p, b):]; len(p) == 0 {
			return errStop
		}
		return nil
	})
	clear(p)
	return err
}
