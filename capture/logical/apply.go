package logical

import (
	"bytes"
	"errors"
	"fmt"
	"slices"

	"capture/capture/source"
	"capture/internal/pgoutput"
	"capture/internal/postgres"
	"capture/snapshot"
	"capture/snapshot/rowjson"
)

// applier turns the messages of pgoutput into writes to a Table. It returns each commit to its caller, which reports and
// confirms the commit.
//
// Each change is written to the Table when its message arrives. All changes of a transaction become visible together when its
// Commit message arrives. If a message cannot be applied, the Table may hold only a part of a transaction. The daemon then
// rolls back this part, and the applier must not be used again.
type applier struct {
	dst       *snapshot.Table
	table     *postgres.Table
	encoder   *rowjson.Encoder
	generated *serverValues // computes generated columns; nil if the stream has all columns

	columns []int // for each column of the stream, its index in the table's Shape; nil before the Relation message
	inTxn   bool  // whether a Begin message has arrived, but not yet its Commit message
	txn     source.TxnStats

	// Rows that have lost their key to another row in this transaction. When the update or delete of such a row arrives, the
	// row is removed from displaced, so displaced is empty at the end of the transaction.
	displaced displacedRows

	// The current change, and buffers that each change reuses. oldValues and newValues contain one value in text form for each
	// column of the Shape.
	change               pgoutput.Change
	oldValues, newValues [][]byte
	oldKey, newKey, line []byte
	omitted              []int64 // sizes of the new row's values if the connection left some values out (see omittedrows.go); otherwise nil
}

func newApplier(dst *snapshot.Table, table *postgres.Table, encoder *rowjson.Encoder, generated *serverValues) *applier {
	a := &applier{
		dst: dst, table: table, encoder: encoder, displaced: displacedRows{},
		oldValues: make([][]byte, len(table.Columns)), newValues: make([][]byte, len(table.Columns)),
	}
	if generated != nil && len(generated.unpublished) > 0 {
		a.generated = generated
	}
	return a
}

var (
	// errOrder means that a change or a Commit message arrived outside of a transaction, or that a Begin message arrived inside
	// of a transaction.
	errOrder = errors.New("a message of the stream is out of order")

	// errOtherIdentity means that the table's replica identity has changed. Old tuples may then lack columns of the table's
	// key.
	errOtherIdentity = &source.ResyncError{Reason: "the table's replica identity changed"}

	// errUnknownRow means that the Table lacks a row that the stream changes. The rows in memory are then wrong.
	errUnknownRow = &source.ResyncError{Reason: "the stream changes a row that is not known", Backoff: true}
)

// apply applies one message. For a Commit it returns the transaction's statistics, which are valid until the next call.
// It ignores changes to other tables and messages of other kinds.
func (a *applier) apply(msg []byte) (commit *source.TxnStats, err error) {
	switch pgoutput.Kind(msg) {
	case pgoutput.KindBegin:
		if a.inTxn {
			return nil, errOrder
		}
		a.inTxn = true
		a.txn.Reset()
	case pgoutput.KindCommit:
		return a.applyCommit(msg)
	case pgoutput.KindRelation:
		return nil, a.applyRelation(msg)
	case pgoutput.KindInsert, pgoutput.KindUpdate, pgoutput.KindDelete:
		return nil, a.applyChange(msg)
	case pgoutput.KindTruncate:
		return nil, a.applyTruncate(msg)
	}
	return nil, nil
}

func (a *applier) applyCommit(msg []byte) (*source.TxnStats, error) {
	if !a.inTxn {
		return nil, errOrder
	}
	c, err := pgoutput.ParseCommit(msg)
	if err != nil {
		return nil, err
	}
	a.inTxn = false
	a.txn.LSN, a.txn.CommitTime = c.EndLSN, c.Time
	position := snapshot.Position{LSN: c.EndLSN, CommitTime: c.Time}
	switch {
	case len(a.displaced) > 0:
		return nil, &source.ResyncError{Reason: "rows with one key at the end of a transaction"}
	case a.txn.Changes() == 0: // the transaction changed only other tables
		a.dst.Advance(position)
	default:
		if err := a.dst.Commit(position); err != nil {
			return nil, fmt.Errorf("commit to memory: %w", err)
		}
	}
	return &a.txn, nil
}

// applyRelation checks that the definition in a Relation message equals the definition with which the table was copied. The
// server sends a Relation message before the first change to a table, and again after the table's definition has changed.
func (a *applier) applyRelation(msg []byte) error {
	rel, err := pgoutput.ParseRelation(msg)
	if err != nil {
		return err
	}
	sameName := rel.Schema == a.table.Schema && rel.Table == a.table.Table
	switch {
	case rel.OID != a.table.OID && sameName:
		return &source.ResyncError{Reason: fmt.Sprintf("another table is called %s now", a.table.Name())}
	case rel.OID != a.table.OID:
		return nil
	case !sameName:
		return &source.ResyncError{Reason: fmt.Sprintf("table %s was renamed", a.table.Name())}
	case string(rel.Replica) != a.table.ReplicaIdentity:
		return errOtherIdentity
	}
	a.columns = nil
	rest := rel.Columns
	for i, c := range a.table.Columns {
		if !c.Published {
			continue
		}
		if len(rest) == 0 || rest[0] != (pgoutput.Column{Name: c.Name, TypeOID: c.TypeOID, Typmod: c.Typmod}) {
			return a.columnsChanged()
		}
		a.columns, rest = append(a.columns, i), rest[1:]
	}
	if len(rest) > 0 {
		return a.columnsChanged()
	}
	return nil
}

func (a *applier) columnsChanged() error {
	return &source.ResyncError{Reason: fmt.Sprintf("the columns of table %s changed", a.table.Name())}
}

// applyChange applies an Insert, Update or Delete message.
func (a *applier) applyChange(msg []byte) error {
	oid, err := pgoutput.ChangeOID(msg)
	switch {
	case err != nil:
		return err
	case oid != a.table.OID:
		return nil
	case !a.inTxn:
		return errOrder
	case a.columns == nil:
		return fmt.Errorf("a change of table %s came before its description", a.table.Name())
	}
	if err := a.parseChange(msg); err != nil {
		return fmt.Errorf("read a change of table %s: %w", a.table.Name(), err)
	}
	if a.change.Kind == pgoutput.KindDelete {
		err = a.applyDelete()
	} else {
		err = a.applyUpsert()
	}
	if err != nil {
		return fmt.Errorf("apply a change of table %s: %w", a.table.Name(), err)
	}
	return nil
}

// parseChange reads the message into a.change, a.oldValues and a.newValues.
func (a *applier) parseChange(msg []byte) error {
	if err := a.change.Parse(msg); err != nil {
		return err
	}
	if a.change.Identity != pgoutput.IdentityNone {
		if err := a.placeValues(a.oldValues, a.change.Old); err != nil {
			return err
		}
	}
	a.omitted = nil
	if a.change.Kind == pgoutput.KindDelete {
		return nil
	}
	if err := a.placeValues(a.newValues, a.change.New); err != nil {
		return err
	}
	a.omitted = a.sizesIfOmitted(a.change.New)
	return nil
}

// placeValues stores a tuple's values in dst, which is indexed by column of the Shape.
func (a *applier) placeValues(dst [][]byte, t pgoutput.Tuple) error {
	if len(t) != len(a.columns) {
		return errors.New("a row of the stream does not have the columns of its table")
	}
	for i, column := range a.columns {
		switch t[i].Kind {
		case pgoutput.Unchanged:
			dst[column] = rowjson.Unchanged
		case pgoutput.Omitted:
			dst[column] = omittedValue
		default:
			dst[column] = t[i].Text // nil for NULL
		}
	}
	return nil
}

func (a *applier) applyDelete() (err error) {
	if err := a.setKey(&a.oldKey, a.oldValues); err != nil {
		return err
	}
	a.txn.Deletes++
	a.txn.AddKey(a.oldKey)
	if taken, err := a.takeDisplaced(); taken || err != nil {
		return err
	}
	line, err := a.dst.Get(a.oldKey)
	if err != nil {
		return err
	}
	if _, omitted := a.dst.OmittedSizes(a.oldKey); line == nil && !omitted {
		return errUnknownRow
	}
	a.dst.Delete(a.oldKey)
	return nil
}

// applyUpsert applies an insert or update. An update carries an old tuple if it changed the key. Under replica identity FULL,
// every update carries an old tuple.
func (a *applier) applyUpsert() (err error) {
	hasOld, isUpdate := a.change.Identity != pgoutput.IdentityNone, a.change.Kind == pgoutput.KindUpdate
	if hasOld {
		if err := a.setKey(&a.oldKey, a.oldValues); err != nil {
			return err
		}
		a.fillUnchanged()
	}
	if err := a.setKey(&a.newKey, a.newValues); err != nil {
		return err
	}
	a.txn.AddKey(a.newKey)
	if isUpdate {
		a.txn.Updates++
	} else {
		a.txn.Inserts++
	}
	moved, wasDisplaced := hasOld && !bytes.Equal(a.oldKey, a.newKey), false
	if moved {
		if wasDisplaced, err = a.takeDisplaced(); err != nil {
			return err
		}
	}
	var oldLine []byte
	var oldSizes []int64
	if isUpdate {
		key := a.newKey
		if moved {
			key = a.oldKey
		}
		if oldLine, err = a.dst.Get(key); err != nil {
			return err
		}
		oldSizes, _ = a.dst.OmittedSizes(key)
		if oldLine == nil && oldSizes == nil && !wasDisplaced {
			return errUnknownRow
		}
	}
	sizes, err := a.encodeOrOmit(oldLine, oldSizes)
	if err != nil {
		return err
	}
	if moved && !wasDisplaced {
		a.dst.Delete(a.oldKey)
	}
	if moved || !isUpdate {
		if err := a.stashDisplaced(); err != nil {
			return err
		}
	}
	if sizes != nil {
		a.dst.Omit(a.newKey, sizes)
	} else {
		a.dst.Put(a.newKey, a.line)
	}
	if cap(a.line) > keptLineBytes {
		a.line = nil
	}
	return nil
}

// fillUnchanged copies values from the old tuple to the new tuple. The new tuple leaves out TOASTed values that the update did
// not change. Under replica identity FULL, the old tuple has all values. Otherwise, the old tuple has only the values of the
// key's columns, and shows every other column as NULL.
func (a *applier) fillUnchanged() {
	full := a.change.Identity == pgoutput.IdentityFull
	for i, v := range a.newValues {
		old := a.oldValues[i]
		if isUnchanged(v) && (full || slices.Contains(a.table.Key, i)) && !isUnchanged(old) && !isOmitted(old) {
			a.newValues[i] = old
		}
	}
}

func isUnchanged(v []byte) bool { return len(v) > 0 && &v[0] == &rowjson.Unchanged[0] }

// encodeLine encodes the new row into a.line. Unchanged values come from oldLine, the row's line before the update. oldLine is
// nil if this line is not known.
func (a *applier) encodeLine(oldLine []byte) (err error) {
	if a.generated != nil {
		for _, i := range a.generated.unpublished {
			a.newValues[i] = nil
		}
	}
	if oldLine == nil && slices.ContainsFunc(a.newValues, isUnchanged) {
		return &source.ResyncError{Reason: "an update leaves values unchanged in a row that is not known"}
	}
	if a.line, err = a.encoder.AppendRow(a.line[:0], a.newValues, oldLine); err != nil || a.generated == nil {
		return err
	}
	// The stream leaves generated columns out (PostgreSQL before 18 cannot send them). The server computes them from the other
	// values, which a.line now contains.
	values, err := a.generated.generate(a.encoder, a.newValues, a.line)
	if err != nil {
		return err
	}
	for i, column := range a.generated.unpublished {
		a.newValues[column] = values[i]
	}
	a.line, err = a.encoder.AppendRow(a.line[:0], a.newValues, oldLine)
	return err
}

// applyTruncate applies a Truncate message, which lists the tables that the statement empties.
func (a *applier) applyTruncate(msg []byte) error {
	if !a.inTxn {
		return errOrder
	}
	t, err := pgoutput.ParseTruncate(msg)
	if err != nil {
		return err
	}
	if slices.Contains(t.OIDs, a.table.OID) {
		a.dst.Truncate()
		clear(a.displaced)
		a.txn.Truncates++
	}
	return nil
}
