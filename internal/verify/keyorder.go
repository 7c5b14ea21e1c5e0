package verify

import (
	"bytes"
	"errors"
	"fmt"
	"strings"

	"capture/internal/statefile"
	"capture/snapshot/rowjson"
)

// keyOrder checks that the keys of a file's rows are in ascending order.
type keyOrder struct {
	keys      *statefile.KeyReader
	any       bool   // whether the rows may be in any order
	last      []byte // key of the previous row; nil before the first row
	lastLine  int64  // line of the previous row
	unchecked string // reason why the order cannot be checked; "" if the order can be checked
}

// checkNext returns the key of the next row. If the order matters and the key is not greater than the previous key, it
// returns an error. If the keys of the file cannot be computed, the returned key is nil. The key is valid until the next
// call.
func (o *keyOrder) checkNext(row statefile.Row) (rowjson.Key, error) {
	key, err := o.keys.Key(row.Members)
	if noKey := statefile.NoKeyError(""); errors.As(err, &noKey) {
		o.unchecked = string(noKey)
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("%w%s", err, o.describeLast())
	}
	if o.last != nil && !o.any {
		switch c := bytes.Compare(key, o.last); {
		case c == 0:
			return nil, fmt.Errorf("the key %s is in the file twice", o.keys.KeyString(key))
		case c < 0:
			return nil, fmt.Errorf("not in the order of the key: %s comes after %s", o.keys.KeyString(key), o.keys.KeyString(o.last))
		}
	}
	o.last, o.lastLine = append(o.last[:0], key...), row.Line
	return key, nil
}

// describeLast names the last good row, for the end of an error message.
func (o *keyOrder) describeLast() string {
	if o.last == nil {
		return ""
	}
	key := o.keys.KeyString(o.last)
	if strings.Contains(key, rowjson.HiddenText) {
		return fmt.Sprintf("; the last good row is in line %d", o.lastLine)
	}
	return "; the last good row has the key " + key
}
