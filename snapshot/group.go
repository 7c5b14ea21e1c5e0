package snapshot

import (
	"bytes"
	"encoding/binary"
)

// prefix is the first eight bytes of a key as a number, so that most comparisons touch one array only.
func prefix(key []byte) uint64 {
	if len(key) >= 8 {
		return binary.BigEndian.Uint64(key)
	}
	var b [8]byte
	copy(b[:], key)
	return binary.BigEndian.Uint64(b[:])
}

// group is some consecutive segments, none of them empty.
type group struct {
	epoch  uint64
	segs   []*segment
	firsts []uint64 // prefixes of the segments' first keys
}

func (g *group) clone(epoch uint64) *group {
	return &group{
		epoch:  epoch,
		segs:   append(make([]*segment, 0, len(g.segs)+8), g.segs...),
		firsts: append(make([]uint64, 0, len(g.firsts)+8), g.firsts...),
	}
}

// find is the last segment whose first key is not above key, or the first segment.
func (g *group) find(key []byte) int {
	p := prefix(key)
	lo, hi := 0, len(g.segs) // the answer is lo-1
	for lo < hi {
		m := int(uint(lo+hi) >> 1)
		if g.firsts[m] < p || g.firsts[m] == p && bytes.Compare(g.segs[m].firstKey(), key) <= 0 {
			lo = m + 1
		} else {
			hi = m
		}
	}
	return max(lo-1, 0)
}

func (g *group) insert(i int, s *segment) {
	g.segs = append(g.segs, nil)
	copy(g.segs[i+1:], g.segs[i:])
	g.segs[i] = s
	g.firsts = append(g.firsts, 0)
	copy(g.firsts[i+1:], g.firsts[i:])
	g.firsts[i] = prefix(s.firstKey())
}

func (g *group) remove(i int) {
	g.segs = append(g.segs[:i], g.segs[i+1:]...)
	g.firsts = append(g.firsts[:i], g.firsts[i+1:]...)
}

// findGroup is the last group whose first key is not above key, or the first group; 0 where there is none.
func findGroup(groups []*group, key []byte) int {
	p := prefix(key)
	lo, hi := 0, len(groups)
	for lo < hi {
		m := int(uint(lo+hi) >> 1)
		g := groups[m]
		if g.firsts[0] < p || g.firsts[0] == p && bytes.Compare(g.segs[0].firstKey(), key) <= 0 {
			lo = m + 1
		} else {
			hi = m
		}
	}
	return max(lo-1, 0)
}

// findSegment is the segment that key belongs to; nil where there is none at all.
func findSegment(groups []*group, key []byte) *segment {
	if len(groups) == 0 {
		return nil
	}
	g := groups[findGroup(groups, key)]
	return g.segs[g.find(key)]
}
