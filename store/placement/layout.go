// Package placement decides where each row is in feedback.json, so that a change of one row changes few bytes of a large file.
// It computes offsets and bytes and does no I/O.
//
// A table consists of Parts. A Part is a group of consecutive rows, with an ID that changes whenever the rows do. In the file
// each Part has a [Region], which may be longer than its rows. The rest is filled with spaces in front of the closing brace of
// the region's last row. JSON parsers and programs that read line by line ignore spaces there:
//
//	offset  0    2                      92               152              210  212
//	        [\n  {…},\n{…},\n{…     },\n{…},\n{…      },\n{…},\n{…},\n{…}\n   ]\n
//	            └────── region 0 ──────┘└─── region 1 ───┘└── region 2 ──┘
//	                    Part 7, padded      Part 9, padded    Part 4, the last
//
// The last region of a file has no padding, and its last row has no comma. Padding there would save nothing, because an
// append always changes the end of the file.
//
// [New] places all Parts one after the other. [Layout.Next] places the next state of a table and keeps as many Parts as
// possible in place. A Part that has grown takes its own padding, then the padding of its neighbors ([match.rewriteRun] has
// a picture). [Layout.ChangedSpans] returns the ranges in which two files differ.
//
//	state 1   │ Part 7   ␣␣│ Part 9   ␣␣│ Part 4 │
//	              same         changed      same
//	state 2   │ Part 7   ␣␣│ Part 12 ␣  │ Part 4 │      only the bytes of Part 12 are written
package placement

import "sort"

// Part is a group of consecutive rows of a table that are placed together.
type Part struct {
	ID    uint64 // identity of the content: Parts with the same ID have the same rows
	Bytes int64  // length in bytes of the rows' lines, each with its comma and newline
}

// Region is the range of a file that holds a Part.
type Region struct {
	PartID uint64 // ID of the Part
	Off    int64  // offset of the first byte
	Size   int64  // length in bytes, including the padding
}

// End returns the offset of the first byte after the region.
func (r Region) End() int64 { return r.Off + r.Size }

// Layout has the positions of a table's Parts in a file. It is immutable after New or Next returns it.
type Layout struct {
	Regions []Region // regions in key order, without gaps
	Bytes   int64    // length of the whole file in bytes
}

const (
	opening   = "[\n"
	closing   = "]\n"
	emptyFile = "[]\n"
	rowEnd    = "},\n" // the file's last row has no comma
)

// FillFactor selects the share of a new region that its rows fill. The rest is padding, so that rows can grow without moving
// other rows. The fill factor of Postgres' pages has the same purpose.
type FillFactor int

const (
	// FillFactor100 leaves no padding. It is for small files, which are rewritten whole at each change.
	FillFactor100 FillFactor = iota
	// FillFactor97 adds 1/32 of the rows' bytes as padding. Without padding, the first row that grows would find no space, and
	// all rows after it would move.
	FillFactor97
)

// paddingDivisor determines the padding of FillFactor97: 1/paddingDivisor of the rows' bytes.
const paddingDivisor = 32

func (f FillFactor) padding(rows int64) int64 {
	if f == FillFactor100 {
		return 0
	}
	return rows / paddingDivisor
}

// New returns a Layout that places the parts one after the other. The fill factor determines their padding.
func New(parts []Part, fill FillFactor) *Layout {
	if len(parts) == 0 {
		return &Layout{Bytes: int64(len(emptyFile))}
	}
	l := &Layout{Regions: make([]Region, 0, len(parts))}
	l.placeTail(parts, fill)
	l.Bytes = l.regionsEnd() + int64(len(closing))
	return l
}

// SizedPart is a Part in an existing file, with its padding.
type SizedPart struct {
	Part
	Padding int64 // length in bytes of the padding that follows its rows
}

// Placed returns the Layout of an existing file with these parts. The last part must have no padding.
func Placed(parts []SizedPart) *Layout {
	if len(parts) == 0 {
		return &Layout{Bytes: int64(len(emptyFile))}
	}
	l := &Layout{Regions: make([]Region, 0, len(parts))}
	last := len(parts) - 1
	for _, p := range parts[:last] {
		l.addRegion(p.Part, p.Bytes+p.Padding)
	}
	l.placeTail([]Part{parts[last].Part}, FillFactor100)
	l.Bytes = l.regionsEnd() + int64(len(closing))
	return l
}

// regionsEnd returns the offset at which the next region begins: the end of the last region, or the end of the opening
// bracket if there are no regions yet.
func (l *Layout) regionsEnd() int64 {
	if len(l.Regions) == 0 {
		return int64(len(opening))
	}
	return l.Regions[len(l.Regions)-1].End()
}

func (l *Layout) addRegion(p Part, size int64) {
	l.Regions = append(l.Regions, Region{p.ID, l.regionsEnd(), size})
}

// placeTail places parts, one after the other, as the last parts of the file.
func (l *Layout) placeTail(parts []Part, fill FillFactor) {
	last := len(parts) - 1
	for _, p := range parts[:last] {
		l.addRegion(p, p.Bytes+fill.padding(p.Bytes))
	}
	l.addRegion(parts[last], parts[last].Bytes-1) // its last row has no comma
}

// placeWithin places parts so that they fill exactly size bytes, and distributes the padding evenly among them. size must be at
// least the sum of their bytes.
func (l *Layout) placeWithin(parts []Part, size int64) {
	free := size
	for _, p := range parts {
		free -= p.Bytes
	}
	for i, p := range parts {
		padding := free / int64(len(parts)-i)
		free -= padding
		l.addRegion(p, p.Bytes+padding)
	}
}

// A file consists of pieces. Each piece is a region. The first piece also has the opening bracket, and the last piece the
// closing bracket. The file of an empty table is one piece without a region.

// Pieces returns the number of pieces.
func (l *Layout) Pieces() int { return max(len(l.Regions), 1) }

// PieceOff returns the offset of piece i.
func (l *Layout) PieceOff(i int) int64 {
	if i == 0 {
		return 0
	}
	return l.Regions[i].Off
}

// PieceBytes returns the length of piece i.
func (l *Layout) PieceBytes(i int) int64 {
	if i < len(l.Regions)-1 {
		return l.PieceOff(i+1) - l.PieceOff(i)
	}
	return l.Bytes - l.PieceOff(i)
}

// PieceAt returns the index of the piece that contains the byte at offset off.
func (l *Layout) PieceAt(off int64) int {
	return max(0, sort.Search(len(l.Regions), func(i int) bool { return l.Regions[i].Off > off })-1)
}
