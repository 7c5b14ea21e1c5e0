package snapshot

// held is a small open transaction: what it does, in order.
type held struct {
	ops   []op
	data  []byte         // keys and lines
	index map[string]int // the last op of a key; made when a large held transaction is first read
}

type op struct {
	kind    opKind
	koff, k int
	off, n  int
}

type opKind uint8

const (
	opPut opKind = iota
	opDelete
	opTruncate
)

func (h *held) reset() {
	h.ops, h.index = h.ops[:0], nil
	if cap(h.data) > heldBytes/4 {
		h.data = nil // one large row must not be kept for ever
	}
	h.data = h.data[:0]
}

// get is the line of key where the held operations decide it; nil and true where they delete it.
func (h *held) get(key []byte) (line []byte, known bool) {
	if len(h.ops) > 64 && h.index == nil {
		h.index = make(map[string]int, len(h.ops))
		for i, o := range h.ops {
			h.index[string(h.data[o.koff:o.koff+o.k])] = i
		}
	}
	if h.index != nil {
		if i, ok := h.index[string(key)]; ok {
			return h.line(i), true
		}
	} else {
		for i := len(h.ops) - 1; i >= 0; i-- {
			if o := h.ops[i]; o.kind != opTruncate && string(h.data[o.koff:o.koff+o.k]) == string(key) {
				return h.line(i), true
			}
		}
	}
	return nil, len(h.ops) > 0 && h.ops[0].kind == opTruncate // Truncate drops what was held before it
}

func (h *held) line(i int) []byte {
	if o := h.ops[i]; o.kind == opPut {
		return h.data[o.off : o.off+o.n]
	}
	return nil
}
