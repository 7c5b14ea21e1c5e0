package spill

// allocator assigns the blocks of a file. A bitmap records which blocks are in use. Each search for free blocks begins after
// the blocks that were allocated last (next fit). The zero value describes an empty file.
type allocator struct {
	used  []uint64 // bitmap of the blocks in use, one bit per block
	total int      // number of blocks in the file
	inUse int

	nextFit int // block at which the next search begins
	// skipUntilFreed is the number of blocks that must be freed before the next search. It is above 0 after a search that has
	// found nothing. Otherwise every allocation would search a full or fragmented file.
	skipUntilFreed int
}

// run is a sequence of consecutive blocks.
type run struct{ first, count int }

// alloc allocates count consecutive blocks and returns the number of the first block. If it finds no such run of free blocks,
// it extends the file.
func (a *allocator) alloc(count int) (first int) {
	first = -1
	if free := a.total - a.inUse; free >= count && a.skipUntilFreed <= 0 {
		if first = a.findRun(count); first < 0 {
			a.skipUntilFreed = max(free/8, count)
		}
	}
	if first < 0 {
		first = a.total
		a.total += count
		for len(a.used)*64 < a.total {
			a.used = append(a.used, 0)
		}
	}
	for i := first; i < first+count; i++ {
		a.used[i/64] |= 1 << (i % 64)
	}
	a.inUse += count
	a.nextFit = first + count
	return first
}

// findRun returns the first block of the next run of count free blocks, or -1 if there is no such run. The search starts at
// nextFit and wraps around.
func (a *allocator) findRun(count int) int {
	for _, part := range [2]struct{ from, to int }{{a.nextFit, a.total}, {0, min(a.nextFit+count, a.total)}} {
		free := 0
		for i := part.from; i < part.to; i++ {
			switch word := a.used[i/64]; {
			case word == ^uint64(0) && i%64 == 0:
				free, i = 0, i+63
			case word>>(i%64)&1 != 0:
				free = 0
			default:
				if free++; free == count {
					return i - count + 1
				}
			}
		}
	}
	return -1
}

func (a *allocator) free(r run) {
	for i := r.first; i < r.first+r.count; i++ {
		a.used[i/64] &^= 1 << (i % 64)
	}
	a.inUse -= r.count
	a.skipUntilFreed -= r.count
}

// isSparse reports whether more than a quarter of the file is free.
func (a *allocator) isSparse() bool { return (a.total-a.inUse)*4 > a.total }
