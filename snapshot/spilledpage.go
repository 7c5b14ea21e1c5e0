package snapshot

import "encoding/binary"

// A page in the spill file consists of the lines with their terminators, then the lengths of each row's key and line, then
// the keys. All three are in key order and without gaps. The lines come first, so that [Part.AppendTo] can read only the
// lines, and [leaf.readKeys] only the rest.

const lengthsSize = 8 // bytes of the two lengths of a row

// appendPage appends p to dst in the format of the spill file.
func appendPage(dst []byte, p *page) []byte {
	for i := range p.entries {
		dst = append(dst, p.lineWithTerminator(i)...)
	}
	for i := range p.entries {
		dst = binary.LittleEndian.AppendUint32(dst, p.entries[i].keyLen)
		dst = binary.LittleEndian.AppendUint32(dst, p.entries[i].lineLen)
	}
	for i := range p.entries {
		dst = append(dst, p.key(i)...)
	}
	return dst
}

// decodePage returns the page that appendPage encoded as data. rows and live are leaf.rows and leaf.live of the page's leaf.
// The page shares the memory of data.
func decodePage(data []byte, rows, live int) *page {
	p := decodeKeys(data[live:], rows)
	p.lines, p.live = data[:live:live], live
	return p
}

// decodeKeys returns the page that appendPage encoded, without its lines. data is the part of the encoded page after the lines.
func decodeKeys(data []byte, rows int) *page {
	lengths, keys := data[:lengthsSize*rows], data[lengthsSize*rows:]
	p := &page{keys: keys[:len(keys):len(keys)], entries: make([]entry, rows)}
	keyOff, lineOff := uint32(0), uint32(0)
	for i := range p.entries {
		keyLen, lineLen := binary.LittleEndian.Uint32(lengths[lengthsSize*i:]), binary.LittleEndian.Uint32(lengths[lengthsSize*i+4:])
		p.entries[i] = entry{keyOff: keyOff, keyLen: keyLen, lineOff: lineOff, lineLen: lineLen}
		keyOff, lineOff = keyOff+keyLen, lineOff+lineLen+uint32(len(terminator))
	}
	return p
}
