package postgres

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
)

// OpenTransactions contains descriptions of the server's open write transactions. A new replication slot waits until they
// end. A prepared transaction belongs to no session, so pg_stat_activity does not show it, and it stays until somebody ends
// it.
type OpenTransactions struct {
	Sessions []string // the five oldest transactions of sessions
	Prepared []string // the five oldest prepared transactions, each with the statement that ends it
}

// String returns all descriptions in one line, or "" if there are none.
func (o OpenTransactions) String() string {
	return strings.Join(append(o.Sessions, o.Prepared...), ", ")
}

// LoadOpenTransactions finds the open write transactions of all databases, except this session's own.
func LoadOpenTransactions(ctx context.Context, q Querier) (o OpenTransactions, err error) {
	b := &pgx.Batch{}
	b.Queue(`
		SELECT format('pid %s (%s, %s, since %s)', pid, coalesce(usename::text, '?'), coalesce(nullif(state, ''), 'state not visible'),
			to_char(xact_start, 'HH24:MI:SS'))
		FROM pg_catalog.pg_stat_activity WHERE backend_xid IS NOT NULL AND pid <> pg_backend_pid()
		ORDER BY xact_start LIMIT 5`).Query(func(rows pgx.Rows) (err error) {
		o.Sessions, err = pgx.CollectRows(rows, pgx.RowTo[string])
		return err
	})
	b.Queue(`
		SELECT gid, coalesce(owner::text, '?'), database::text,
			extract(epoch FROM clock_timestamp() - prepared)::int8
		FROM pg_catalog.pg_prepared_xacts ORDER BY prepared LIMIT 5`).Query(func(rows pgx.Rows) error {
		var gid, owner, database string
		var age int64
		_, err := pgx.ForEachRow(rows, []any{&gid, &owner, &database, &age}, func() error {
			o.Prepared = append(o.Prepared, fmt.Sprintf("prepared transaction %s of %s in database %s, %s old (ROLLBACK PREPARED %s;)",
				displayIdentifier(gid), displayIdentifier(owner), displayIdentifier(database), time.Duration(age)*time.Second,
				strings.TrimSpace(QuoteLiteral(gid))))
			return nil
		})
		return err
	})
	if err := Pinned(q).SendBatch(ctx, b).Close(); err != nil {
		return o, fmt.Errorf("query the open transactions: %w", err)
	}
	return o, nil
}
