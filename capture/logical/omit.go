package logical

import (
	"errors"
	"slices"

	"capture/capture/source"
	"capture/internal/pgoutput"
	"capture/snapshot/rowjson"
)

// A row that does not fit into memory is omitted (see [snapshot.Table.Omit]), and the stream goes on. Either the connection has
// left its large values out of the message, or its line turns out to be too long. Whatever changes such a row later is applied
// to the record of it: a row that is deleted or becomes small enough ends the record.
//
// One case needs another copy: an update that makes the row small enough and leaves another value unchanged. The stream does not
// have that value, and neither has the Table.

// keptLineBytes is the size from which the buffer of a line is released after the row.
const keptLineBytes = 1 << 20

// omittedValue stands for a value that the connection has left out. It is recognised by identity.
var omittedValue = []byte("omitted")

func isOmitted(v []byte) bool { return len(v) > 0 && &v[0] == &omittedValue[0] }

var (
	errMayFit       = &source.ResyncError{Reason: "an update leaves values unchanged in a row that did not fit into memory and may do so now", Backoff: true}
	errOmittedMoves = &source.ResyncError{Reason: "a row that does not fit into memory takes part in an exchange of keys", Backoff: true}
	errOmittedKey   = &source.ResyncError{Reason: "a row that does not fit into memory has a key that does not fit into a message", Backoff: true}
)

// sizesIfOmitted returns the sizes of a row's values if the connection has left some out, and nil otherwise.
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

// setKey sets key to that of a row with these values.
func (a *applier) setKey(key *[]byte, values [][]byte) (err error) {
	for _, column := range a.table.Key {
		if isOmitted(values[column]) {
			return errOmittedKey
		}
	}
	*key, err = a.encoder.AppendKey((*key)[:0], values)
	return err
}

// encodeOrOmit encodes the new row into line, or returns its sizes if it is too large. oldLine is the row's line before an update,
// and oldSizes are its sizes if it was omitted.
func (a *applier) encodeOrOmit(oldLine []byte, oldSizes []int64) (sizes []int64, err error) {
	if a.omitted != nil {
		return a.omitted, nil
	}
	if oldSizes != nil && slices.ContainsFunc(a.newValues, isUnchanged) {
		return a.estimateSizes(oldSizes)
	}
	err = a.encodeLine(oldLine)
	if tooLarge := (*rowjson.TooLargeError)(nil); errors.As(err, &tooLarge) {
		return tooLarge.Sizes, nil
	}
	return nil, err
}

// estimateSizes returns the sizes of an omitted row after an update that leaves some of its values unchanged. If it may fit by now,
// only another copy can tell.
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
