package postgres

import (
	"context"
	"fmt"

	"github.com/jackc/pgx/v5"
)

// TableFingerprint returns the current fingerprint of the table's shape; see [rowjson.Shape]. It usually takes one round trip.
// The error is a [*Problem] if the table no longer exists or can no longer be followed.
func TableFingerprint(ctx context.Context, conn *pgx.Conn, name Name) (string, error) {
	var row catalogRow
	t, err := row.newTable(ctx, conn, name, row.read(ctx, conn, name, false, nil, nil))
	if err != nil {
		return "", err
	}
	return t.Fingerprint, nil
}

// CompareCatalog reports whether the table's shape has changed since the table was loaded, and whether its publication has
// changed since [FindPublication] returned fingerprint. It usually takes one round trip. The error is a [*Problem] if the table
// no longer exists or can no longer be followed.
//
// If m is not nil, CompareCatalog reads a Moment into *m before it compares. So if it reports no change, shape and
// publication were unchanged at this Moment, too. If the server refuses to show the Moment, *m is zero.
func CompareCatalog(ctx context.Context, conn *pgx.Conn, name Name, table *Table, publication, fingerprint string, m *Moment) (shapeChanged, publicationChanged bool, err error) {
	var now string
	var row catalogRow
	var momentErr error
	session := catalogSessionOf(conn)
	queryMoment := func(b *pgx.Batch) {
		if m != nil {
			b.Queue(session.queuePrepare(b, "capture_moment", momentSQL(table))).QueryRow(func(r pgx.Row) error {
				momentErr = m.scan(r)
				return momentErr
			})
		}
	}
	queryPublication := func(b *pgx.Batch) {
		sql := publicationFingerprintSQL(conn, publication, table)
		b.Queue(session.queuePrepare(b, "capture_publication", sql)).QueryRow(func(r pgx.Row) error { return r.Scan(&now) })
	}
	err = row.read(ctx, conn, name, false, queryMoment, queryPublication)
	if momentErr != nil && !conn.IsClosed() && ctx.Err() == nil {
		*m = Moment{}
		return CompareCatalog(ctx, conn, name, table, publication, fingerprint, nil)
	}
	if row.done && row.err == nil && err != nil {
		return false, false, Explain(fmt.Errorf("read publication %s: %w", publication, err))
	}
	t, err := row.newTable(ctx, conn, name, err)
	if err != nil {
		return false, false, err
	}
	return t.Fingerprint != table.Fingerprint, now != fingerprint, nil
}

// publicationFingerprintSQL returns a query for a publication's fingerprint with respect to a table. The result is empty if the
// publication does not exist.
func publicationFingerprintSQL(conn *pgx.Conn, publication string, table *Table) string {
	return `SELECT COALESCE((SELECT ` + publicationFingerprintExpr(conn, oidLiteral(table)) + ` FROM pg_catalog.pg_publication p
		WHERE p.pubname = ` + QuoteLiteral(publication) + `), '')`
}

// oidLiteral returns the table's OID as an SQL constant.
func oidLiteral(table *Table) string { return fmt.Sprintf("'%d'::pg_catalog.oid", table.OID) }

// publicationFingerprintExpr returns an SQL expression for the fingerprint of publication p for a table. tableOID is an SQL
// expression for the table's OID. The fingerprint changes whenever a statement changes what p publishes of the table. The
// fingerprint does not return to its old value if that change is reverted: an updated catalog row has a new xmin, and a row
// that was deleted and inserted again has a new OID. A publication may list the table itself, a partitioned table that
// contains it, or (since version 15) the schema of either.
//
// If p does not list the table itself, ALTER TABLE can take the table out of p and bring it back: with SET UNLOGGED, SET SCHEMA
// or DETACH PARTITION. SET SCHEMA and DETACH PARTITION can also change a partitioned table that contains the table. These
// statements update the row in pg_class, so the fingerprint includes the xmin of this row. TRUNCATE, GRANT and rewrites also
// give the row a new xmin, but VACUUM and ANALYZE do not. A publication that lists the table and contains nothing else, such as
// capture's own publication, cannot lose the table in this way. So its fingerprint does not depend on pg_class.
func publicationFingerprintExpr(conn *pgx.Conn, tableOID string) string {
	hasSchemas := hasSchemaPublications(conn)
	hasMore := `p.puballtables OR EXISTS (SELECT FROM pg_catalog.pg_publication_rel r WHERE r.prpubid = p.oid AND r.prrelid <> ` + tableOID + `)`
	if hasSchemas {
		hasMore += ` OR EXISTS (SELECT FROM pg_catalog.pg_publication_namespace n WHERE n.pnpubid = p.oid)`
	}
	entries := `
		SELECT r.oid, r.xmin FROM pg_catalog.pg_publication_rel r JOIN whole ON r.prrelid = whole.oid WHERE r.prpubid = p.oid
		UNION ALL
		SELECT c.oid, c.xmin FROM pg_catalog.pg_class c JOIN whole ON c.oid = whole.oid
		WHERE NOT EXISTS (SELECT FROM pg_catalog.pg_publication_rel r WHERE r.prpubid = p.oid AND r.prrelid = c.oid) AND (` + hasMore + `)`
	if hasSchemas {
		entries += ` UNION ALL
		SELECT n.oid, n.xmin FROM pg_catalog.pg_publication_namespace n
		WHERE n.pnpubid = p.oid AND n.pnnspid IN (SELECT c.relnamespace FROM pg_catalog.pg_class c JOIN whole ON c.oid = whole.oid)`
	}
	return `p.oid::text || '.' || p.xmin::text || COALESCE((
		WITH whole(oid) AS (SELECT ` + tableOID + ` UNION SELECT relid FROM pg_catalog.pg_partition_ancestors(` + tableOID + `::regclass) relid)
		SELECT ' ' || pg_catalog.string_agg(e.oid::text || '.' || e.xmin::text, ' ' ORDER BY e.oid) FROM (` + entries + `) e), '')`
}

// hasSchemaPublications reports whether the server has publications of all tables in a schema, which exist since version 15.
func hasSchemaPublications(conn *pgx.Conn) bool {
	return majorVersion(conn.PgConn().ParameterStatus("server_version")) >= 15
}
