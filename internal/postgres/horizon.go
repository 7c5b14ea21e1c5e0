package postgres

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"strconv"
	"strings"

	"github.com/jackc/pglogrepl"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"capture/snapshot"
)

// Moment describes one snapshot of the database, and where a table is stored at that time. See [snapshot.Horizon].
type Moment struct {
	Xmin, Xmax uint64        // limits of the snapshot, as pg_current_snapshot returns them
	LSN        pglogrepl.LSN // WAL position after everything that the snapshot shows
	Started    int64         // start time of the server, in microseconds since 1970
	Files      string        // digest of the table's files; see [snapshot.Place]
	Heap       bool          // whether all of the table is stored in ordinary, logged heap tables

	databaseOID uint32
}

// momentSQL returns a query for a Moment of the table. The statement's snapshot is taken before the WAL position is read, so every
// transaction that the snapshot shows as ended has its WAL below that position. On a standby, the WAL position is the replay
// position.
func momentSQL(table *Table) string {
	return `
	SELECT pg_catalog.pg_snapshot_xmin(s.now)::pg_catalog.text::pg_catalog.int8,
		pg_catalog.pg_snapshot_xmax(s.now)::pg_catalog.text::pg_catalog.int8,
		` + walPositionSQL + `,
		` + serverStartSQL + `,
		(SELECT d.oid::pg_catalog.int8 FROM pg_catalog.pg_database d WHERE d.datname = pg_catalog.current_database()),
		c.heap, c.files
	FROM (SELECT pg_catalog.pg_current_snapshot() AS now) s,
		(SELECT COALESCE(pg_catalog.bool_and(c.relam = 2 AND c.relkind = 'r' AND c.relpersistence = 'p'), false) AS heap, -- 2 is heap, whatever its name
			COALESCE(pg_catalog.string_agg(c.oid || ':' || c.relfilenode || ':' || c.reltoastrelid, ' ' ORDER BY c.oid), '') AS files
		FROM pg_catalog.pg_class c
		WHERE c.relkind <> 'p' AND c.oid IN ` + TreeSQL(oidLiteral(table)) + `) c`
}

// serverStartSQL is an expression for the start time of the server, in microseconds since 1970.
const serverStartSQL = "(pg_catalog.date_part('epoch', pg_catalog.pg_postmaster_start_time()) OPERATOR(pg_catalog.*) 1000000)::pg_catalog.int8"

// LoadServerStart returns the start time of the server of a replication connection, as in [snapshot.Place]. It returns 0 if
// the server refuses to show the start time.
func LoadServerStart(ctx context.Context, conn *pgconn.PgConn) (started int64, err error) {
	results, err := conn.Exec(ctx, "SELECT "+serverStartSQL).ReadAll()
	if err != nil && !conn.IsClosed() && ctx.Err() == nil {
		return 0, nil
	}
	if err == nil && len(results) == 1 && len(results[0].Rows) == 1 {
		started, err = strconv.ParseInt(string(results[0].Rows[0][0]), 10, 64)
	}
	if err != nil {
		return 0, fmt.Errorf("query the server's start time: %w", err)
	}
	return started, nil
}

// LoadMoment reads the Moment of the snapshot of conn's open transaction. If the server refuses to show it, LoadMoment returns
// the zero Moment, and the transaction can still be used.
func LoadMoment(ctx context.Context, conn *pgx.Conn, table *Table) (m Moment, err error) {
	b := &pgx.Batch{}
	b.Queue("SAVEPOINT capture_moment")
	b.Queue(momentSQL(table)).QueryRow(func(r pgx.Row) error { return m.scan(r) })
	b.Queue("RELEASE SAVEPOINT capture_moment")
	err = conn.SendBatch(ctx, b).Close()
	if err != nil && !conn.IsClosed() && ctx.Err() == nil {
		m = Moment{}
		_, err = conn.Exec(ctx, "ROLLBACK TO SAVEPOINT capture_moment; RELEASE SAVEPOINT capture_moment", pgx.QueryExecModeSimpleProtocol)
	}
	if err != nil {
		return Moment{}, fmt.Errorf("query the files of table %s: %w", table.Name(), err)
	}
	return m, nil
}

func (m *Moment) scan(row pgx.Row) (err error) {
	var files string
	var lsn *string
	if err := row.Scan(&m.Xmin, &m.Xmax, &lsn, &m.Started, &m.databaseOID, &m.Heap, &files); err != nil {
		return err
	}
	if lsn != nil {
		if m.LSN, err = parseWALPosition(*lsn); err != nil {
			return err
		}
	}
	sum := sha256.Sum256([]byte(files))
	m.Files = hex.EncodeToString(sum[:16])
	return nil
}

// Horizon returns the horizon of the Moment's snapshot. The horizon is valid only for rows in memory that include everything
// that the snapshot shows. systemID and timeline identify the server.
func (m *Moment) Horizon(systemID string, timeline int32, table *Table) *snapshot.Horizon {
	return &snapshot.Horizon{XID: m.Xmin, LSN: m.LSN, Place: snapshot.Place{
		SystemID: systemID, Timeline: timeline, Started: m.Started, DatabaseOID: m.databaseOID,
		TableOID: table.OID, Files: m.Files, Fingerprint: table.Fingerprint,
	}}
}

// changedCondition returns an SQL condition that is true for the row versions that transaction xid or a later transaction
// wrote.
//
// In SQL, age(xid) is the distance from a transaction ID to the next transaction ID. Within one transaction, age always uses
// the same next ID. The distance is modulo 2^32, so the condition also selects some versions that are more than 2^31
// transactions old. It does no harm to read these versions again. pg_surgery and servers before 9.4 replaced old transaction
// IDs with special IDs below 3, whose age is always 2147483647. The condition selects versions with such an ID, too, because
// their real age is unknown.
func changedCondition(xid uint64) string {
	return fmt.Sprintf("(pg_catalog.age(xmin) BETWEEN 0 AND (SELECT pg_catalog.age('%d'::pg_catalog.xid)) OR pg_catalog.age(xmin) = 2147483647)", uint32(xid))
}

// ChangesQuery returns a COPY statement that sends each row's key and a composite value. If transaction xid or a later
// transaction wrote the row, the value has the columns of [Table.SelectList]. For any other row, the value is NULL. whereClause
// is "" or a condition with its keyword (" WHERE …").
func (t *Table) ChangesQuery(xid uint64, whereClause string) string {
	var list []string
	for _, k := range t.Key {
		list = append(list, t.selectExprs[k])
	}
	row := "ROW(" + t.SelectList() + ")"
	return "COPY (SELECT " + strings.Join(list, ", ") + ", CASE WHEN " + changedCondition(xid) + " THEN " + row + " END FROM " +
		t.FromClause() + whereClause + ") TO STDOUT (FORMAT binary)"
}

// SampleChanges reads about the given percentage of the table's pages. It returns the number of rows on these pages, and how
// many of these rows were written by transaction xid or a later transaction. age is the distance from xid to the next
// transaction ID as a signed 32-bit number, so it is negative if the distance is 2^31 or more.
func (t *Table) SampleChanges(ctx context.Context, q Querier, xid uint64, percent float64) (rows, changed int64, age int32, err error) {
	err = Pinned(q).QueryRow(ctx, fmt.Sprintf("SELECT count(*), count(*) FILTER (WHERE %s), pg_catalog.age('%d'::pg_catalog.xid) FROM %s TABLESAMPLE SYSTEM (%.6f)",
		changedCondition(xid), uint32(xid), t.FromClause(), percent)).Scan(&rows, &changed, &age)
	if err != nil {
		return 0, 0, 0, fmt.Errorf("estimate the changes of table %s: %w", t.Name(), err)
	}
	return rows, changed, age, nil
}

// UnstableType returns the name of an unstable type in the table's columns, or "" if there is none. The text of a value of
// such a type may change although neither its row nor the table's fingerprint has changed. Types that print the names of
// other objects are unstable, and so are types with a cast to json, because the cast's function may do anything.
func (t *Table) UnstableType() string { return t.unstableType }
