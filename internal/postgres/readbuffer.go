package postgres

import (
	"io"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgproto3"
)

// readBufferBytes is the size of a read buffer: enough for many rows per system call.
const readBufferBytes = 256 << 10

// WithReadBuffer returns a copy of cfg for connections that receive rows. These connections read in large pieces, because
// the default buffer of pgx is only as large as the server's send buffer, 8 kB. If a row is larger than maxRow bytes, its
// large values are omitted, so no row takes much more than maxRow bytes of memory; see [OmittedSizes] and package pgoutput.
// The output of COPY stays complete: its messages are split into small pieces instead. If maxRow is 0, only the protocol
// limits the size of a row.
func WithReadBuffer(cfg *pgx.ConnConfig, maxRow int64) *pgx.ConnConfig {
	cfg = cfg.Copy()
	cfg.BuildFrontend = func(r io.Reader, w io.Writer) *pgproto3.Frontend {
		return pgproto3.NewFrontend(newRowLimiter(r, maxRow), w)
	}
	return cfg
}
