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

// A large table is read in ranges of its pages, each with a statement of its own, so that several connections can share
// the work. The ranges are small, because what a connection reads ahead of the others waits in memory for its turn.
const (
	rangeBytes         = 4 << 20  // size of the table's share that a range holds, about
	bytesPerConnection = 64 << 20 // size of a table that makes another connection worth its while
	maxConnections     = 4
)

// relationSize is the size of a table on the server.
type relationSize struct {
	bytes        int64 // with indexes on TOAST and all else that belongs to its rows
	pages        int64 // number of pages of the table itself; of the largest partition if it has partitions
	tidRangeScan bool  // the server can read a range of pages without reading the rest
}

// loadRelationSize queries the size of the table. All rows that the transaction of conn sees lie within these pages: they
// were there when its snapshot was taken, and its lock keeps them there.
//
// Servers read a range of pages as a TID Range Scan from version 14 on, and only of heap tables. A standby is always read
// over one connection.
func loadRelationSize(ctx context.Context, conn *pgx.Conn, table *postgres.Table) (s relationSize, err error) {
	err = conn.QueryRow(ctx, `
		SELECT s.size, s.pages,
			s.heap AND NOT pg_catalog.pg_is_in_recovery() AND pg_catalog.current_setting('server_version_num')::int >= 140000
		FROM (SELECT coalesce(sum(pg_catalog.pg_table_size(c.oid)), 0)::bigint AS size,
				coalesce(max(pg_catalog.pg_relation_size(c.oid)), 0) / pg_catalog.current_setting('block_size')::int AS pages,
				coalesce(bool_and(c.relkind = 'r' AND a.amname = 'heap'), false) AS heap
			FROM pg_catalog.pg_class c LEFT JOIN pg_catalog.pg_am a ON a.oid = c.relam
			WHERE c.relkind <> 'p' AND (c.oid = $1 OR c.oid IN (SELECT relid FROM pg_catalog.pg_partition_tree($1::oid::regclass)))) s`,
		table.OID).Scan(&s.bytes, &s.pages, &s.tidRangeScan)
	if err != nil {
		return s, fmt.Errorf("query the table's size: %w", err)
	}
	// Exporting a snapshot and importing it needs sessions; a pooler has none to give.
	s.tidRangeScan = s.tidRangeScan && !postgres.Pooled(conn)
	return s, nil
}

// chooseConnections returns the number of connections to read the table over.
func (s *relationSize) chooseConnections(o *source.CopyOptions) int {
	n := int64(o.Connections)
	if n == 0 { // one more than there are cores: each waits for the server, or for its turn, much of the time
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

// pageRange is a range of pages, from start to before end; noPage stands for no limit. The last range of a table has no
// end.
type pageRange struct{ start, end int64 }

const noPage = -1

// whereClause returns the condition that selects the range. In a partitioned table it selects these pages of each
// partition: each row lies on one.
func (r pageRange) whereClause() string {
	switch {
	case r.start == noPage:
		return ""
	case r.end == noPage:
		return fmt.Sprintf(" WHERE ctid >= '(%d,0)'", r.start)
	}
	return fmt.Sprintf(" WHERE ctid >= '(%d,0)' AND ctid < '(%d,0)'", r.start, r.end)
}
