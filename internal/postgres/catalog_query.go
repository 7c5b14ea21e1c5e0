package postgres

import (
	"context"
	_ "embed"
	"errors"
	"strconv"
	"strings"
	"text/template"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

var (
	// resolveSQL finds the table by its name.
	//
	//go:embed resolve.sql
	resolveSQL string
	// ownNamesSQL returns the column types and default expressions as the session's own search path shows them; see
	// [ownName].
	//
	//go:embed own_names.sql
	ownNamesSQL string
	// catalogTemplate is the template of [plainTable] and [anyTable].
	//
	//go:embed catalog.sql.tmpl
	catalogTemplate string
)

const (
	ownPathSQL   = "SELECT pg_catalog.set_config('search_path', NULL, true)" // NULL restores the default, like SET … TO DEFAULT
	emptyPathSQL = "SELECT pg_catalog.set_config('search_path', '', true)"
)

// catalogQuery is a query for the catalog of a table. It returns at most one row with two JSON documents; see [catalogEntry]
// and [facts].
type catalogQuery struct {
	name string // see queuePrepare
	sql  string
}

// plainTable is much faster than anyTable, but returns no row if the table is not plain. catalog.sql.tmpl tells which tables
// are plain.
var (
	plainTable = newCatalogQuery("capture_plain_catalog", false)
	anyTable   = newCatalogQuery("capture_catalog", true)
)

func newCatalogQuery(name string, anyTable bool) catalogQuery {
	var sql strings.Builder
	t := template.Must(template.New(name).Parse(catalogTemplate))
	if err := t.Execute(&sql, struct{ Any bool }{anyTable}); err != nil {
		panic(err)
	}
	return catalogQuery{name, sql.String()}
}

// catalogRow holds the results of the statements that read sends.
type catalogRow struct {
	entry, facts string // documents of a catalogQuery; see [catalogEntry] and [facts]
	ownNames     string // JSON result of ownNamesSQL; empty if ownNamesSQL was not sent
	done         bool   // whether the query's result was read
	err          error  // error from reading the query's result
}

// read reads a table's catalog into c, in one round trip if the table is plain. If before and after are not nil, they add
// statements at the start and at the end of the batch. If the table is not plain, read sends the batch a second time, with
// the query anyTable instead of plainTable. From then on, the session sends anyTable first. read returns the error of the
// batch.
//
// If own is true, read also runs ownNamesSQL. In any case, read changes the search path until the end of the transaction. If q
// is not in a transaction block, Postgres runs the batch as a transaction of its own, so the change ends with the batch's Sync
// message.
func (c *catalogRow) read(ctx context.Context, q Querier, name Name, own bool, before, after func(*pgx.Batch)) error {
	s := catalogSessionOf(q)
	query := plainTable
	if s.notPlain {
		query = anyTable
	}
	for {
		b := &pgx.Batch{}
		if before != nil {
			before(b)
		}
		c.queue(b, s, query, name, own)
		if after != nil {
			after(b)
		}
		err := Pinned(q).SendBatch(ctx, b).Close()
		if query == anyTable {
			s.notPlain = s.notPlain || c.done && c.err == nil
			return err
		}
		if !errors.Is(c.err, pgx.ErrNoRows) {
			return err
		}
		query, c.done, c.err = anyTable, false, nil
	}
}

// queue adds the statements to b that read the catalog's data about a table into c.
func (c *catalogRow) queue(b *pgx.Batch, s *catalogSession, query catalogQuery, name Name, own bool) {
	low := name.foldCase()
	b.Queue(ownPathSQL)
	b.Queue(resolveSQL, name.Schema, name.Table, low.Schema, low.Table)
	if own {
		b.Queue(ownNamesSQL).QueryRow(func(r pgx.Row) error { return r.Scan(&c.ownNames) })
	}
	b.Queue(emptyPathSQL)
	b.Queue(s.queuePrepare(b, query.name, query.sql)).QueryRow(func(r pgx.Row) error {
		c.err = r.Scan(&c.entry, &c.facts)
		c.done = true
		return c.err
	})
}

// catalogSession is what a session remembers about its queries of the catalog.
type catalogSession struct {
	prepared map[string]string // names of the prepared statements, by their SQL; nil if queries are not prepared
	attempts int               // number of attempts to prepare a query
	notPlain bool              // whether the session has read a table that is not plain; see plainTable
}

// catalogSessionOf returns what the session of q remembers. Through a pooler, queries are not prepared, because the next batch
// may run in another server session.
func catalogSessionOf(q Querier) *catalogSession {
	conn := connOf(q)
	if conn == nil {
		return &catalogSession{}
	}
	const key = "capture.catalog" // key in a connection's custom data
	data := conn.PgConn().CustomData()
	s, _ := data[key].(*catalogSession)
	if s == nil {
		s = &catalogSession{}
		if !Pooled(conn) {
			s.prepared = map[string]string{}
		}
		data[key] = s
	}
	return s
}

// queuePrepare returns a statement that runs the query. A session runs most queries of the catalog several times, and planning
// takes most of a query's time. So queuePrepare adds a PREPARE statement to b, unless the session has prepared the query
// already. A Parse message of the protocol would take another round trip. The query must not have parameters: with parameters,
// Postgres would plan it again for each of the first executions.
//
// The name of the prepared statement consists of name and a number. Each attempt to prepare a query uses another number,
// because a failed attempt may have left a prepared statement behind: if capture cannot read the batch's results, it does
// not learn whether the statement exists. A rollback does not remove prepared statements.
func (s *catalogSession) queuePrepare(b *pgx.Batch, name, query string) (sql string) {
	if s.prepared == nil {
		return query
	}
	statement, prepared := s.prepared[query]
	if !prepared {
		s.attempts++
		statement = name + "_" + strconv.Itoa(s.attempts)
		b.Queue("PREPARE " + statement + " AS " + query).Exec(func(pgconn.CommandTag) error {
			s.prepared[query] = statement
			return nil
		})
	}
	return "EXECUTE " + statement
}

// connOf returns the connection of q, or nil if it is not known.
func connOf(q Querier) *pgx.Conn {
	switch q := q.(type) {
	case *pgx.Conn:
		return q
	case pgx.Tx:
		return q.Conn()
	}
	return nil
}
