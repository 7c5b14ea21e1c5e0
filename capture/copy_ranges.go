package capture

import (
	"cmp"
	"context"
	"fmt"
	"runtime"

	"capture/capture/source"
	"capture/internal/postgres"
)

// A large table is read in ranges of its pages, each by a statement of its own, so that several connections can take part.
// The ranges are small: what the connections that are ahead have read waits in memory until its turn.
const (
	rangeBytes = 4 << 20  // of the table, that a range holds, about
	jobBytes   = 64 << 20 // of the table, for each connection that takes part
	jobsMost   = 4        // connections, unless told
	noPage     = -1
)

// layout is how the table lies on the server.
type layout struct {
	size   int64 // bytes, with all that belongs to it
	pages  int64 // of the table itself; of its largest partition
	ranged bool  // the server can read a range of pages without reading the rest
}

// layout asks for it. Rows that the transaction sees lie within these pages: they were there when its snapshot was made,
// and its lock keeps them there.
func (c *tableCopy) layout(ctx context.Context) (l layout, err error) {
	err = c.conn.QueryRow(ctx, `
		SELECT s.size, s.pages,
			s.heap AND NOT pg_catalog.pg_is_in_recovery() AND pg_catalog.current_setting('server_version_num')::int >= 140000
		FROM (SELECT coalesce(sum(pg_catalog.pg_table_size(c.oid)), 0)::bigint AS size,
				coalesce(max(pg_catalog.pg_relation_size(c.oid)), 0) / pg_catalog.current_setting('block_size')::int AS pages,
				coalesce(bool_and(c.relkind = 'r' AND c.relam = 2), false) AS heap -- 2 is heap
			FROM pg_catalog.pg_class c
			WHERE c.relkind <> 'p' AND (c.oid = $1 OR c.oid IN (SELECT relid FROM pg_catalog.pg_partition_tree($1::oid::regclass)))) s`,
		c.tab.OID).Scan(&l.size, &l.pages, &l.ranged)
	if err != nil {
		return l, fmt.Errorf("ask for its size: %w", err)
	}
	l.ranged = l.ranged && !postgres.Pooled(c.conn)
	return l, nil
}

// jobs is over how many connections the table is read.
func (l *layout) jobs(o *source.CopyOptions) int {
	jobs := int64(o.Connections)
	if jobs == 0 { // one more than cores: each waits for the server, or for its turn, much of the time
		jobs = min(jobsMost, int64(runtime.GOMAXPROCS(0))+1, l.size/jobBytes)
	}
	if !l.ranged {
		return 1
	}
	return int(max(1, min(jobs, l.pages)))
}

// step is how many pages a range has.
func (l *layout) step(o *source.CopyOptions) int64 {
	return max(1, l.pages*cmp.Or(o.RangeBytes, rangeBytes)/max(l.size, 1))
}

// part is a range of pages; its rows come as batches, in their order. The last one has no end.
type part struct {
	from, to int64 // noPage for no limit
	batches  chan *rowBatch
}

// where limits the copy to the part. In a partitioned table it takes these pages of each partition: a row lies on one.
func (p *part) where() string {
	switch {
	case p.from == noPage:
		return ""
	case p.to == noPage:
		return fmt.Sprintf(" WHERE ctid >= '(%d,0)'", p.from)
	}
	return fmt.Sprintf(" WHERE ctid >= '(%d,0)' AND ctid < '(%d,0)'", p.from, p.to)
}
