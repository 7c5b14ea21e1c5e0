package capture

import (
	"bytes"
	"fmt"
	"slices"
	"sync/atomic"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/jackc/pglogrepl"

	"capture/internal/postgres"
	"capture/snapshot"
	"capture/snapshot/rowjson"
)

// stream applies pgoutput messages to a Table.
type stream struct {
	table *snapshot.Table
	tab   *postgres.Table
	enc   *rowjson.Encoder
	gen   *serverShape // for columns that the stream leaves out; nil where there are none
	onTx  func(*txn)

	columns []int // where each column of the published table lies in the shape; nil before its Relation message
	new     [][]byte
	old     [][]byte
	key     []byte
	oldKey  []byte
	line    []byte
	in      bool // between Begin and Commit
	tx      txn

	// Rows whose key another row took within the transaction, before they moved on (a deferrable key under replica
	// identity FULL): key → lines. Empty again at the commit.
	displaced map[string][][]byte
}

// txn is what one transaction did to the table.
type txn struct {
	LSN                                  pglogrepl.LSN // of its end
	CommitTime                           time.Time
	Inserts, Updates, Deletes, Truncates int
	keys                                 []byte // of the first rows
	ends                                 []int  // of each in keys
}

// loggedKeys is how many keys of a transaction a log line names.
const loggedKeys = 10

func (x *txn) reset() { *x = txn{keys: x.keys[:0], ends: x.ends[:0]} }

func (x *txn) changes() int { return x.Inserts + x.Updates + x.Deletes + x.Truncates }

func (x *txn) noteKey(key []byte) {
	if len(x.ends) < loggedKeys {
		x.keys = append(x.keys, key...)
		x.ends = append(x.ends, len(x.keys))
	}
}

func (x *txn) keyStrings(s *rowjson.Shape) []string {
	out, from := make([]string, len(x.ends)), 0
	for i, end := range x.ends {
		out[i] = s.KeyString(x.keys[from:end])
		from = end
	}
	return out
}

func newStream(t *snapshot.Table, tab *postgres.Table, enc *rowjson.Encoder, gen *serverShape, onTx func(*txn)) *stream {
	s := &stream{
		table: t, tab: tab, enc: enc, onTx: onTx,
		new: make([][]byte, len(tab.Columns)), old: make([][]byte, len(tab.Columns)),
	}
	if gen != nil && len(gen.missing) > 0 {
		s.gen = gen
	}
	return s
}

// handle applies one message. Kinds that carry no row of the table are passed over.
func (s *stream) handle(msg []byte) error {
	r := &reader{b: msg}
	var err error
	switch kind := r.byte(); kind {
	case 'B':
		if s.in {
			return errOrder
		}
		s.in = true
		s.tx.reset()
	case 'C':
		if !s.in {
			return errOrder
		}
		r.byte()   // flags
		r.uint64() // LSN of the commit
		s.tx.LSN, s.tx.CommitTime = pglogrepl.LSN(r.uint64()), serverTime(r.uint64())
		if err = r.end(); err == nil {
			err = s.commit()
		}
	case 'R':
		rel := r.relation()
		if err = r.end(); err == nil {
			err = s.relation(&rel)
		}
	case 'I', 'U', 'D':
		if oid := r.uint32(); r.cut {
			err = errCut
		} else if oid == s.tab.OID {
			err = s.change(kind, r)
		}
	case 'T':
		err = s.truncate(r)
	}
	return err
}

func (s *stream) commit() error {
	s.in = false
	if len(s.displaced) > 0 {
		return &anewError{why: "rows with one key at the end of a transaction"}
	}
	if s.tx.changes() == 0 {
		s.table.Advance(snapshot.Position{LSN: s.tx.LSN, CommitTime: s.tx.CommitTime})
		return nil
	}
	if err := s.table.Commit(snapshot.Position{LSN: s.tx.LSN, CommitTime: s.tx.CommitTime}); err != nil {
		return fmt.Errorf("commit to memory: %w", err)
	}
	s.onTx(&s.tx)
	return nil
}

// relation checks that what is published is what was copied.
func (s *stream) relation(rel *relation) error {
	if rel.oid != s.tab.OID {
		if rel.schema == s.tab.Schema && rel.table == s.tab.Table {
			return &anewError{why: fmt.Sprintf("another table is called %s now", s.tab.Name())}
		}
		return nil
	}
	if rel.schema != s.tab.Schema || rel.table != s.tab.Table {
		return &anewError{why: fmt.Sprintf("table %s was renamed", s.tab.Name())}
	}
	var columns []int
	for i, c := range s.tab.Columns {
		if !c.Published {
			continue
		}
		if n := len(columns); n < len(rel.columns) {
			if p := rel.columns[n]; p.name == c.Name && p.typ == c.TypeOID && p.typmod == c.Typmod {
				columns = append(columns, i)
				continue
			}
		}
		return &anewError{why: fmt.Sprintf("the columns of table %s changed", s.tab.Name())}
	}
	if len(columns) != len(rel.columns) {
		return &anewError{why: fmt.Sprintf("the columns of table %s changed", s.tab.Name())}
	}
	s.columns = columns
	return nil
}

// errUnknownRow is that the Table is not what the stream goes on from.
var errUnknownRow = &anewError{why: "the stream changes a row that is not known", again: true}

// change applies an Insert, Update or Delete message.
func (s *stream) change(kind byte, r *reader) error {
	if !s.in {
		return errOrder
	}
	if s.columns == nil {
		return fmt.Errorf("a change of table %s came before its description", s.tab.Name())
	}
	had := false // an old tuple: of the key alone ('K'), or whole ('O')
	whole := false
	part := r.byte()
	if part == 'K' || part == 'O' {
		had, whole = true, part == 'O'
		if err := r.tuple(s.columns, s.old); err != nil {
			return fmt.Errorf("read a change of table %s: %w", s.tab.Name(), err)
		}
		if kind == 'U' {
			part = r.byte()
		}
	}
	if kind != 'D' {
		if part != 'N' {
			return fmt.Errorf("read a change of table %s: no new row in it", s.tab.Name())
		}
		if err := r.tuple(s.columns, s.new); err != nil {
			return fmt.Errorf("read a change of table %s: %w", s.tab.Name(), err)
		}
	} else if !had {
		return fmt.Errorf("read a change of table %s: a deletion does not say of what", s.tab.Name())
	}
	if err := r.end(); err != nil {
		return fmt.Errorf("read a change of table %s: %w", s.tab.Name(), err)
	}
	if err := s.apply(kind, had, whole); err != nil {
		return fmt.Errorf("apply a change of table %s: %w", s.tab.Name(), err)
	}
	return nil
}

func (s *stream) apply(kind byte, had, whole bool) (err error) {
	if had {
		if s.oldKey, err = s.enc.AppendKey(s.oldKey[:0], s.old); err != nil {
			return err
		}
	}
	if kind == 'D' {
		s.tx.Deletes++
		s.tx.noteKey(s.oldKey)
		if left, err := s.leave(whole); left || err != nil {
			return err
		}
		if line, err := s.table.Get(s.oldKey); err != nil {
			return err
		} else if line == nil {
			return errUnknownRow
		}
		s.table.Delete(s.oldKey)
		return nil
	}
	if had {
		s.complete(whole)
	}
	if s.key, err = s.enc.AppendKey(s.key[:0], s.new); err != nil {
		return err
	}
	s.tx.noteKey(s.key)
	if kind == 'I' {
		s.tx.Inserts++
	} else {
		s.tx.Updates++
	}
	moved := had && !bytes.Equal(s.oldKey, s.key)
	left := false
	if moved {
		if left, err = s.leave(whole); err != nil {
			return err
		}
	}
	var old []byte
	if kind == 'U' {
		key := s.key
		if moved {
			key = s.oldKey
		}
		if old, err = s.table.Get(key); err != nil {
			return err
		}
	}
	if kind == 'U' && old == nil && !left {
		return errUnknownRow
	}
	if err := s.encode(old); err != nil {
		return err
	}
	if moved && !left {
		s.table.Delete(s.oldKey)
	}
	if moved || kind == 'I' {
		if err := s.displace(); err != nil {
			return err
		}
	}
	s.table.Put(s.key, s.line)
	return nil
}

// complete takes from the old tuple what the new one leaves out: a long key that the update did not touch, and under
// replica identity FULL any long value.
func (s *stream) complete(whole bool) {
	for i := range s.new {
		if isUnchanged(s.new[i]) && (whole || slices.Contains(s.tab.Key, i)) && !isUnchanged(s.old[i]) {
			s.new[i] = s.old[i]
		}
	}
}

func isUnchanged(v []byte) bool { return len(v) > 0 && &v[0] == &rowjson.Unchanged[0] }

// encode writes the new row's line; old is the row's line before, where it is known.
func (s *stream) encode(old []byte) (err error) {
	if s.gen != nil {
		for _, i := range s.gen.missing {
			s.new[i] = nil
		}
	}
	if old == nil {
		for i := range s.new {
			if isUnchanged(s.new[i]) {
				return &anewError{why: "an update left values out of a row that is not known"}
			}
		}
	}
	if s.line, err = s.enc.AppendRow(s.line[:0], s.new, old); err != nil || s.gen == nil {
		return err
	}
	values, err := s.gen.generate(s.enc, s.new, s.line)
	if err != nil {
		return err
	}
	for i, c := range s.gen.missing {
		s.new[c] = values[i]
	}
	s.line, err = s.enc.AppendRow(s.line[:0], s.new, old)
	return err
}

// displace sets a row aside whose key the new one takes: it can only be on its way to another key.
func (s *stream) displace() error {
	if s.tab.KeyImmediate {
		return nil
	}
	line, err := s.table.Get(s.key)
	if line != nil {
		if s.displaced == nil {
			s.displaced = map[string][][]byte{}
		}
		s.displaced[string(s.key)] = append(s.displaced[string(s.key)], bytes.Clone(line))
	}
	return err
}

// leave takes the row that the old tuple describes from those set aside, and says whether it was there.
func (s *stream) leave(whole bool) (bool, error) {
	lines := s.displaced[string(s.oldKey)]
	if len(lines) == 0 || !whole {
		return false, nil
	}
	current, err := s.table.Get(s.oldKey)
	if err != nil {
		return false, err
	}
	line, err := s.enc.AppendRow(nil, s.old, current)
	if err != nil {
		return false, nil
	}
	for i := range lines {
		if bytes.Equal(lines[i], line) {
			lines = append(lines[:i], lines[i+1:]...)
			if s.displaced[string(s.oldKey)] = lines; len(lines) == 0 {
				delete(s.displaced, string(s.oldKey))
			}
			return true, nil
		}
	}
	return false, nil
}

func (s *stream) truncate(r *reader) error {
	if !s.in {
		return errOrder
	}
	n := int(r.uint32())
	r.byte() // CASCADE, RESTART IDENTITY: the tables they reach are named, too
	found := false
	for i := 0; i < n && !r.cut; i++ {
		found = r.uint32() == s.tab.OID && !r.cut || found
	}
	if err := r.end(); err != nil {
		return err
	}
	if found {
		s.table.Truncate()
		clear(s.displaced)
		s.tx.Truncates++
	}
	return nil
}

// txLog writes a line for each transaction while they are few, and folds a storm of them into one line a second.
type txLog struct {
	log    hclog.Logger
	shape  *rowjson.Shape
	budget int // lines that single transactions may still have
	filled time.Time
	folded txn
	count  int
	waits  atomic.Bool // is anything folded; for others to see
}

// A burst of transactions gets a line each; of those that go on coming, so many a second do.
const (
	lineBurst      = 1000
	linesPerSecond = 100
)

func (l *txLog) add(x *txn, now time.Time) {
	l.settle(now)
	if l.budget > 0 {
		l.budget--
		l.log.Info("captured", "inserts", x.Inserts, "updates", x.Updates, "deletes", x.Deletes, "truncates", x.Truncates,
			"keys", x.keyStrings(l.shape), "lsn", lsnText(x.LSN), "commit_time", x.CommitTime.Format(time.RFC3339Nano),
			"lag_ms", millis(now.Sub(x.CommitTime)))
		return
	}
	l.count++
	l.waits.Store(true)
	l.folded.Inserts += x.Inserts
	l.folded.Updates += x.Updates
	l.folded.Deletes += x.Deletes
	l.folded.Truncates += x.Truncates
	l.folded.LSN, l.folded.CommitTime = x.LSN, x.CommitTime
	for i := 0; i < len(x.ends) && len(l.folded.ends) < loggedKeys; i++ {
		from := 0
		if i > 0 {
			from = x.ends[i-1]
		}
		l.folded.noteKey(x.keys[from:x.ends[i]])
	}
}

// settle writes what was folded once a second has gone, and gives the budget of that time.
func (l *txLog) settle(now time.Time) {
	gone := now.Sub(l.filled)
	if gone < time.Second {
		return
	}
	l.flush()
	l.budget = min(l.budget+int(min(gone/time.Second, lineBurst))*linesPerSecond, lineBurst)
	l.filled = now
}

// flush writes the line of what was folded, if anything was.
func (l *txLog) flush() {
	if l.count == 0 {
		return
	}
	x := &l.folded
	l.log.Info("captured", "transactions", l.count, "inserts", x.Inserts, "updates", x.Updates, "deletes", x.Deletes,
		"truncates", x.Truncates, "keys", x.keyStrings(l.shape), "lsn", lsnText(x.LSN),
		"commit_time", x.CommitTime.Format(time.RFC3339Nano), "lag_ms", millis(time.Since(x.CommitTime)))
	l.count = 0
	l.waits.Store(false)
	l.folded.reset()
}
