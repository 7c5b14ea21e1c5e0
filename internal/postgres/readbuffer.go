package postgres

import (
	"bufio"
	"io"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgproto3"
)

// readBufferBytes is the size of a read buffer: enough for many rows per system call.
const readBufferBytes = 256 << 10

// WithReadBuffer returns a copy of cfg whose connections read in large pieces, for those that receive many rows. The
// usual buffer of pgx has the size of the server's send buffer, 8 kB.
func WithReadBuffer(cfg *pgx.ConnConfig) *pgx.ConnConfig {
	cfg = cfg.Copy()
	cfg.BuildFrontend = func(r io.Reader, w io.Writer) *pgproto3.Frontend {
		return pgproto3.NewFrontend(bufio.NewReaderSize(r, readBufferBytes), w)
	}
	return cfg
}
