package snapshot

import "encoding/binary"

// A segment in the spill file: the lines with their terminators, then the lengths of each row's key and line, then the keys, all in
// key order and without gaps. The lines come first, so that [Part.AppendTo] can read them alone.

const lengthsSize = 8 // bytes of the two lengths of a row

// appendBody appends b as it is written to the spill file.
func appendBody(dst []byte, b *body) []byte {
	for i := range b.rows {
		dst = append(dst, b.terminated(i)...)
	}
	for i := range b.rows {
		dst = binary.LittleEndian.AppendUint32(dst, b.rows[i].klen)
		dst = binary.LittleEndian.AppendUint32(dst, b.rows[i].n)
	}
	for i := range b.rows {
		dst = append(dst, b.key(i)...)
	}
	return dst
}

// decodeBody returns the content that appendBody has written, of so many rows and live bytes. It keeps data.
func decodeBody(data []byte, rows, live int) *body {
	lengths, keys := data[live:live+lengthsSize*rows], data[live+lengthsSize*rows:]
	b := &body{keys: keys[:len(keys):len(keys)], buf: data[:live:live], rows: make([]entry, rows), live: live}
	keyOff, lineOff := uint32(0), uint32(0)
	for i := range b.rows {
		keyLen, lineLen := binary.LittleEndian.Uint32(lengths[lengthsSize*i:]), binary.LittleEndian.Uint32(lengths[lengthsSize*i+4:])
		b.rows[i] = entry{koff: keyOff, klen: keyLen, off: lineOff, n: lineLen}
		keyOff, lineOff = keyOff+keyLen, lineOff+lineLen+uint32(len(terminator))
	}
	return b
}
