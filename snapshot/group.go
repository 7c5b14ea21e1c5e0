package snapshot

import (
	"bytes"
	"encoding/binary"
)

// group is an inner node of the tree. It has at least one leaf, and its leaves are consecutive.
type group struct {
	epoch    uint64 // epoch in which the tree may change the group in place
	leaves   []*leaf
	prefixes []uint64 // keyPrefix of each leaf's first key
}

// keyPrefix returns the first eight bytes of a key as a number. These numbers sort like the keys. Most comparisons in a search
// need only the numbers, which are adjacent in memory.
func keyPrefix(key []byte) uint64 {
	if len(key) >= 8 {
		return binary.BigEndian.Uint64(key)
	}
	var b [8]byte
	copy(b[:], key)
	return binary.BigEndian.Uint64(b[:])
}

func (g *group) clone(epoch uint64) *group {
	return &group{
		epoch:    epoch,
		leaves:   append(make([]*leaf, 0, len(g.leaves)+8), g.leaves...),
		prefixes: append(make([]uint64, 0, len(g.prefixes)+8), g.prefixes...),
	}
}

// findLeaf returns the index of the last leaf whose first key is less than or equal to key. If there is no such leaf, it
// returns 0.
func (g *group) findLeaf(key []byte) int {
	prefix := keyPrefix(key)
	lo, hi := 0, len(g.leaves) // the result is lo-1
	for lo < hi {
		m := int(uint(lo+hi) >> 1)
		if g.prefixes[m] < prefix || g.prefixes[m] == prefix && bytes.Compare(g.leaves[m].firstKey(), key) <= 0 {
			lo = m + 1
		} else {
			hi = m
		}
	}
	return max(lo-1, 0)
}

func (g *group) insertLeaf(i int, l *leaf) {
	g.leaves = append(g.leaves, nil)
	copy(g.leaves[i+1:], g.leaves[i:])
	g.leaves[i] = l
	g.prefixes = append(g.prefixes, 0)
	copy(g.prefixes[i+1:], g.prefixes[i:])
	g.prefixes[i] = keyPrefix(l.firstKey())
}

func (g *group) removeLeaf(i int) {
	g.leaves = append(g.leaves[:i], g.leaves[i+1:]...)
	g.prefixes = append(g.prefixes[:i], g.prefixes[i+1:]...)
}

// findGroup returns the index of the last group whose first key is less than or equal to key. If there is no such group, it
// returns 0.
func findGroup(groups []*group, key []byte) int {
	prefix := keyPrefix(key)
	lo, hi := 0, len(groups)
	for lo < hi {
		m := int(uint(lo+hi) >> 1)
		g := groups[m]
		if g.prefixes[0] < prefix || g.prefixes[0] == prefix && bytes.Compare(g.leaves[0].firstKey(), key) <= 0 {
			lo = m + 1
		} else {
			hi = m
		}
	}
	return max(lo-1, 0)
}

// findLeaf returns the leaf whose range of keys contains key, or nil if there are no groups.
func findLeaf(groups []*group, key []byte) *leaf {
	if len(groups) == 0 {
		return nil
	}
	g := groups[findGroup(groups, key)]
	return g.leaves[g.findLeaf(key)]
}
