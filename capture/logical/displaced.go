package logical

import (
	"bytes"
	"slices"

	"capture/internal/pgoutput"
)

// displacedRows holds rows whose key another row has taken, by that key. A key may be taken more than once.
//
// A deferrable key is checked at the end of the statement or transaction, so "UPDATE t SET id = id + 1" may give row 1 the
// key of row 2 before row 2 has moved on. The stream shows these updates one by one, and the Table holds one row per key.
// Such a table needs replica identity FULL, so the update that moves row 2 on names all of its old values, and finds it
// here.
type displacedRows map[string][][]byte

// stashDisplaced puts the row aside that has newKey, which another row is about to take. Since the transaction commits, that
// row must be on its way to another key.
func (a *applier) stashDisplaced() error {
	if a.table.KeyImmediate { // two rows never share such a key, not even for a moment
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

// takeDisplaced removes the row that the old tuple describes from the displaced ones. It reports whether the row was there.
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
		return false, nil // the old tuple leaves values out, so it is not the displaced row that is meant
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
