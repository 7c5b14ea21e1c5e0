package snapshot

import (
	"maps"

	"capture/snapshot/rowjson"
)

// Omit records in the open transaction that the row with the given key exists but does not fit into memory. It deletes the
// row's line from the Table. sizes has the approximate number of bytes of each column in the line. Omit keeps sizes without
// copying it. The next Put, Delete or Truncate that affects the row removes this record.
func (t *Table) Omit(key rowjson.Key, sizes []int64) {
	t.Delete(key)
	t.ownOmitted()[string(key)] = sizes
}

// OmittedSizes returns the sizes that Omit has recorded for the row with the given key, as the open transaction sees it. It
// returns false if the row is not omitted.
func (t *Table) OmittedSizes(key rowjson.Key) (sizes []int64, omitted bool) {
	rows := t.txOmitted
	if rows == nil {
		rows = t.omitted
	}
	sizes, omitted = rows[string(key)]
	return sizes, omitted
}

// OmittedRows returns the number of omitted rows, as the open transaction sees them.
func (t *Table) OmittedRows() int {
	if t.txOmitted != nil {
		return len(t.txOmitted)
	}
	return len(t.omitted)
}

// ownOmitted returns the omitted rows of the open transaction, in a map that may be changed.
func (t *Table) ownOmitted() omittedRows {
	if t.txOmitted == nil {
		if t.txOmitted = maps.Clone(t.omitted); t.txOmitted == nil {
			t.txOmitted = omittedRows{}
		}
	}
	return t.txOmitted
}

// forgetOmitted removes the record of an omitted row, because the row is put or deleted.
func (t *Table) forgetOmitted(key rowjson.Key) {
	if len(t.omitted)+len(t.txOmitted) == 0 {
		return
	}
	if _, omitted := t.OmittedSizes(key); omitted {
		delete(t.ownOmitted(), string(key))
	}
}
