package web

import (
	"bytes"
	"container/heap"
	"iter"
	"slices"
	"sort"
	"strconv"
	"strings"
	"sync"

	"capture/internal/cgroup"
	"capture/snapshot"
	"capture/snapshot/rowjson"
)

// place is the place of a row in the order in which votes are listed: by time and, if the times are equal, by key, both
// descending. In a table without a time column all times are 0, so the order is that of the keys.
type place struct {
	time int64 // microseconds since 1970; noTime if the row has no time
	key  rowjson.Key
}

// isNewer reports whether p comes before q.
func (p place) isNewer(q place) bool {
	if p.time != q.time {
		return p.time > q.time
	}
	return bytes.Compare(p.key, q.key) > 0
}

// bytesPerTimedRow is the maximum memory in bytes that the order needs for each row.
const bytesPerTimedRow = 12

// maxTimedRows returns the maximum number of rows that are ordered by time: 5 million, or fewer if the order would otherwise
// take more than a sixteenth of the memory limit. Rows of larger tables are ordered by key.
var maxTimedRows = sync.OnceValue(func() int {
	return int(min(5_000_000, cgroup.MemoryLimit()/16/bytesPerTimedRow))
})

// timeOrder orders the rows of the current state by time. Its first use reads every row. Each later use reads only the Parts
// that have changed since the previous use. timeOrder keeps only times and indices. If it kept Parts or rows, old versions
// of the rows would stay in memory.
type timeOrder struct {
	mu     sync.Mutex
	shape  string                // fingerprint of the shape
	column int                   // index of the time column
	parts  map[uint64]*partTimes // times of each Part, by the Part's ID
}

// partTimes are the times of a Part's rows.
type partTimes struct {
	times []int64 // times of the rows, newest first; rows with equal times are in descending order of their keys
	rows  []int32 // for each element of times, the index of its row in the Part; nil if the times ascend with the keys
}

func (p *partTimes) row(i int) int {
	if p.rows == nil {
		return len(p.times) - 1 - i
	}
	return int(p.rows[i])
}

// timedPart is a Part with its times.
type timedPart struct {
	snapshot.Part
	*partTimes
}

// partsOf returns the Parts of a state with their times, in the order of the keys. It returns nil if the rows are not ordered
// by time.
func (o *timeOrder) partsOf(t tableView) ([]timedPart, error) {
	if t.time < 0 || t.Rows() > maxTimedRows() {
		return nil, nil
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.shape != t.shape.Fingerprint || o.column != t.time {
		o.shape, o.column, o.parts = t.shape.Fingerprint, t.time, nil
	}
	parts := make([]timedPart, 0, len(o.parts)+1)
	current := make(map[uint64]*partTimes, len(o.parts)+1)
	for part := range t.Parts() {
		times := o.parts[part.ID()]
		if times == nil {
			var err error
			if times, err = readTimes(part, t.columnRoles); err != nil {
				return nil, err
			}
		}
		current[part.ID()] = times
		parts = append(parts, timedPart{part, times})
	}
	o.parts = current
	return parts, nil
}

func readTimes(part snapshot.Part, c *columnRoles) (*partTimes, error) {
	rows, err := part.Read()
	if err != nil {
		return nil, err
	}
	n := rows.Len()
	ascending := make([]int64, n)
	for i := range ascending {
		ascending[i] = c.timeValue(rows.Row(i).Line)
	}
	p := &partTimes{times: make([]int64, n)}
	if !slices.IsSorted(ascending) {
		p.rows = make([]int32, n)
		for i := range p.rows {
			p.rows[i] = int32(n - 1 - i)
		}
		slices.SortStableFunc(p.rows, func(a, b int32) int {
			switch {
			case ascending[a] > ascending[b]:
				return -1
			case ascending[a] < ascending[b]:
				return 1
			}
			return 0
		})
	}
	for i := range p.times {
		p.times[i] = ascending[p.row(i)]
	}
	return p, nil
}

// newestFirst yields the rows that come after afterPlace, newest first, each with its place. If afterPlace is nil,
// newestFirst begins with the newest row. If rows cannot be read back from the spill file, it yields the error as the last
// pair.
func (o *timeOrder) newestFirst(t tableView, afterPlace *place) iter.Seq2[placedRow, error] {
	return func(yield func(placedRow, error) bool) {
		parts, err := o.partsOf(t)
		if err != nil {
			yield(placedRow{}, err)
			return
		}
		if parts == nil {
			var key rowjson.Key
			if afterPlace != nil {
				key = afterPlace.key
			}
			for row, err := range t.Before(key) {
				if !yield(placedRow{row, place{key: row.Key}}, err) || err != nil {
					return
				}
			}
			return
		}
		m, err := newTimeMerge(parts, afterPlace)
		if err != nil {
			yield(placedRow{}, err)
			return
		}
		for m.Len() > 0 {
			row, err := m.next()
			if !yield(row, err) || err != nil {
				return
			}
		}
	}
}

// placedRow is a row with its place.
type placedRow struct {
	snapshot.Row
	place place
}

// timeMerge merges the rows of Parts, newest first. It is a heap of the Parts that have unread rows, ordered by each Part's
// newest unread row.
type timeMerge struct {
	parts []timedPart
	heads []timeHead

	open     snapshot.PartRows // rows of the Part that was read last; the next row is likely to be in the same Part
	openPart int               // index of the Part that was read last; -1 if none was read
}

// timeHead is the newest unread row of a Part.
type timeHead struct {
	time int64
	part int // index of the Part; keys of a Part with a higher index are higher
	at   int // index of the row in partTimes
}

func newTimeMerge(parts []timedPart, after *place) (*timeMerge, error) {
	m := &timeMerge{parts: parts, openPart: -1}
	withKey := -1 // index of the Part that contains after.key, or would contain it
	if after != nil {
		withKey = sort.Search(len(parts), func(i int) bool { return bytes.Compare(parts[i].FirstKey(), after.key) > 0 }) - 1
	}
	for i := range parts {
		at := 0
		if times := parts[i].times; after != nil {
			// A row whose time equals after.time is next only if its key is lower than after.key.
			at = sort.Search(len(times), func(j int) bool { return times[j] <= after.time })
			switch {
			case i > withKey:
				at += sort.Search(len(times)-at, func(j int) bool { return times[at+j] < after.time })
			case i == withKey:
				for ; at < len(times) && times[at] == after.time; at++ {
					row, err := m.readRow(i, at)
					if err != nil {
						return nil, err
					}
					if bytes.Compare(row.Key, after.key) < 0 {
						break
					}
				}
			}
		}
		if at < len(parts[i].times) {
			m.heads = append(m.heads, timeHead{parts[i].times[at], i, at})
		}
	}
	heap.Init(m)
	return m, nil
}

// next returns the newest unread row.
func (m *timeMerge) next() (placedRow, error) {
	head := &m.heads[0]
	row, err := m.readRow(head.part, head.at)
	placed := placedRow{row, place{head.time, row.Key}}
	if head.at++; head.at < len(m.parts[head.part].times) {
		head.time = m.parts[head.part].times[head.at]
		heap.Fix(m, 0)
	} else {
		heap.Pop(m)
	}
	return placed, err
}

// readRow returns a row of the Part with the index part. rowIndex is the row's index in the Part's partTimes.
func (m *timeMerge) readRow(part, rowIndex int) (snapshot.Row, error) {
	if part != m.openPart {
		rows, err := m.parts[part].Read()
		if err != nil {
			return snapshot.Row{}, err
		}
		m.open, m.openPart = rows, part
	}
	return m.open.Row(m.parts[part].row(rowIndex)), nil
}

func (m *timeMerge) Len() int { return len(m.heads) }
func (m *timeMerge) Less(i, j int) bool {
	if a, b := m.heads[i].time, m.heads[j].time; a != b {
		return a > b
	}
	return m.heads[i].part > m.heads[j].part
}
func (m *timeMerge) Swap(i, j int) { m.heads[i], m.heads[j] = m.heads[j], m.heads[i] }
func (m *timeMerge) Push(x any)    { m.heads = append(m.heads, x.(timeHead)) }
func (m *timeMerge) Pop() any {
	last := m.heads[len(m.heads)-1]
	m.heads = m.heads[:len(m.heads)-1]
	return last
}

// placePrefix is the start of a place's text in a table that is ordered by time.
const placePrefix = "t"

// placeText returns a place as the API prints it: t1750179480000000:42 with the microseconds since 1970 and the key, or 42
// alone if the table is not ordered by time.
func (t tableView) placeText(p place) string {
	key := keyText(t.shape, p.key)
	if !t.isOrderedByTime() {
		return key
	}
	return placePrefix + strconv.FormatInt(p.time, 10) + ":" + key
}

// isOrderedByTime reports whether the votes are ordered by time. Otherwise they are ordered by key.
func (t tableView) isOrderedByTime() bool { return t.time >= 0 && t.Rows() <= maxTimedRows() }

// parsePlace is the inverse of placeText. If the table is ordered by time, it also accepts just the key of a row.
func (t tableView) parsePlace(text string) (*place, bool) {
	// Accept a time even if the table has, in the meantime, become too large to be ordered by time.
	if rest, ok := strings.CutPrefix(text, placePrefix); ok && t.time >= 0 {
		if micros, keyOf, ok := strings.Cut(rest, ":"); ok {
			if n, err := strconv.ParseInt(micros, 10, 64); err == nil {
				key, ok := t.parseKey(keyOf)
				return &place{n, key}, ok
			}
		}
	}
	key, ok := t.parseKey(text)
	if !ok || !t.isOrderedByTime() {
		return &place{key: key}, ok
	}
	line, err := t.Get(key)
	if err != nil || line == nil {
		return nil, false
	}
	return &place{t.timeValue(line), key}, true
}
