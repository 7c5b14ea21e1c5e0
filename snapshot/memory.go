package snapshot

import (
	"errors"
	"fmt"
	"runtime/metrics"
	"sync/atomic"
	"time"
	"weak"

	"capture/snapshot/spill"
)

// ErrNoRoom is that rows which do not fit into memory could not be written out.
var ErrNoRoom = errors.New("write rows that do not fit into memory")

// Usage is how a Table with a limit of memory keeps to it.
type Usage struct {
	Limit    int64 // bytes of rows that may be in memory
	Resident int64 // bytes of rows in memory
	Spilled  int64 // bytes in use of the file for rows that are not in memory
	Err      error // why rows could not be written out, so that more of them are in memory than should be; nil where all is well
}

// memory is how a Table keeps to a limit of memory. All but usage belongs to the writer.
type memory struct {
	limitBytes int64
	folder     string
	damaged    func(error)
	file       *spill.File // nil until it is needed
	scratch    []byte
	suspect    bool  // part of the working state may be in a spill file that was damaged
	resident   int64 // weight of all content of the working state that is in memory
	group      int   // where the clock's hand stands
	segment    int

	old     []oldContent // content in memory that only Views refer to, or nobody any more
	oldSize int64        // of those
	oldMost int          // so many of them, and those are sought that are gone
	scanned uint64       // the collection at which old was looked through

	trouble error     // why the last content could not be written out
	retry   time.Time // not before

	usage atomic.Pointer[Usage]
}

// oldContent is a segment that is no longer in the working state.
type oldContent struct {
	s      weak.Pointer[segment]
	weight int64
	gc     uint64 // collections by then
}

const (
	segmentWeight = 400         // bytes that a segment takes in memory besides its content, about
	overShare     = 4           // where nothing can be written out, a share of the limit like this is used beyond it, and no more
	writeOutPause = time.Second // after content could not be written out
	leastOld      = 1024        // below this number, what is old is not looked through for what is gone
)

// LimitMemory bounds how many bytes of rows a Table keeps in memory. The Table must be empty. Rows beyond the limit are in a file
// in folder alone, and read back when they are needed: by the writer to change them, by readers of a View for the moment.
//
// damaged is called, from any goroutine and once for each such file, when the file does not give back what was written to it. The
// next Load then stores all rows again, in a new file. It may be nil.
func (t *Table) LimitMemory(bytes int64, folder string, damaged func(error)) {
	t.memory = &memory{limitBytes: bytes, folder: folder, damaged: damaged}
	t.memory.usage.Store(&Usage{})
}

// Usage may be called from any goroutine. It is zero for a Table without bounds.
func (t *Table) Usage() Usage {
	if t.memory == nil {
		return Usage{}
	}
	return *t.memory.usage.Load()
}

// weight is what the content takes in memory.
func (b *body) weight() int64 {
	const entrySize, fixed = 16, 128
	return int64(allocated(cap(b.buf)) + cap(b.past) + cap(b.keys) + entrySize*cap(b.rows) + fixed)
}

// bring is the content of s, in memory from now on; nil, and an error of the open transaction, where it can't be read
// back.
func (t *Table) bring(s *segment) *body {
	b := s.content.Load()
	if b == nil {
		var err error
		if b, err = s.read(); err != nil {
			t.fail(err)
			return nil
		}
		s.content.Store(b)
		t.memory.resident += b.weight()
	}
	b.used = true
	return b
}

// fail makes the open transaction fail at its Commit.
func (t *Table) fail(err error) {
	if t.err == nil {
		t.err = err
	}
}

// came, grew and leave account for content of the working state.
func (t *Table) came(s *segment) { t.grew(t.weight(s)) }

func (t *Table) weight(s *segment) int64 {
	if t.memory == nil {
		return 0
	}
	if b := s.content.Load(); b != nil {
		return b.weight()
	}
	return 0
}

func (t *Table) grew(n int64) {
	if t.memory != nil {
		t.memory.resident += n
	}
}

// leave takes s out of the working state. A View may go on showing it.
func (t *Table) leave(s *segment) {
	m := t.memory
	if m == nil {
		return
	}
	b := s.content.Load()
	if b == nil {
		return
	}
	m.resident -= b.weight()
	switch {
	case s.epoch == t.epoch: // no View has it
	case s.out != nil && s.out.Damaged(): // better kept
	case s.out != nil:
		s.content.Store(nil)
	default:
		o := oldContent{weak.Make(s), b.weight(), collections()}
		if t.direct {
			o.gc = 0 // the state before this transaction has it for certain
		}
		if len(m.old) >= m.oldMost {
			m.forgetOld()
		}
		m.old, m.oldSize = append(m.old, o), m.oldSize+o.weight
	}
}

// forgetOld takes out of old what nobody refers to any more, or is not in memory, and weighs the rest anew.
func (m *memory) forgetOld() {
	kept := m.old[:0]
	m.oldSize = 0
	for _, o := range m.old {
		if s := o.s.Value(); s != nil {
			if b := s.content.Load(); b != nil {
				o.weight = b.weight()
				kept, m.oldSize = append(kept, o), m.oldSize+o.weight
			}
		}
	}
	clear(m.old[len(kept):])
	m.old, m.oldMost = kept, 2*len(kept)+leastOld
}

// clear takes all rows out of the working state.
func (t *Table) clear() {
	if t.memory != nil {
		for _, g := range t.groups {
			for _, s := range g.segs {
				t.leave(s)
			}
		}
		t.memory.resident = 0
	}
	t.groups, t.rows, t.live = nil, 0, 0
}

// distrust says whether rows that are there may not be readable. Then another spill file is begun.
func (t *Table) distrust() bool {
	m := t.memory
	if m == nil {
		return false
	}
	if m.file != nil && m.file.Damaged() {
		m.file, m.suspect = nil, true
	}
	return m.suspect
}

// recount weighs the working state anew, after another has taken its place.
func (t *Table) recount() {
	m := t.memory
	if m == nil {
		return
	}
	m.resident, m.old, m.oldSize = 0, nil, 0
	for _, g := range t.groups {
		for _, s := range g.segs {
			t.came(s)
		}
	}
}

// limit is how much content may be in memory. What the segments take besides is there in any case.
func (t *Table) limit() int64 {
	m := t.memory
	return max(m.limitBytes-t.live/int64(t.segmentBytes)*segmentWeight, m.limitBytes/8)
}

// relieve writes content out until the rest keeps to the limit. Where that fails, somewhat more is kept in memory; where
// that is used up, too, the open transaction fails.
//
// It is called between the changes of a transaction that is applied as it comes, and between transactions.
func (t *Table) relieve() {
	m := t.memory
	if m == nil {
		return
	}
	limit := t.limit()
	if m.resident <= limit && m.oldSize <= limit/8 {
		m.trouble = nil
		return
	}
	if m.trouble == nil || !time.Now().Before(m.retry) {
		if m.trouble = t.writeOut(limit); m.trouble != nil {
			m.trouble = fmt.Errorf("%w to a file in %s: %w; free some space there, or allow more memory", ErrNoRoom, m.folder, m.trouble)
			m.retry = time.Now().Add(writeOutPause)
		}
	}
	if m.trouble != nil && m.resident+m.oldSize > limit+limit/overShare {
		t.fail(m.trouble)
	}
	t.report()
}

// report tells Usage.
func (t *Table) report() {
	m := t.memory
	if m == nil {
		return
	}
	u := Usage{Limit: t.limit(), Resident: m.resident, Err: m.trouble}
	if m.file != nil {
		u.Spilled = m.file.Size()
	}
	if *m.usage.Load() != u {
		m.usage.Store(&u)
	}
}

func (t *Table) writeOut(limit int64) error {
	m := t.memory
	if m.file == nil {
		h, err := spill.Open(m.folder, m.damaged)
		if err != nil {
			return err
		}
		m.file = h
	}
	if m.oldSize > limit/8 {
		if err := m.writeOld(limit / 8); err != nil {
			return err
		}
	}
	for m.resident > limit {
		s, b := t.victim()
		if s == nil {
			return nil
		}
		if err := m.evict(s, b); err != nil {
			return err
		}
		m.resident -= b.weight()
	}
	return nil
}

// victim is the next content that was not used since the clock's hand last came by; nil where there is none.
func (t *Table) victim() (*segment, *body) {
	m := t.memory
	for rounds := 0; rounds < 3; {
		if m.group >= len(t.groups) {
			m.group, m.segment = 0, 0
			rounds++
			continue
		}
		g := t.groups[m.group]
		if m.segment >= len(g.segs) {
			m.group, m.segment = m.group+1, 0
			continue
		}
		s := g.segs[m.segment]
		m.segment++
		if b := s.content.Load(); b != nil {
			if !b.used {
				return s, b
			}
			b.used = false
		}
	}
	return nil, nil
}

// evict takes the content of s out of memory, once it is in the spill file.
func (m *memory) evict(s *segment, b *body) error {
	if s.out == nil {
		m.scratch = appendBody(m.scratch[:0], b)
		e, err := m.file.Write(m.scratch, b.live)
		if cap(m.scratch) > 1<<20 {
			m.scratch = nil // do not keep the memory of one huge row
		}
		if err != nil {
			return err
		}
		s.out, s.first = e, append([]byte(nil), b.key(0)...)
		s.epoch = 0 // it is nobody's any more: a change makes a copy
	}
	s.content.Store(nil)
	return nil
}

// writeOld writes out what only Views refer to, until so many bytes at most are left. Most of what has left the working
// state nobody refers to any more, which the collector has to say first.
func (m *memory) writeOld(most int64) error {
	now := collections()
	if now == m.scanned && m.old[len(m.old)-1].gc != 0 {
		return nil
	}
	m.scanned = now
	m.forgetOld()
	for _, o := range m.old {
		if m.oldSize <= most {
			break
		}
		s := o.s.Value()
		if s == nil || o.gc+2 > now {
			continue
		}
		if b := s.content.Load(); b != nil {
			if err := m.evict(s, b); err != nil {
				return err
			}
			m.oldSize -= o.weight
		}
	}
	return nil
}

// collections counts how often the collector has run.
func collections() uint64 {
	sample := []metrics.Sample{{Name: "/gc/cycles/total:gc-cycles"}}
	metrics.Read(sample)
	return sample[0].Value.Uint64() + 3 // so that 0 stands for long ago
}

// ready brings into memory what the held transaction is about to change, so that nothing can fail while it is applied.
// Where that is much, the transaction is applied as a large one, which can be undone.
func (t *Table) ready() {
	m := t.memory
	if t.direct || m.file == nil || len(t.groups) == 0 || len(t.held.ops) == 0 || t.held.ops[0].kind == opTruncate {
		return
	}
	most := m.resident + t.limit()/overShare
	for i := range t.held.ops {
		o := &t.held.ops[i]
		gi := findGroup(t.groups, t.held.data[o.koff:o.koff+o.k])
		si := t.groups[gi].find(t.held.data[o.koff : o.koff+o.k])
		s := t.groups[gi].segs[si]
		if t.bring(s) == nil {
			return
		}
		// A segment that goes leaves its keys to one beside it.
		if o.kind == opDelete && s.n <= len(t.held.ops) {
			for _, s := range t.beside(gi, si) {
				if t.bring(s) == nil {
					return
				}
			}
		}
		if m.resident > most {
			t.goDirect()
			return
		}
	}
}

// beside are the segments before and behind.
func (t *Table) beside(gi, si int) (list []*segment) {
	if g := t.groups[gi]; si > 0 {
		list = append(list, g.segs[si-1])
	} else if gi > 0 {
		before := t.groups[gi-1].segs
		list = append(list, before[len(before)-1])
	}
	if g := t.groups[gi]; si+1 < len(g.segs) {
		list = append(list, g.segs[si+1])
	} else if gi+1 < len(t.groups) {
		list = append(list, t.groups[gi+1].segs[0])
	}
	return list
}
