package statefile

import (
	"bufio"
	"fmt"
	"io"
)

// rowInput passes the file to the decoder, and limits the number of bytes that the decoder may read for a row.
type rowInput struct {
	from       *bufio.Reader
	compressed *countingReader // compressed file; nil if the file is plain
	left       int             // number of bytes that may still be read for the current row
	used       int             // number of bytes that have been read for the current row
	free       int64           // freeRowBytes; tests lower it
	err        error           // error of a failed read; nil at the end of the file
}

func (in *rowInput) Read(p []byte) (int, error) {
	switch {
	case in.left <= 0:
		in.err = fmt.Errorf("%w: it has more than %d bytes", errRowTooLong, in.used)
		return 0, in.err
	case in.compressed != nil && int64(in.used) > in.free+maxRatio*in.compressed.bytes:
		in.err = errRatio
		return 0, in.err
	}
	// A decoder with a large buffer must not read far ahead, because replaceDecoder copies the bytes that have been read
	// ahead.
	n, err := in.from.Read(p[:min(len(p), in.left, bufferSize)])
	in.left, in.used = in.left-n, in.used+n
	if err != nil && err != io.EOF {
		in.err = err
	}
	return n, err
}

// countingReader counts the bytes that it reads.
type countingReader struct {
	from  io.Reader
	bytes int64
	err   error // error of a failed read; nil at the end
}

func (c *countingReader) Read(p []byte) (int, error) {
	n, err := c.from.Read(p)
	c.bytes += int64(n)
	if err != nil && err != io.EOF {
		c.err = err
	}
	return n, err
}
