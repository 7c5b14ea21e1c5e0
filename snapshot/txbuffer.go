package snapshot

// Limits of a buffered transaction.
const (
	maxBufferedOps   = 4096
	maxBufferedBytes = 4 << 20
)

// txBuffer holds the changes of a small open transaction, in order, until Commit applies them. Rollback only has to empty the
// buffer.
type txBuffer struct {
	ops   []op
	data  []byte         // keys and lines
	index map[string]int // index of the last op of each key; nil until a buffer with many ops is searched
}

// op is one change. Its offsets refer to the buffer's data.
type op struct {
	kind             opKind
	keyOff, keyLen   int
	lineOff, lineLen int
}

type opKind uint8

const (
	opPut opKind = iota
	opDelete
	opTruncate
)

// addOp appends a change and reports whether the buffer is still within its limits.
func (b *txBuffer) addOp(kind opKind, key, line []byte) bool {
	o := op{kind: kind, keyOff: len(b.data), keyLen: len(key), lineOff: len(b.data) + len(key), lineLen: len(line)}
	b.data = append(append(b.data, key...), line...)
	if b.index != nil {
		b.index[string(key)] = len(b.ops)
	}
	b.ops = append(b.ops, o)
	return len(b.ops) <= maxBufferedOps && len(b.data) <= maxBufferedBytes
}

func (b *txBuffer) reset() {
	b.ops, b.index = b.ops[:0], nil
	if cap(b.data) > maxBufferedBytes/4 {
		b.data = nil // do not keep the memory of a large row
	}
	b.data = b.data[:0]
}

// get returns the line that the transaction puts for key, or nil if the transaction deletes the row. known reports whether
// the transaction puts or deletes the row. If known is false, the caller must look for the row in the tree.
func (b *txBuffer) get(key []byte) (line []byte, known bool) {
	const fewOps = 64
	if len(b.ops) > fewOps && b.index == nil {
		b.index = make(map[string]int, len(b.ops))
		for i := range b.ops {
			b.index[string(b.key(i))] = i
		}
	}
	if b.index != nil {
		if i, ok := b.index[string(key)]; ok {
			return b.line(i), true
		}
	} else {
		for i := len(b.ops) - 1; i >= 0; i-- {
			if b.ops[i].kind != opTruncate && string(b.key(i)) == string(key) {
				return b.line(i), true
			}
		}
	}
	return nil, b.truncates()
}

// truncates reports whether the buffer contains a Truncate. A Truncate can only be the first op, because it removes all
// changes before it from the buffer.
func (b *txBuffer) truncates() bool { return len(b.ops) > 0 && b.ops[0].kind == opTruncate }

func (b *txBuffer) key(i int) []byte {
	o := &b.ops[i]
	return b.data[o.keyOff : o.keyOff+o.keyLen]
}

// line returns the line that op i puts, or nil if op i is not a put.
func (b *txBuffer) line(i int) []byte {
	if o := &b.ops[i]; o.kind == opPut {
		return b.data[o.lineOff : o.lineOff+o.lineLen]
	}
	return nil
}
