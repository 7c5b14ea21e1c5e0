package statefile

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"sync"

	"capture/internal/cgroup"
)

const (
	// maxRowBytes is the maximum size of a row in bytes. Postgres does not accept values of more than 1 GB.
	maxRowBytes = 1 << 30
	// freeRowBytes and maxRatio limit the size of a row in a compressed file. A row may have freeRowBytes bytes, plus
	// maxRatio times the number of bytes read so far from the compressed file. gzip compresses text to between a third and a
	// tenth of its size, and generated text to a hundredth. The highest possible ratio of gzip is 1,032.
	freeRowBytes = 64 << 20
	maxRatio     = 250
	// memoryPerRow is the maximum number of copies of a row in memory while the row is read and restored. In a measurement,
	// the restore of a row of 100 MB took 430 MB in total.
	memoryPerRow = 6
)

// memoryLimit returns the memory limit of the process in bytes, as it was at the first call.
var memoryLimit = sync.OnceValue(cgroup.MemoryLimit)

var (
	errRowTooLong = errors.New("a row is too long for Postgres, or for the memory of this process")
	errRatio      = fmt.Errorf("a row has more than %d times the bytes of the compressed file; if the file is as it should be, decompress it first (gunzip, zstd -d)", maxRatio)
)

// rowInput passes the file to the decoder, and limits the number of bytes that the decoder may read for a row.
type rowInput struct {
	from       *bufio.Reader
	compressed *countingReader // compressed file; nil if the file is plain
	left       int             // number of bytes that may still be read for the current row
	used       int             // number of bytes that have been read for the current row
	free       int64           // freeRowBytes, or a lower limit that a test sets
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
