package capture

import (
	"bytes"
	"fmt"
	"slices"

	"github.com/jackc/pglogrepl"

	"capture/capture/source"
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
	onTx  func(*source.TxnStats)

	columns []int // where each column of the published table lies in the shape; nil before its Relation message
	new     [][]byte
	old     [][]byte
	key     []byte
	oldKey  []byte
	line    []byte
	in      bool // between Begin and Commit
	tx      source.TxnStats

	// Rows whose key another row took within the transaction, before they moved on (a deferrable key under replica
	// identity FULL): key → lines. Empty again at the commit.
	displaced map[string][][]byte
}

func newStream(t *snapshot.Table, tab *postgres.Table, enc *rowjson.Encoder, gen *serverShape, onTx func(*source.TxnStats)) *stream {
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
		s.tx.Reset()
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
		return &source.ResyncError{Reason: "rows with one key at the end of a transaction"}
	}
	if s.tx.Changes() == 0 {
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
			return &source.ResyncError{Reason: fmt.Sprintf("another table is called %s now", s.tab.Name())}
		}
		return nil
	}
	if rel.schema != s.tab.Schema || rel.table != s.tab.Table {
		return &source.ResyncError{Reason: fmt.Sprintf("table %s was renamed", s.tab.Name())}
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
		return &source.ResyncError{Reason: fmt.Sprintf("the columns of table %s changed", s.tab.Name())}
	}
	if len(columns) != len(rel.columns) {
		return &source.ResyncError{Reason: fmt.Sprintf("the columns of table %s changed", s.tab.Name())}
	}
	s.columns = columns
	return nil
}

// errUnknownRow is that the Table is not what the stream goes on from.
var errUnknownRow = &source.ResyncError{Reason: "the stream changes a row that is not known", Backoff: true}

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
		s.tx.AddKey(s.oldKey)
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
	s.tx.AddKey(s.key)
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
				return &source.ResyncError{Reason: "an update left values out of a row that is not known"}
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
