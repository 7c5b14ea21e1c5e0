package logical

import (
	"bytes"
	"slices"

	"capture/internal/pgoutput"
)

// displacedRows maps a key to the lines of rows that had this key until another row took it. Several rows can lose the same
// key in one transaction.
//
// Postgres checks a deferrable key at the end of the statement or transaction. Therefore, "UPDATE t SET id = id + 1" may
// give row 1 the key of row 2 before row 2 gets its new key. The stream contains these updates one after the other, but the
// Table holds only one row per key. Until the update of row 2 arrives, displacedRows holds row 2. A table with a deferrable
// key needs replica identity FULL. The update of row 2 then carries all old values of row 2, which identify its line among
// the displaced lines.
type displacedRows map[string][][]byte

// stashDisplaced adds the row that has newKey to the displaced rows, because another row is about to take that key. The stream
// contains only committed transactions, so a later change of this transaction must move or delete the displaced row.
func (a *applier) stashDisplaced() error {
	if a.table.KeyImmediate { // two rows never share an immediate key, not even for a moment
		return nil
	}
	line, err := a.dst.Get(a.newKey)
	if _, omitted := a.dst.OmittedSizes(a.newKey); omitted {
		return errOmittedMoves
	}
	if line != nil {
		key := string(a.newKey)
		a.displaced[key] = append(a.displaced[key], bytes.Clone(line))
	}
	return err
}

// takeDisplaced looks for the old tuple's row among the displaced rows, and removes it there. It reports whether it found the
// row.
func (a *applier) takeDisplaced() (bool, error) {
	lines := a.displaced[string(a.oldKey)]
	if len(lines) == 0 || a.change.Identity != pgoutput.IdentityFull {
		return false, nil
	}
	if slices.ContainsFunc(a.oldValues, isOmitted) {
		return false, errOmittedMoves
	}
	current, err := a.dst.Get(a.oldKey)
	if err != nil {
		return false, err
	}
	line, err := a.encoder.AppendRow(nil, a.oldValues, current)
	if err != nil {
		return false, nil // the old tuple leaves values out, so it does not describe a displaced row
	}
	i := slices.IndexFunc(lines, func(l []byte) bool { return bytes.Equal(l, line) })
	if i < 0 {
		return false, nil
	}
	if lines = slices.Delete(lines, i, i+1); len(lines) == 0 {
		delete(a.displaced, string(a.oldKey))
	} else {
		a.displaced[string(a.oldKey)] = lines
	}
	return true, nil
}
