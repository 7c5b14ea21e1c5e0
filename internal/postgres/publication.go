package postgres

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5"

	"capture/snapshot/rowjson"
)

// maxIdent is the length in bytes to which Postgres cuts names.
const maxIdent = 63

// ddlLockTimeout bounds how long a statement of ours may wait for a lock, and make others wait behind it.
const ddlLockTimeout = "2s"

// objectName is what capture calls its objects for a table in the database, also the channel of notifications:
// capture_votes for public.votes, capture_app__votes for app.votes. Two tables never share one: a name that would be
// ambiguous, too long or not plain gets a hash at its end.
func objectName(n Name) string {
	ambiguous := strings.Contains(n.Table, "__")
	name := "capture_" + plain(n.Table)
	if n.Schema != "public" {
		ambiguous = ambiguous || strings.Contains(n.Schema, "__") || strings.HasSuffix(n.Schema, "_") || strings.HasPrefix(n.Table, "_")
		name = "capture_" + plain(n.Schema) + "__" + plain(n.Table)
	}
	if !ambiguous && plain(n.Schema) == n.Schema && plain(n.Table) == n.Table && len(name) <= maxIdent {
		return name
	}
	sum := sha256.Sum256([]byte(n.Quoted()))
	return name[:min(len(name), maxIdent-9)] + "_" + hex.EncodeToString(sum[:4])
}

// plain is s with all that is not a lower-case letter, digit or underscore made an underscore.
func plain(s string) string {
	return strings.Map(func(r rune) rune {
		if r >= 'a' && r <= 'z' || r >= '0' && r <= '9' || r == '_' {
			return r
		}
		return '_'
	}, s)
}

// ProgramVersion is the version of capture. The comments on objects that capture creates in a database have it. main sets it
// before anything else.
var ProgramVersion = "dev"

// comment is what is written to objects that capture makes, for those who find them.
func comment(what string) string {
	return QuoteLiteral("capture " + ProgramVersion + ": " + what)
}

// publication is one that holds the table, or bears the name that capture would give its own.
type publication struct {
	name        string
	owned       bool
	operations  bool     // publishes inserts, updates, deletes and truncates
	covers      bool     // holds the table under its own name
	filtered    bool     // leaves rows out
	columns     []string // nil for all
	fingerprint string   // see PublicationFingerprint
}

// publications are those that hold the table, and the one called own even if it doesn't.
func publications(ctx context.Context, conn *pgx.Conn, t *Table, own string) ([]publication, error) {
	// The view lists a partitioned table only where its changes are published as its own. What came with later versions
	// than 13 is read through to_jsonb, which has nothing where there is no such column.
	rows, err := conn.Query(ctx, `
		SELECT p.pubname::text, pg_catalog.pg_has_role(p.pubowner, 'USAGE'),
			p.pubinsert AND p.pubupdate AND p.pubdelete AND p.pubtruncate,
			t.tablename IS NOT NULL, pg_catalog.to_jsonb(t)->>'rowfilter' IS NOT NULL,
			CASE WHEN pg_catalog.jsonb_typeof(pg_catalog.to_jsonb(t)->'attnames') = 'array' THEN
				ARRAY(SELECT pg_catalog.jsonb_array_elements_text(pg_catalog.to_jsonb(t)->'attnames')) END,
			`+publicationFingerprintExpr(conn, "$4::oid")+`
		FROM pg_catalog.pg_publication p
		LEFT JOIN pg_catalog.pg_publication_tables t
			ON t.pubname = p.pubname AND t.schemaname = $1::text::name AND t.tablename = $2::text::name
		WHERE p.pubname = $3::text::name OR t.tablename IS NOT NULL
		ORDER BY p.pubname <> $3::text::name, p.pubname`, t.Schema, t.Table, own, t.OID)
	if err != nil {
		return nil, Explain(fmt.Errorf("look for publications of table %s: %w", t.Name(), err))
	}
	pubs, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (p publication, err error) {
		err = row.Scan(&p.name, &p.owned, &p.operations, &p.covers, &p.filtered, &p.columns, &p.fingerprint)
		return p, err
	})
	if err != nil {
		return nil, Explain(fmt.Errorf("look for publications of table %s: %w", t.Name(), err))
	}
	return pubs, nil
}

// fits is nil where the stream of the publication has every change of the table.
func (p *publication) fits(t *Table) error {
	switch {
	case !p.covers:
		return fmt.Errorf("it does not hold the table")
	case !p.operations:
		return fmt.Errorf("it leaves out inserts, updates, deletes or truncates")
	case p.filtered:
		return fmt.Errorf("it leaves rows out by a filter")
	}
	for i, c := range t.Columns {
		if p.columns != nil && !slices.Contains(p.columns, c.Name) && (c.Generated == "" || slices.Contains(t.Key, i)) {
			return fmt.Errorf("it leaves out column %s", displayIdentifier(c.Name))
		}
	}
	return nil
}

// markPublished notes which columns the publication's stream has. Up to 17 the view lists generated ones that are not.
func (p *publication) markPublished(t *Table, version int) {
	for i := range t.Columns {
		c := &t.Columns[i]
		c.Published = c.Generated == "" || version >= 180000 && slices.Contains(p.columns, c.Name)
	}
}

// EnsurePublication returns the name of a publication whose stream has every change of the table, and its fingerprint (see
// [PublicationFingerprint]): capture's own, mended where it can be; or another that serves; or one that it makes. It notes in
// table.Columns what the publication leaves out (generated columns). Its error is a [*Problem] where server or table can't be
// followed by logical replication without harm to the application: a table that a publication would do harm to gets none,
// and loses the one that capture made for it, so that the application's writes go on. conn must not be in a transaction.
func EnsurePublication(ctx context.Context, conn *pgx.Conn, s *Server, table *Table) (name, fingerprint string, err error) {
	if err := s.checkLogical(); err != nil {
		return "", "", err
	}
	own := objectName(table.Name())
	if refused := table.checkIdentity(s.VersionNum); refused != nil {
		return "", "", withdraw(ctx, conn, table, own, refused)
	}
	pubs, err := publications(ctx, conn, table, own)
	if err != nil {
		return "", "", err
	}
	at, statements := table.choose(pubs, own, s.VersionNum)
	var failed error
	if statements != nil {
		failed = change(ctx, conn, statements)
		// Even where that failed: another capture may have done it at the same time.
		if pubs, err = publications(ctx, conn, table, own); err != nil {
			return "", "", err
		}
		at, _ = table.choose(pubs, own, s.VersionNum)
	}
	if at < 0 {
		return "", "", table.unpublished(*s, pubs, own, failed)
	}
	pubs[at].markPublished(table, s.VersionNum)
	return pubs[at].name, pubs[at].fingerprint, nil
}

// PublicationFingerprint is another one after each change of what the publication's stream has of the table, also where that
// has been taken back since; "" where the publication is gone. It costs one statement.
func PublicationFingerprint(ctx context.Context, conn *pgx.Conn, table *Table, name string) (fingerprint string, err error) {
	if err := conn.QueryRow(ctx, publicationFingerprintSQL(conn), name, table.OID).Scan(&fingerprint); err != nil {
		return "", Explain(fmt.Errorf("look at publication %s: %w", name, err))
	}
	return fingerprint, nil
}

func publicationFingerprintSQL(conn *pgx.Conn) string {
	return `SELECT COALESCE((SELECT ` + publicationFingerprintExpr(conn, "$2::oid") + ` FROM pg_catalog.pg_publication p WHERE p.pubname = $1::text::name), '')`
}

// CompareCatalog says what of a table's shape and of its publication is no longer as it was when they had this fingerprint and this
// publication fingerprint (see [PublicationFingerprint]), in one round trip; both are false where all is. Its error is a [*Problem] where the table is
// gone or cannot be followed any more.
func CompareCatalog(ctx context.Context, conn *pgx.Conn, name Name, table *Table, publication, fingerprint string) (shapeChanged, publicationChanged bool, err error) {
	sql, err := preparedCatalog(ctx, conn, name)
	if err != nil {
		return false, false, err
	}
	var c catalogRow
	var row error
	var now string
	b := &pgx.Batch{}
	b.Queue(sql, catalogArgs(name)...).QueryRow(func(r pgx.Row) error { row = c.scan(r); return row })
	b.Queue(publicationFingerprintSQL(conn), publication, table.OID).QueryRow(func(r pgx.Row) error { return r.Scan(&now) })
	err = conn.SendBatch(ctx, b).Close()
	if row == nil && err != nil {
		return false, false, Explain(fmt.Errorf("look at publication %s: %w", publication, err))
	}
	t, err := c.table(ctx, conn, name, row)
	if err != nil {
		return false, false, err
	}
	return t.Fingerprint != table.Fingerprint, now != fingerprint, nil
}

// publicationFingerprintExpr is SQL for the fingerprint of publication p with regard to a table. An entry that was changed has another xmin, one that
// was made anew has another oid. The table may be there by itself, by a table that it is a partition of, or (15 and later)
// by the schema of either.
func publicationFingerprintExpr(conn *pgx.Conn, table string) string {
	entries := `
		SELECT r.oid, r.xmin FROM pg_catalog.pg_publication_rel r JOIN whole ON r.prrelid = whole.oid WHERE r.prpubid = p.oid`
	if majorVersion(conn.PgConn().ParameterStatus("server_version")) >= 15 {
		entries += ` UNION ALL
		SELECT n.oid, n.xmin FROM pg_catalog.pg_publication_namespace n
		WHERE n.pnpubid = p.oid AND n.pnnspid IN (SELECT c.relnamespace FROM pg_catalog.pg_class c JOIN whole ON c.oid = whole.oid)`
	}
	return `p.oid::text || '.' || p.xmin::text || COALESCE((
		WITH whole(oid) AS (SELECT ` + table + ` UNION SELECT relid FROM pg_catalog.pg_partition_ancestors(` + table + `::regclass) relid)
		SELECT ' ' || pg_catalog.string_agg(e.oid::text || '.' || e.xmin::text, ' ' ORDER BY e.oid) FROM (` + entries + `) e), '')`
}

// choose picks the publication to follow (-1 for none), and says what would make or mend capture's own.
func (t *Table) choose(pubs []publication, own string, version int) (at int, statements []string) {
	at = slices.IndexFunc(pubs, func(p publication) bool { return p.fits(t) == nil })
	hasOwn := len(pubs) > 0 && pubs[0].name == own
	switch {
	case hasOwn && pubs[0].owned && (at != 0 || pubs[0].lacksGenerated(t, version)):
		return at, t.alterPublication(version)
	case !hasOwn && at < 0:
		return at, t.createPublication(version)
	}
	return at, nil
}

// lacksGenerated says whether the publication could have stored generated columns in its stream and doesn't.
func (p *publication) lacksGenerated(t *Table, version int) bool {
	return version >= 180000 && slices.ContainsFunc(t.Columns, func(c rowjson.Column) bool {
		return c.Generated == "s" && p.columns != nil && !slices.Contains(p.columns, c.Name)
	})
}

func publicationOptions(version int) string {
	options := "publish = 'insert, update, delete, truncate', publish_via_partition_root = true"
	if version >= 180000 {
		// Also so that a replica identity with such a column does not make the application's writes fail.
		options += ", publish_generated_columns = stored"
	}
	return options
}

func (t *Table) createPublication(version int) []string {
	own := QuoteIdentifier(objectName(t.Name()))
	return []string{
		"CREATE PUBLICATION " + own + " FOR TABLE " + t.Name().Quoted() + " WITH (" + publicationOptions(version) + ")",
		"COMMENT ON PUBLICATION " + own + " IS " + comment("the changes of table "+t.Name().String()),
	}
}

func (t *Table) alterPublication(version int) []string {
	own := QuoteIdentifier(objectName(t.Name()))
	return []string{
		"ALTER PUBLICATION " + own + " SET TABLE " + t.Name().Quoted(),
		"ALTER PUBLICATION " + own + " SET (" + publicationOptions(version) + ")",
	}
}

// unpublished says why there is no publication to follow, and what would make one.
func (t *Table) unpublished(s Server, pubs []publication, own string, failed error) error {
	p := &Problem{
		Summary: fmt.Sprintf("no publication has all changes of table %s", t.Name()),
		Reason:  fmt.Sprintf("user %s may not make one; its owner %s may, with CREATE on the database", s.User, t.facts.Owner),
		Hint:    strings.Join(t.createPublication(s.VersionNum), "; ") + ";",
		Err:     failed,
	}
	if len(pubs) > 0 && pubs[0].name == own {
		p.Reason = fmt.Sprintf("%s exists, but %v, and user %s may not change it", own, pubs[0].fits(t), s.User)
		p.Hint = strings.Join(t.alterPublication(s.VersionNum), "; ") + ";"
	}
	if failed != nil && SQLState(failed) != insufficientPrivilege {
		p.Reason = failed.Error()
	}
	return p
}

// withdraw takes back the publication that capture made for a table that has become unfit for one.
func withdraw(ctx context.Context, conn *pgx.Conn, t *Table, own string, refused error) error {
	pubs, err := publications(ctx, conn, t, own)
	if err != nil {
		return errors.Join(refused, err)
	}
	if len(pubs) > 0 && pubs[0].name == own && pubs[0].owned {
		if err := change(ctx, conn, []string{"DROP PUBLICATION IF EXISTS " + QuoteIdentifier(own)}); err != nil {
			return errors.Join(refused, fmt.Errorf("drop publication %s: %w", own, err))
		}
	}
	return refused
}

// change runs statements that change the database's objects, all or none, without waiting long for a lock: others would
// wait behind it.
func change(ctx context.Context, conn *pgx.Conn, statements []string) error {
	tx, err := Begin(ctx, conn, "ISOLATION LEVEL READ COMMITTED READ WRITE")
	if err != nil {
		return Explain(err)
	}
	defer func() { _ = tx.Rollback(context.WithoutCancel(ctx)) }()
	b := &pgx.Batch{}
	for _, s := range append([]string{"SET LOCAL lock_timeout = '" + ddlLockTimeout + "'"}, statements...) {
		b.Queue(s)
	}
	results := tx.SendBatch(ctx, b)
	for i := range b.Len() {
		if _, err = results.Exec(); err != nil {
			err = fmt.Errorf("%s: %w", b.QueuedQueries[i].SQL, err)
			break
		}
	}
	_ = results.Close() // its error is the one above
	if err != nil {
		return Explain(err)
	}
	return Explain(tx.Commit(ctx))
}
