package placement

// Next places the parts of the table's next state. It keeps as many of them as possible in their regions in l. It returns nil
// if the file should be written whole: if more than half of it would change, or if more than about a fifth would be padding.
// patchFrom is the smallest size in bytes of a file that is patched. For files that are only a little larger than patchFrom,
// both limits are less strict.
func (l *Layout) Next(parts []Part, patchFrom int64) *Layout {
	if len(l.Regions) == 0 || len(parts) == 0 {
		return nil
	}
	m := newMatch(l.Regions, parts)
	next := &Layout{Regions: make([]Region, 0, len(parts)+1)}
	next.Regions = append(next.Regions, l.Regions[:m.head]...)
	budget := max(l.Bytes/2, 2*patchFrom) // number of bytes that may still be rewritten
	for region, part := m.head, m.head; part < len(parts) || region < len(l.Regions); {
		if m.keepsRegion(region, part) {
			next.Regions = append(next.Regions, l.Regions[region])
			region, part = region+1, part+1
			continue
		}
		run, ok := m.rewriteRun(region, part, budget)
		if !ok {
			return nil
		}
		budget -= run.need
		switch {
		case run.endRegion < len(l.Regions):
			next.placeWithin(parts[part:run.endPart], run.room)
		case run.endPart == part: // the last parts were deleted, so the part before them loses its comma
			next.Regions = next.Regions[:len(next.Regions)-1]
			next.placeTail(parts[part-1:], FillFactor97)
		default:
			next.placeTail(parts[part:], FillFactor97)
		}
		region, part = run.endRegion, run.endPart
	}
	next.Bytes = next.regionsEnd() + int64(len(closing))
	if unpadded := unpaddedBytes(parts); next.Bytes > unpadded+unpadded/4+patchFrom/4 {
		return nil
	}
	return next
}

// unpaddedBytes returns the length of a file that has these parts and no padding.
func unpaddedBytes(parts []Part) int64 {
	n := int64(len(opening)) - 1 + int64(len(closing))
	for _, p := range parts {
		n += p.Bytes
	}
	return n
}

// match compares the regions of a layout with the parts of the next state. It pairs each unchanged part with its region.
// Regions and parts are in key order.
type match struct {
	regions []Region
	parts   []Part
	head    int            // number of unchanged pairs at the start; the file's last region is never among them
	tail    int            // number of unchanged pairs at the end
	between map[uint64]int // index of each region between head and tail, by the ID of its Part
}

func newMatch(regions []Region, parts []Part) *match {
	m := &match{regions: regions, parts: parts}
	shorter := min(len(regions), len(parts))
	for m.head < shorter-1 && regions[m.head].PartID == parts[m.head].ID {
		m.head++
	}
	for m.tail < shorter-m.head && regions[len(regions)-1-m.tail].PartID == parts[len(parts)-1-m.tail].ID {
		m.tail++
	}
	between := regions[m.head : len(regions)-m.tail]
	m.between = make(map[uint64]int, len(between))
	for i, r := range between {
		m.between[r.PartID] = m.head + i
	}
	return m
}

// regionOf returns the index of the region that a part may keep, and reports whether there is one. The file's last region can
// only be kept as the last region, because its last row has no comma.
func (m *match) regionOf(part int) (region int, ok bool) {
	if left := len(m.parts) - part; left <= m.tail {
		return len(m.regions) - left, true
	}
	region, ok = m.between[m.parts[part].ID]
	return region, ok && part != len(m.parts)-1 && region != len(m.regions)-1
}

// keepsRegion reports whether the part keeps the region. region and part are indexes.
func (m *match) keepsRegion(region, part int) bool {
	if region == len(m.regions) || part == len(m.parts) {
		return false
	}
	own, ok := m.regionOf(part)
	return ok && own == region
}

// run is a sequence of neighboring regions that are rewritten, and the parts that are placed there. It begins at the region
// and the part that are passed to rewriteRun.
type run struct {
	endRegion, endPart int   // indexes of the first region and the first part after the run
	room               int64 // total length of the run's regions in bytes
	need               int64 // total length of the run's parts in bytes, without padding
}

// rewriteRun returns the shortest run that begins at region and part and whose parts fit into its regions. If there is no
// such run, rewriteRun returns the run that ends at the end of the file. rewriteRun reports false if the parts of the run
// have more than budget bytes. In this example, the numbers are lengths:
//
//	regions   │ 7  ␣│ 9      ␣│ 4  ␣␣␣␣│ 8 │      The part of 9 has grown to 11, too long for its region.
//	parts       7     11        4        8        With the padding of the next region, both parts fit:
//
//	next      │ 7  ␣│ 11         ␣│ 4 ␣│ 8 │      the run is the regions of 9 and 4, and the parts of 11 and 4
func (m *match) rewriteRun(region, part int, budget int64) (run, bool) {
	r := run{endRegion: region, endPart: part}
	for {
		// Find the next part that keeps its region. Add all parts before it to the run, and all regions before its region.
		kept := len(m.regions)
		for ; r.endPart < len(m.parts); r.endPart++ {
			if own, ok := m.regionOf(r.endPart); ok && own >= r.endRegion {
				kept = own
				break
			}
			r.need += m.parts[r.endPart].Bytes
		}
		for ; r.endRegion < kept; r.endRegion++ {
			r.room += m.regions[r.endRegion].Size
		}
		switch {
		case r.need > budget:
			return run{}, false
		case r.endRegion == len(m.regions) && r.endPart == len(m.parts):
			return r, true
		case r.endPart > part && r.need+r.minPadding(region) <= r.room:
			return r, true
		}
		// The parts do not fit, so add the next region and its part. All parts of the run can take the padding of this region.
		r.need += m.parts[r.endPart].Bytes
		r.room += m.regions[r.endRegion].Size
		r.endPart, r.endRegion = r.endPart+1, r.endRegion+1
	}
}

// minPadding returns the number of bytes of padding that a run of several regions must keep. Without this minimum, the next row
// that grows would force all these regions to be rewritten again.
func (r *run) minPadding(region int) int64 {
	if r.endRegion-region == 1 {
		return 0
	}
	return r.need / (4 * paddingDivisor)
}
