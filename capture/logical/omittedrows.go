package logical

import (
	"errors"
	"slices"

	"capture/capture/source"
	"capture/internal/pgoutput"
	"capture/snapshot/rowjson"
)

// A row that does not fit into memory is omitted (see [snapshot.Table.Omit]), and the stream continues. Either the row's line
// is too long, or its message is so large that the connection has left large values out, without allocating memory for them
// (see internal/postgres/rowlimit.go). The Table records the sizes of an omitted row. Later updates of the row change this
// record, and the record is removed when the row is deleted or becomes small enough.
//
// One case needs another copy of the table: an update that may make the row small enough but leaves some of its values
// unchanged. Neither the stream nor the Table has these values.

// keptLineBytes is the size in bytes of the largest line buffer that is kept for the next row.
const keptLineBytes = 1 << 20

// omittedValue stands for a large value that the connection has not read into memory. isOmitted recognizes omittedValue by
// its address.
var omittedValue = []byte("omitted")

func isOmitted(v []byte) bool { return len(v) > 0 && &v[0] == &omittedValue[0] }

var (
	errMayFit       = &source.ResyncError{Reason: "an update leaves values unchanged in a row that did not fit into memory and may do so now", Backoff: true}
	errOmittedMoves = &source.ResyncError{Reason: "a row that does not fit into memory takes part in an exchange of keys", Backoff: true}
	errOmittedKey   = &source.ResyncError{Reason: "a row that does not fit into memory has a key that does not fit into a message", Backoff: true}
)

// sizesIfOmitted returns the sizes of a row's values if the connection has left large values out of the row's message (see the
// top of this file). Otherwise it returns nil.
func (a *applier) sizesIfOmitted(t pgoutput.Tuple) []int64 {
	if !slices.ContainsFunc(t, func(v pgoutput.Value) bool { return v.Kind == pgoutput.Omitted }) {
		return nil
	}
	sizes := make([]int64, len(a.table.Columns))
	for i, column := range a.columns {
		sizes[column] = t[i].Size + int64(len(t[i].Text))
	}
	return sizes
}

// setKey sets *key to the key of a row with these values.
func (a *applier) setKey(key *[]byte, values [][]byte) (err error) {
	for _, column := range a.table.Key {
		if isOmitted(values[column]) {
			return errOmittedKey
		}
	}
	*key, err = a.encoder.AppendKey((*key)[:0], values)
	if errors.Is(err, rowjson.ErrKeyMissing) { // a value of the key is missing, so the replica identity is another index now
		return errOtherIdentity
	}
	return err
}

// encodeOrOmit encodes the new row into a.line, and returns nil. If the row is too large, it returns the sizes of the row's
// values instead. oldLine is the row's line before an update. oldSizes are the sizes of the row's values before the update
// if the row was omitted; otherwise oldSizes is nil.
func (a *applier) encodeOrOmit(oldLine []byte, oldSizes []int64) (sizes []int64, err error) {
	if a.omitted != nil {
		return a.omitted, nil
	}
	if oldSizes != nil && slices.ContainsFunc(a.newValues, isUnchanged) {
		return a.estimateSizes(oldSizes)
	}
	err = a.encodeLine(oldLine)
	if sizes, tooLarge := rowjson.IsTooLarge(err); tooLarge {
		return sizes, nil
	}
	return nil, err
}

// estimateSizes returns the sizes of an omitted row after an update that leaves some of its values unchanged. If the row may
// fit now, it returns errMayFit, because only another copy of the table can read the unchanged values.
func (a *applier) estimateSizes(oldSizes []int64) ([]int64, error) {
	sizes, sum := a.encoder.ColumnSizes(a.newValues, nil), int64(0)
	for i, v := range a.newValues {
		if isUnchanged(v) || a.generated != nil && slices.Contains(a.generated.unpublished, i) {
			sizes[i] = oldSizes[i]
		}
		sum += sizes[i]
	}
	if sum <= int64(a.encoder.MaxLine) {
		return nil, errMayFit
	}
	return sizes, nil
}
