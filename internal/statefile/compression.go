package statefile

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"github.com/klauspost/compress/zstd"
)

// compression is the way in which a file is compressed.
type compression string

const (
	notCompressed  compression = ""
	gzipCompressed compression = "gzip"
	zstdCompressed compression = "zstd"
)

// maxWindow is the maximum window of a zstd file in bytes. The decoder keeps the whole window in memory. Without --long, the
// program zstd has the same limit.
const maxWindow = 128 << 20

// openContent finds out from the first bytes of the file how the file is compressed and encoded. It makes f.content return the
// JSON in UTF-8. It returns an error if the file is of a kind that capture does not read.
func (f *File) openContent() error {
	start := peekStart(f.content)
	switch {
	case bytes.HasPrefix(start, []byte{0x1f, 0x8b}):
		z, err := gzip.NewReader(f.content)
		if err != nil {
			return fmt.Errorf("it is not a valid gzip file: %w", err)
		}
		f.compression, f.content = gzipCompressed, bufio.NewReaderSize(z, bufferSize)
	case isZstd(start):
		window := min(maxWindow, uint64(memoryLimit())/memoryPerRow)
		z, err := zstd.NewReader(f.content, zstd.WithDecoderConcurrency(1), zstd.WithDecoderLowmem(true), zstd.WithDecoderMaxWindow(window))
		if err != nil {
			return fmt.Errorf("it is not a valid zstd file: %w", err)
		}
		f.compression, f.content, f.closeDecoder = zstdCompressed, bufio.NewReaderSize(z, bufferSize), z.Close
	}
	if f.compression != notCompressed {
		start = peekStart(f.content)
	}
	if err := refuseSignature(start); err != nil {
		return err
	}
	if order, mark := findUTF16(start); order != nil {
		f.content.Discard(mark)
		f.content, f.transcoded = bufio.NewReaderSize(newUTF16Reader(f.content, order), bufferSize), true
	}
	return nil
}

// signatureBytes is the number of bytes at the start of a file that show what kind of file it is. Only tar needs more than
// a few dozen bytes: its signature begins at byte 257.
const signatureBytes = 512

// peekStart returns the first bytes of a file. If the file looks like JSON, peekStart returns only two bytes, because the
// writer of a pipe may not send more for a while. Otherwise it returns signatureBytes bytes, or fewer if the file is
// shorter.
func peekStart(r *bufio.Reader) []byte {
	start, _ := r.Peek(2)
	if len(start) == 2 && (start[0] == '[' || start[0] == '{') {
		return start
	}
	start, _ = r.Peek(signatureBytes) // a read error occurs again when the file is read
	return start
}

// isZstd reports whether a file starts with a frame of zstd (RFC 8878, section 3.1), which may be a skippable frame.
func isZstd(start []byte) bool {
	if len(start) < 4 {
		return false
	}
	magic := binary.LittleEndian.Uint32(start)
	return magic == 0xFD2FB528 || magic&^0xF == 0x184D2A50
}

// findUTF16 returns the byte order of a UTF-16 file, and the length of its byte order mark. For a file that is not UTF-16, the
// order is nil. Without a mark, findUTF16 looks for a zero byte in the first two bytes. UTF-8 JSON has no zero bytes, but in
// UTF-16 the first character, which is ASCII, has one.
func findUTF16(start []byte) (order binary.ByteOrder, mark int) {
	if len(start) < 2 {
		return nil, 0
	}
	switch {
	case start[0] == 0xFF && start[1] == 0xFE:
		return binary.LittleEndian, 2
	case start[0] == 0xFE && start[1] == 0xFF:
		return binary.BigEndian, 2
	case start[0] != 0 && start[1] == 0:
		return binary.LittleEndian, 0
	case start[0] == 0 && start[1] != 0:
		return binary.BigEndian, 0
	}
	return nil, 0
}

// explainCompression returns err, the error of a read. If the compression explains the error, it returns an error with the
// explanation instead.
func (f *File) explainCompression(err error) error {
	switch {
	case f.compression == zstdCompressed && errors.Is(err, zstd.ErrWindowSizeExceeded):
		return errors.New("the zstd file needs more memory than this process has for it; decompress it first (zstd -d --long=31)")
	case f.compression == zstdCompressed && errors.Is(err, zstd.ErrUnknownDictionary):
		return errors.New("the zstd file was compressed with a dictionary; decompress it first (zstd -d -D DICTIONARY)")
	case f.compression != notCompressed && err != nil && err != io.EOF && f.raw.err == nil:
		return fmt.Errorf("the %s file is cut short or damaged: %w", f.compression, err)
	}
	return err
}
