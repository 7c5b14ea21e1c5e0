package tablecopy

import (
	"cmp"
	"context"
	"fmt"
	"runtime"

	"github.com/jackc/pgx/v5"

	"capture/capture/source"
	"capture/internal/postgres"
)

// A large table is read in ranges of its pages, with one statement per range, so that several connections share the work. The
// ranges are small because the rows of a range wait in memory until all earlier ranges have been inserted.
const (
	rangeBytes         = 4 << 20  // approximate size of a range, in bytes
	bytesPerConnection = 64 << 20 // the copy uses at most one connection for each 64 MB of the table
	maxConnections     = 4
)

// relationSize is the size of a table on the server.
type relationSize struct {
	bytes        int64 // size in bytes, including TOAST tables and their indexes
	rows         int64 // number of rows in the server's statistics; 0 if unknown
	pages        int64 // number of pages of the table itself, or of its largest partition
	tidRangeScan bool  // whether several connections can share the work, each by reading ranges of the table's pages
}

// loadRelationSize queries the size of the table and its number of pages. These pages hold all rows that the transaction of
// conn sees. Later pages can hold only newer rows, and the transaction's lock prevents a rewrite that would move rows there.
//
// PostgreSQL 14 and later can read a range of pages by a TID Range Scan, but only in heap tables. A standby is always read
// over one connection.
func loadRelationSize(ctx context.Context, conn *pgx.Conn, table *postgres.Table) (s relationSize, err error) {
	err = conn.QueryRow(ctx, `
		SELECT s.size, s.rows, s.pages,
			s.heap AND NOT pg_catalog.pg_is_in_recovery() AND pg_catalog.current_setting('server_version_num')::int >= 140000
		FROM (SELECT coalesce(sum(pg_catalog.pg_table_size(c.oid)), 0)::bigint AS size,
				coalesce(sum(greatest(c.reltuples, 0)), 0)::bigint AS rows,
				coalesce(max(pg_catalog.pg_relation_size(c.oid)), 0) / pg_catalog.current_setting('block_size')::int AS pages,
				coalesce(bool_and(c.relkind = 'r' AND a.amname = 'heap'), false) AS heap
			FROM pg_catalog.pg_class c LEFT JOIN pg_catalog.pg_am a ON a.oid = c.relam
			WHERE c.relkind <> 'p' AND c.oid IN `+postgres.TreeSQL("$1")+`) s`,
		table.OID).Scan(&s.bytes, &s.rows, &s.pages, &s.tidRangeScan)
	if err != nil {
		return s, fmt.Errorf("query the table's size: %w", err)
	}
	// To divide the table, connections must export and import a snapshot. For that, sessions must last, which a pooler does not
	// guarantee.
	s.tidRangeScan = s.tidRangeScan && !postgres.Pooled(conn)
	return s, nil
}

// chooseConnections returns the number of connections that read the table.
func (s *relationSize) chooseConnections(o *source.CopyOptions) int {
	n := int64(o.Connections)
	// A connection often waits for the server or for its turn. Therefore, the copy may use one connection more than there are
	// processors.
	if n == 0 {
		n = min(maxConnections, int64(runtime.GOMAXPROCS(0))+1, s.bytes/bytesPerConnection)
	}
	if !s.tidRangeScan {
		return 1
	}
	return int(max(1, min(n, s.pages)))
}

// pagesPerRange returns the number of pages of a range.
func (s *relationSize) pagesPerRange(o *source.CopyOptions) int64 {
	return max(1, s.pages*cmp.Or(o.RangeBytes, rangeBytes)/max(s.bytes, 1))
}

// pageRange is a range of pages that includes start and excludes end. noPage means that there is no limit. The last range of
// a table has no end.
type pageRange struct{ start, end int64 }

const noPage = -1

// whereClause returns the condition that selects the range. In a partitioned table, it selects the pages with these numbers
// in each partition. All ranges together still select each row exactly once.
func (r pageRange) whereClause() string {
	switch {
	case r.start == noPage:
		return ""
	case r.end == noPage:
		return fmt.Sprintf(" WHERE ctid >= '(%d,0)'", r.start)
	}
	return fmt.Sprintf(" WHERE ctid >= '(%d,0)' AND ctid < '(%d,0)'", r.start, r.end)
}
