package postgres

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
)

// rowLimiter passes on what a server sends, but splits large messages or makes them smaller. Otherwise, pgproto3 would read
// each message whole into memory, whatever its length. rowLimiter rewrites three kinds of messages:
//
//   - A CopyData message of a COPY becomes several messages. The format of COPY does not depend on where a message ends.
//   - A DataRow message of more than limit bytes loses its large values, and gets an additional column with their sizes; see
//     [OmittedSizes].
//   - A CopyData message of more than limit bytes in the replication stream gets a value of kind [pgoutput.Omitted] in place of
//     each large value.
//
// Any other message of more than limit bytes is an error. The message formats are in the PostgreSQL documentation, "Message
// Formats", "Logical Replication Message Formats" and "Streaming Replication Protocol".
type rowLimiter struct {
	from  io.Reader
	limit int // maximum size of a message's body in bytes

	buf        []byte
	start, end int    // bounds of the unread part of buf
	cleared    int    // number of bytes after start to pass on unchanged; may exceed the bytes in buf
	rewritten  []byte // rewritten bytes; they are passed on before the cleared bytes
	copyBody   int    // number of bytes of a message of COPY that are still to be split into pieces
	streaming  bool   // whether CopyData messages belong to the replication stream, not to a COPY
}

const (
	copyPieceBytes   = 64 << 10       // maximum size of a piece of a CopyData message
	keptValueBytes   = 256 << 10      // maximum size of a value that stays in a rewritten message; large enough for keys
	keptBytes        = 1 << 20        // maximum total size of the values that stay in a rewritten message
	messageOverhead  = 64 << 10       // bytes allowed for a message's other parts, such as the lengths of up to 1,600 values
	longestBody      = 0x3fffffff - 5 // maximum size of a message's body: Postgres' MaxAllocSize minus the header
	messageHeaderLen = 5
)

func newRowLimiter(from io.Reader, maxRow int64) *rowLimiter {
	limit := longestBody
	if maxRow > 0 && maxRow < longestBody-messageOverhead {
		limit = int(maxRow) + messageOverhead
	}
	return &rowLimiter{from: from, limit: limit, buf: make([]byte, readBufferBytes)}
}

// Read implements [io.Reader]. After a timeout, reading can continue, unless the timeout interrupted the rewriting of a
// message.
func (m *rowLimiter) Read(p []byte) (int, error) {
	for {
		if len(m.rewritten) > 0 {
			n := copy(p, m.rewritten)
			if m.rewritten = m.rewritten[n:]; len(m.rewritten) == 0 {
				m.rewritten = nil
			}
			return n, nil
		}
		if m.cleared == 0 {
			if err := m.clear(); err != nil {
				return 0, err
			}
			continue
		}
		if n := min(m.cleared, m.end-m.start, len(p)); n > 0 {
			copy(p, m.buf[m.start:m.start+n])
			m.start, m.cleared = m.start+n, m.cleared-n
			return n, nil
		}
		if len(p) < len(m.buf)/2 {
			if err := m.fill(); err != nil {
				return 0, err
			}
			continue
		}
		n, err := m.from.Read(p[:min(len(p), m.cleared)])
		m.cleared -= n
		return n, err
	}
}

// fill reads more data into buf.
func (m *rowLimiter) fill() error {
	if m.start > 0 {
		m.end = copy(m.buf, m.buf[m.start:m.end])
		m.start = 0
	}
	n, err := m.from.Read(m.buf[m.end:])
	m.end += n
	if n > 0 {
		return nil
	}
	return err
}

// clear finds the messages at the start of buf that may be passed on unchanged, and adds their size to m.cleared. If
// not even the first message may be passed on unchanged, clear splits or rewrites this message, or returns an error.
func (m *rowLimiter) clear() error {
	if m.copyBody > 0 {
		m.cleared = min(m.copyBody, copyPieceBytes)
		m.copyBody -= m.cleared
		m.rewritten = binary.BigEndian.AppendUint32([]byte{'d'}, uint32(m.cleared+4))
		return nil
	}
	for {
		header := m.buf[m.start:m.end]
		if m.cleared > len(header)-messageHeaderLen {
			if m.cleared > 0 {
				return nil
			}
			if err := m.fill(); err != nil {
				return err
			}
			continue
		}
		header = header[m.cleared:]
		kind, n := header[0], int(int32(binary.BigEndian.Uint32(header[1:])))-4
		if n < 0 {
			return errors.New("the server sent a message of a negative length")
		}
		switch kind {
		case 'H': // CopyOutResponse
			m.streaming = false
		case 'W': // CopyBothResponse
			m.streaming = true
		}
		inCopy := kind == 'd' && !m.streaming
		if n <= copyPieceBytes || n <= m.limit && !inCopy {
			m.cleared += messageHeaderLen + n
			continue
		}
		if m.cleared > 0 {
			return nil // the preceding messages must be passed on first
		}
		m.start += messageHeaderLen
		switch {
		case inCopy:
			m.copyBody = n
			return m.clear()
		case kind == 'd':
			return m.rewrite(kind, n, (*messageRewriter).rewriteChange)
		case kind == 'D':
			return m.rewrite(kind, n, (*messageRewriter).rewriteDataRow)
		}
		return fmt.Errorf("the server sent a message of type %q with %d bytes; at most %d fit into memory", kind, n, m.limit)
	}
}

// rewrite replaces a message that has a body of n bytes. It calls the given function, which reads the old body and builds the
// new message.
func (m *rowLimiter) rewrite(kind byte, n int, body func(*messageRewriter)) error {
	w := messageRewriter{rowLimiter: m, left: n, out: []byte{kind, 0, 0, 0, 0}}
	body(&w)
	if w.err == nil && w.left != 0 {
		w.err = errors.New("a large message of the server has bytes after its end")
	}
	if timeout := net.Error(nil); errors.As(w.err, &timeout) && timeout.Timeout() {
		w.err = errors.New("a timeout interrupted a large message") // hide the [net.Error], after which pgconn would continue to read
	}
	if w.err != nil {
		return w.err
	}
	binary.BigEndian.PutUint32(w.out[1:], uint32(len(w.out)-1))
	m.rewritten = w.out
	return nil
}

// messageRewriter reads a message in small pieces and builds a smaller message. After an error it does nothing.
type messageRewriter struct {
	*rowLimiter
	left int    // number of bytes of the message's body that have not been read
	kept int    // total size in bytes of the values that have been kept in out
	out  []byte // new message, as far as it has been built
	err  error
}

// read reads n bytes of the message and appends them to dst, or drops them if dst is nil.
func (w *messageRewriter) read(dst *[]byte, n int) {
	if w.err == nil && (n < 0 || n > w.left) {
		w.err = errors.New("a large message of the server is malformed")
	}
	for w.err == nil && n > 0 {
		if w.start == w.end {
			w.err = w.fill()
			continue
		}
		part := w.buf[w.start:min(w.end, w.start+n)]
		if dst != nil {
			*dst = append(*dst, part...)
		}
		w.start, w.left, n = w.start+len(part), w.left-len(part), n-len(part)
	}
}

// readField returns the next n bytes of the message, or zeros after an error. n must be small.
func (w *messageRewriter) readField(n int) []byte {
	b := make([]byte, 0, n)
	w.read(&b, n)
	return append(b, make([]byte, n-len(b))...)
}

// passField is like readField, and also appends the bytes to the new message.
func (w *messageRewriter) passField(n int) []byte {
	b := w.readField(n)
	w.out = append(w.out, b...)
	return b
}

// keeps reports whether a value of n bytes stays in the message, and counts the value's bytes if so.
func (w *messageRewriter) keeps(n int) bool {
	if n > keptValueBytes || w.kept+n > keptBytes {
		return false
	}
	w.kept += n
	return true
}

// rewriteDataRow replaces each large value with NULL, and appends a column that has a number for each value: the size of a
// replaced value, or -1 for a value that stays.
func (w *messageRewriter) rewriteDataRow() {
	columns := int(binary.BigEndian.Uint16(w.readField(2)))
	w.out = binary.BigEndian.AppendUint16(w.out, uint16(columns+1))
	sizes := make([]byte, 0, 8*columns)
	for range columns {
		if w.err != nil {
			return
		}
		length := w.readField(4)
		n, omitted := int(int32(binary.BigEndian.Uint32(length))), int64(-1)
		switch {
		case n < 0 || w.keeps(n):
			w.out = append(w.out, length...)
			w.read(&w.out, max(n, 0))
		default:
			w.read(nil, n)
			w.out = binary.BigEndian.AppendUint32(w.out, 1<<32-1)
			omitted = int64(n)
		}
		sizes = binary.BigEndian.AppendUint64(sizes, uint64(omitted))
	}
	w.out = binary.BigEndian.AppendUint32(w.out, uint32(len(sizes)))
	w.out = append(w.out, sizes...)
}

// OmittedSizes reports whether a row with the given number of columns was larger than its connection's limit; see
// [WithReadBuffer]. If so, it returns the size of each value in bytes. The large values of such a row are nil.
func OmittedSizes(values [][]byte, columns int) (sizes []int64, omitted bool) {
	if len(values) != columns+1 || len(values[columns]) != 8*columns {
		return nil, false
	}
	sizes = make([]int64, columns)
	for i := range sizes {
		sizes[i] = max(int64(binary.BigEndian.Uint64(values[columns][8*i:])), int64(len(values[i])))
	}
	return sizes, true
}

// rewriteChange omits the large values of an Insert, Update or Delete message. If the new row is small enough, it stays
// complete, and only the old row loses values.
func (w *messageRewriter) rewriteChange() {
	const (
		xLogData       = 'w'
		xLogDataHeader = 1 + 8 + 8 + 8
	)
	head := w.passField(xLogDataHeader + 1 + 4)
	if w.err != nil {
		return
	}
	switch kind := head[xLogDataHeader]; {
	case head[0] == xLogData && (kind == 'I' || kind == 'U' || kind == 'D'):
	default:
		w.err = fmt.Errorf("the server sent a message of type %q with %d bytes in the stream; at most %d fit into memory", kind, w.left, w.limit)
	}
	for w.err == nil && w.left > 0 {
		part := w.passField(1)[0]
		if part == 'N' && w.left <= w.limit {
			w.read(&w.out, w.left)
			return
		}
		w.rewriteTuple()
	}
}

func (w *messageRewriter) rewriteTuple() {
	columns := int(binary.BigEndian.Uint16(w.passField(2)))
	for range columns {
		if w.err != nil {
			return
		}
		kind := w.readField(1)[0]
		if kind != 't' && kind != 'b' {
			w.out = append(w.out, kind)
			continue
		}
		length := w.readField(4)
		n := int(int32(binary.BigEndian.Uint32(length)))
		if w.keeps(n) {
			w.out = append(append(w.out, kind), length...)
			w.read(&w.out, n)
			continue
		}
		w.read(nil, n)
		w.out = binary.BigEndian.AppendUint64(append(w.out, 'o'), uint64(n))
	}
}
