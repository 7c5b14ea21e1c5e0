// Package placement decides where each row lies in feedback.json, so that a change of one row changes few bytes of a large
// file. It computes offsets and bytes and does no I/O.
//
// The table consists of Parts: some consecutive rows each, with an ID that stands for their content. In the file each Part has
// a [Region], which may be longer than its rows. Spaces before the closing brace of the region's last row fill the rest, where
// readers of JSON, of whole lines or of both ignore them:
//
//	offset  0    2                      92               152              210  212
//	        [\n  {…},\n{…},\n{…     },\n{…},\n{…      },\n{…},\n{…},\n{…}\n   ]\n
//	            └────── region 0 ──────┘└─── region 1 ───┘└── region 2 ──┘
//	                    Part 7, padded      Part 9, padded    Part 4, the last
//
// The file's last region has no padding, and its last row has no comma: whatever is appended changes the end of the file
// anyway.
//
// [New] places all Parts one after the other. [Layout.Next] places the next state of a table and keeps as many Parts as possible
// where they are: a Part that has grown takes from its padding, then from its neighbours' ([match.rewriteRun] has a picture).
// [Layout.ChangedSpans] then has the ranges in which two files differ.
//
//	state 1   │ Part 7   ␣␣│ Part 9   ␣␣│ Part 4 │
//	              same         changed      same
//	state 2   │ Part 7   ␣␣│ Part 12 ␣  │ Part 4 │      only the bytes of Part 12 are written
package placement

import "sort"

// Part is some consecutive rows of a table, which are placed together.
type Part struct {
	ID    uint64 // Parts with the same ID have the same rows
	Bytes int64  // length of the rows' lines, each with its comma and newline
}

// Region is the range of a file in which a Part lies.
type Region struct {
	PartID uint64
	Off    int64 // offset of the first byte
	Size   int64 // length in bytes, with the padding
}

// End returns the offset of the first byte after the region.
func (r Region) End() int64 { return r.Off + r.Size }

// Layout is where the Parts of a table lie in a file. It never changes once it has been made.
type Layout struct {
	Regions []Region // in the order of the keys, without gaps
	Bytes   int64    // length of the whole file
}

const (
	opening   = "[\n"
	closing   = "]\n"
	emptyFile = "[]\n"
	rowEnd    = "},\n" // the file's last row has no comma
)

// FillFactor is how much of a new region its rows take. Postgres uses the word for its pages, and for the same reason: rows
// can grow without moving others.
type FillFactor int

const (
	// FillFactor100 leaves no padding. It is for files so small that each change rewrites all of them.
	FillFactor100 FillFactor = iota
	// FillFactor97 leaves one part in 32 as padding. Without any, the first row to grow would find no room up to the file's
	// end, and all rows behind it would move.
	FillFactor97
)

// paddingDivisor is the share of a region that FillFactor97 leaves as padding, as a divisor of its rows' bytes.
const paddingDivisor = 32

func (f FillFactor) padding(rows int64) int64 {
	if f == FillFactor100 {
		return 0
	}
	return rows / paddingDivisor
}

// New returns a Layout with the parts one after the other.
func New(parts []Part, fill FillFactor) *Layout {
	if len(parts) == 0 {
		return &Layout{Bytes: int64(len(emptyFile))}
	}
	l := &Layout{Regions: make([]Region, 0, len(parts))}
	l.placeTail(parts, fill)
	l.Bytes = l.regionsEnd() + int64(len(closing))
	return l
}

// regionsEnd returns the offset at which the next region begins.
func (l *Layout) regionsEnd() int64 {
	if len(l.Regions) == 0 {
		return int64(len(opening))
	}
	return l.Regions[len(l.Regions)-1].End()
}

func (l *Layout) addRegion(p Part, size int64) {
	l.Regions = append(l.Regions, Region{p.ID, l.regionsEnd(), size})
}

// placeTail places the last parts of the file.
func (l *Layout) placeTail(parts []Part, fill FillFactor) {
	last := len(parts) - 1
	for _, p := range parts[:last] {
		l.addRegion(p, p.Bytes+fill.padding(p.Bytes))
	}
	l.addRegion(parts[last], parts[last].Bytes-1) // without its last comma
}

// placeWithin places parts so that they fill size bytes, which must be enough, and shares the padding between them.
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

// A file consists of pieces: a region each, the first with the opening bracket before it, the last with the closing one after
// it. The file of an empty table is one piece without a region.

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

// PieceAt returns the piece that has the byte at off.
func (l *Layout) PieceAt(off int64) int {
	return max(0, sort.Search(len(l.Regions), func(i int) bool { return l.Regions[i].Off > off })-1)
}
