package postgres

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5"

	"capture/internal/foreign"
	"capture/snapshot/rowjson"
)

// publication is a publication that contains the table, or that has the name of capture's own publication for the table.
type publication struct {
	name        string
	owner       string
	otherName   string   // unused name for another publication with the same purpose
	trusted     bool     // whether capture can trust the owner; see publicationOwnerSQL
	superuser   bool     // whether the owner is a superuser
	member      bool     // whether the owner is a member of the user's role, so that the owner may give the publication to the user
	hasRights   bool     // whether the user has the rights of the owner
	alterable   bool     // whether the user may alter and drop the publication, and the owner is trusted
	listed      bool     // whether the table is on the publication's list, under whatever name it is published
	ancestors   bool     // whether the publication also has an ancestor of the table: a partitioned table that contains it
	operations  bool     // whether all four operations are published: inserts, updates, deletes and truncates
	viaRoot     bool     // whether partitions are published under the name of the partitioned table that is on the list
	hasTable    bool     // whether the table is published under its own name
	filtered    bool     // whether a row filter leaves rows out
	columns     []string // names of the published columns; nil means all
	fingerprint string   // see publicationFingerprintExpr
}

// Errors of [FindPublication]. After such an error, capture calls [EnsurePublication] if it can follow the table by logical
// replication.
var (
	ErrPublicationMissing    = errors.New("capture's publication does not exist yet")
	ErrPublicationIncomplete = errors.New("capture's publication does not have all changes of the table")
)

// FindPublication returns the name of a publication whose stream has every change of the table, and the publication's
// fingerprint for [CompareCatalog]. In the Published field of each column of the table, it records whether the stream will
// have the column. conn must not be in a transaction.
//
// FindPublication creates and repairs no publication. If capture's own publication must be created or repaired, and
// [EnsurePublication] can do so, the error is ErrPublicationMissing or ErrPublicationIncomplete. If logical replication of this
// table on this server is impossible or would harm the application, the error is a [*Problem]. If the table's replica identity
// is the reason, FindPublication also tries to drop capture's own publication, because this publication could make the
// application's UPDATE and DELETE fail.
func FindPublication(ctx context.Context, conn *pgx.Conn, s *Server, table *Table) (name, fingerprint string, err error) {
	name, fingerprint, _, err = findPublication(ctx, conn, s, table)
	return name, fingerprint, err
}

// findPublication does the work of [FindPublication]. With ErrPublicationMissing or ErrPublicationIncomplete, it also returns
// the statements that create or repair capture's own publication.
func findPublication(ctx context.Context, conn *pgx.Conn, s *Server, table *Table) (name, fingerprint string, statements []string, err error) {
	own := objectName(table.Name())
	// Check the replica identity before the server's settings. If a published table has no usable replica identity, Postgres
	// refuses the application's UPDATE and DELETE at any wal_level. So the publication must be dropped even if wal_level is too
	// low for logical replication.
	if refusal := table.checkReplicaIdentity(s.VersionNum); refusal != nil && s.VersionNum >= MinVersion && !s.InRecovery {
		return "", "", nil, dropOwnPublication(ctx, conn, table, own, refusal)
	}
	if err := s.checkLogicalReplication(); err != nil {
		return "", "", nil, err
	}
	publications, err := findPublications(ctx, conn, table, own)
	if err != nil {
		return "", "", nil, err
	}
	chosen, statements := table.choosePublication(publications, own, s.VersionNum)
	switch {
	case statements == nil:
		name, fingerprint, err = table.usePublication(s, publications, chosen, own, nil)
		return name, fingerprint, nil, err
	case ownPublication(publications, own) != nil:
		return "", "", statements, ErrPublicationIncomplete
	}
	return "", "", statements, ErrPublicationMissing
}

// EnsurePublication returns what [FindPublication] returns, but first creates or repairs capture's own publication if
// necessary. If this publication is incomplete and the user may repair it, EnsurePublication repairs it. If no publication is
// complete and the user may create one, EnsurePublication creates capture's own publication. Call EnsurePublication only if
// capture can follow the table. A publication that nobody follows has only drawbacks for the application.
func EnsurePublication(ctx context.Context, conn *pgx.Conn, s *Server, table *Table) (name, fingerprint string, err error) {
	name, fingerprint, statements, err := findPublication(ctx, conn, s, table)
	if !errors.Is(err, ErrPublicationMissing) && !errors.Is(err, ErrPublicationIncomplete) {
		return name, fingerprint, err
	}
	ddlErr := runDDL(ctx, conn, statements)
	// Query again even after an error: another capture may have run the same statements at the same time.
	own := objectName(table.Name())
	publications, err := findPublications(ctx, conn, table, own)
	if err != nil {
		return "", "", err
	}
	chosen, _ := table.choosePublication(publications, own, s.VersionNum)
	return table.usePublication(s, publications, chosen, own, ddlErr)
}

// usePublication returns the name and the fingerprint of the chosen publication, and sets the columns' field Published. If
// chosen is negative, no publication is complete, and usePublication returns the result of noPublicationProblem, which also
// explains ddlErr.
func (t *Table) usePublication(s *Server, publications []publication, chosen int, own string, ddlErr error) (name, fingerprint string, err error) {
	if chosen < 0 {
		return "", "", t.noPublicationProblem(s, publications, own, ddlErr)
	}
	p := &publications[chosen]
	p.setPublished(t, s.VersionNum)
	return p.name, p.fingerprint, nil
}

// findPublications returns the publications that contain the table. The caller passes the name of capture's own publication.
// If this publication exists, it is the first in the result, even if it does not contain the table.
func findPublications(ctx context.Context, conn *pgx.Conn, t *Table, own string) (publications []publication, err error) {
	// pg_publication_tables lists a partitioned table only if its changes are published under its own name. Some columns of
	// this view do not exist in version 13; to_jsonb gives NULL for a missing column.
	oid, other := oidLiteral(t), QuoteLiteral(own[:min(len(own), maxNameBytes-3)]+"_")
	sql := `
		SELECT p.pubname::text, pg_catalog.pg_get_userbyid(p.pubowner)::text,
			(SELECT ` + other + ` || i FROM pg_catalog.generate_series(2, 99) i
				WHERE NOT EXISTS (SELECT FROM pg_catalog.pg_publication o WHERE o.pubname = (` + other + ` || i)::name) ORDER BY i LIMIT 1),
			` + publicationOwnerSQL(oid) + `,
			EXISTS (SELECT FROM pg_catalog.pg_roles o WHERE o.oid = p.pubowner AND o.rolsuper),
			pg_catalog.pg_has_role(p.pubowner, (SELECT o.oid FROM pg_catalog.pg_roles o WHERE o.rolname = current_user), CASE WHEN pg_catalog.current_setting('server_version_num')::int >= 160000 THEN 'SET' ELSE 'MEMBER' END),
			pg_catalog.pg_has_role(p.pubowner, 'USAGE'),
			EXISTS (SELECT FROM pg_catalog.pg_publication_rel r WHERE r.prpubid = p.oid AND r.prrelid = ` + oid + `),
			EXISTS (SELECT FROM pg_catalog.pg_partition_ancestors(` + oid + `::regclass) a(oid) WHERE a.oid <> ` + oid + ` AND (` + containsSQL(conn, "a.oid") + `)),
			p.pubinsert AND p.pubupdate AND p.pubdelete AND p.pubtruncate, p.pubviaroot,
			t.tablename IS NOT NULL, pg_catalog.to_jsonb(t)->>'rowfilter' IS NOT NULL,
			CASE WHEN pg_catalog.jsonb_typeof(pg_catalog.to_jsonb(t)->'attnames') = 'array' THEN
				ARRAY(SELECT pg_catalog.jsonb_array_elements_text(pg_catalog.to_jsonb(t)->'attnames')) END,
			` + publicationFingerprintExpr(conn, oid) + `
		FROM pg_catalog.pg_publication p
		LEFT JOIN pg_catalog.pg_publication_tables t
			ON t.pubname = p.pubname AND t.schemaname = ` + QuoteLiteral(t.Schema) + ` AND t.tablename = ` + QuoteLiteral(t.Table) + `
		WHERE p.pubname = ` + QuoteLiteral(own) + ` OR t.tablename IS NOT NULL
		ORDER BY p.pubname <> ` + QuoteLiteral(own) + `, p.pubname`
	b := &pgx.Batch{}
	b.Queue(catalogSessionOf(conn).queuePrepare(b, "capture_publications", sql)).Query(func(rows pgx.Rows) (err error) {
		publications, err = pgx.CollectRows(rows, func(row pgx.CollectableRow) (p publication, err error) {
			err = row.Scan(&p.name, &p.owner, &p.otherName, &p.trusted, &p.superuser, &p.member, &p.hasRights, &p.listed, &p.ancestors, &p.operations, &p.viaRoot, &p.hasTable, &p.filtered, &p.columns, &p.fingerprint)
			p.alterable = p.hasRights && p.trusted
			return p, err
		})
		return err
	})
	if err := Pinned(conn).SendBatch(ctx, b).Close(); err != nil {
		return nil, Explain(fmt.Errorf("find publications of table %s: %w", t.Name(), err))
	}
	return publications, nil
}

// containsSQL returns an SQL condition that is true if publication p lists a table or the table's schema. tableOID is an SQL
// expression for the table's OID.
func containsSQL(conn *pgx.Conn, tableOID string) string {
	condition := `EXISTS (SELECT FROM pg_catalog.pg_publication_rel r WHERE r.prpubid = p.oid AND r.prrelid = ` + tableOID + `)`
	if hasSchemaPublications(conn) {
		condition += ` OR EXISTS (SELECT FROM pg_catalog.pg_publication_namespace n JOIN pg_catalog.pg_class c ON c.relnamespace = n.pnnspid
			WHERE n.pnpubid = p.oid AND c.oid = ` + tableOID + `)`
	}
	return condition
}

// publicationOwnerSQL returns an SQL condition that is true if capture can trust the owner of publication p. capture never
// alters or drops a publication of an owner that it does not trust, even if the publication has the name of capture's own
// publication. capture trusts the owners that trustedOwnerSQL accepts, and a role that may replicate and read the table, such
// as capture's own role. Such a role can follow the table in any case, so it gains nothing by owning the publication.
func publicationOwnerSQL(table string) string {
	return `(` + trustedOwnerSQL("p.pubowner", table) + ` OR EXISTS (SELECT FROM pg_catalog.pg_roles o WHERE o.oid = p.pubowner
			AND (o.rolreplication OR EXISTS (SELECT FROM pg_catalog.pg_auth_members m JOIN pg_catalog.pg_roles g ON g.oid = m.roleid
				WHERE m.member = o.oid AND g.rolname = 'rds_replication')))
		AND COALESCE(pg_catalog.has_table_privilege(p.pubowner, ` + table + `, 'SELECT'), true))`
}

// ownPublication returns capture's own publication from the result of findPublications, or nil if it does not exist.
func ownPublication(publications []publication, own string) *publication {
	if len(publications) > 0 && publications[0].name == own {
		return &publications[0]
	}
	return nil
}

// checkComplete returns nil if the publication's stream has every change of the table. Otherwise it returns an error that
// names what is missing.
func (p *publication) checkComplete(t *Table) error {
	switch {
	case !p.hasTable:
		return errors.New("it does not contain the table")
	case !p.operations:
		return errors.New("it leaves out inserts, updates, deletes or truncates")
	case p.filtered:
		return errors.New("its row filter leaves rows out")
	}
	if column := p.leftOutColumn(t); column != "" {
		return fmt.Errorf("it leaves out column %s", displayIdentifier(column))
	}
	return nil
}

// leftOutColumn returns a column that the publication must have but leaves out, or "".
func (p *publication) leftOutColumn(t *Table) string {
	for i, c := range t.Columns {
		if p.columns != nil && !slices.Contains(p.columns, c.Name) && (c.Generated == "" || slices.Contains(t.Key, i)) {
			return c.Name
		}
	}
	return ""
}

// mayCreatePublication reports whether the user may create a publication for the table.
func (t *Table) mayCreatePublication() bool { return t.facts.Owned && t.facts.Creates }

// mayRepair reports whether the user may make all the changes that the publication needs. Only somebody who owns both the table
// and the publication, or a superuser, may change the publication's list of tables.
func (p *publication) mayRepair(t *Table) bool {
	return p.alterable && (t.facts.Owned || !p.needsList(t))
}

// needsList reports whether a repair must change the publication's list of tables. After the repair, the stream must have
// the whole table under the table's own name.
//
// Every repair turns on the option publish_via_partition_root. If the publication also has an ancestor of the table (a
// partitioned table that contains it), this option makes the stream use the ancestor's name. So the repair must remove the
// ancestor from the list, even if the option is still off and the stream uses the table's own name.
//
// In one case, the list is right although the stream does not use the table's own name: the table is partitioned, and the
// publication lists the table but none of its ancestors. While the option is off, the stream uses the names of the partitions.
// The repair then only turns on the option.
func (p *publication) needsList(t *Table) bool {
	if p.hasTable {
		return p.ancestors || p.filtered || p.leftOutColumn(t) != ""
	}
	return p.ancestors || !p.listed || p.viaRoot
}

// lacksGenerated reports whether the publication leaves out a stored generated column that the server could publish. Servers
// before version 18 cannot publish such columns.
func (p *publication) lacksGenerated(t *Table, version int) bool {
	return version >= 180000 && slices.ContainsFunc(t.Columns, func(c rowjson.Column) bool {
		return c.Generated == "s" && p.columns != nil && !slices.Contains(p.columns, c.Name)
	})
}

// setPublished records, in the Published field of each column of the table, whether the stream has the column. Up to version
// 17, pg_publication_tables lists generated columns although the stream lacks them.
func (p *publication) setPublished(t *Table, version int) {
	for i := range t.Columns {
		c := &t.Columns[i]
		c.Published = c.Generated == "" || version >= 180000 && slices.Contains(p.columns, c.Name)
	}
}

// choosePublication returns the index of the publication to follow, or -1 if none is complete. It also returns the statements
// that create or repair capture's own publication. They are nil if no statement is needed, or if the user may not run them.
func (t *Table) choosePublication(publications []publication, own string, version int) (chosen int, statements []string) {
	chosen = slices.IndexFunc(publications, func(p publication) bool { return p.checkComplete(t) == nil })
	p := ownPublication(publications, own)
	switch {
	case p != nil && p.mayRepair(t) && (chosen != 0 || p.lacksGenerated(t, version)):
		return chosen, t.alterPublicationSQL(version)
	case p == nil && chosen < 0 && t.mayCreatePublication():
		return chosen, t.createPublicationSQL(own, version)
	}
	return chosen, nil
}

func publicationOptions(version int) string {
	options := "publish = 'insert, update, delete, truncate', publish_via_partition_root = true"
	if version >= 180000 {
		// Without this option, the application's UPDATE and DELETE fail if the replica identity has a generated column.
		options += ", publish_generated_columns = stored"
	}
	return options
}

func (t *Table) createPublicationSQL(name string, version int) []string {
	name = QuoteIdentifier(name)
	return []string{
		"CREATE PUBLICATION " + name + " FOR TABLE " + t.Name().Quoted() + " WITH (" + publicationOptions(version) + ")",
		"COMMENT ON PUBLICATION " + name + " IS " + commentLiteral("the changes of table "+t.Name().String()),
	}
}

// createPublicationHint returns the statements with which the table's owner creates a publication. If the owner lacks CREATE
// on the database, the statements first grant it. A comment behind each statement names the role that may run it.
func (t *Table) createPublicationHint(name string, s *Server) string {
	hint := fmt.Sprintf("%s; -- as %s, who owns the table", strings.Join(t.createPublicationSQL(name, s.VersionNum), "; "), displayIdentifier(t.facts.Owner))
	if !t.facts.OwnerCreates {
		hint = t.grantCreateHint(t.facts.Owner, s) + "\n" + hint
	}
	return hint
}

// grantCreateHint returns the statement that gives a role CREATE on the database.
func (t *Table) grantCreateHint(role string, s *Server) string {
	return fmt.Sprintf("GRANT CREATE ON DATABASE %s TO %s; -- as %s, who owns the database",
		QuoteIdentifier(s.Database), QuoteIdentifier(role), displayIdentifier(t.facts.DatabaseOwner))
}

// alterPublicationSQL returns the statements that repair capture's own publication. Only the table's owner may add the table to
// the publication.
func (t *Table) alterPublicationSQL(version int) []string {
	own := QuoteIdentifier(objectName(t.Name()))
	set := "ALTER PUBLICATION " + own + " SET (" + publicationOptions(version) + ")"
	if !t.facts.Owned {
		return []string{set}
	}
	return []string{"ALTER PUBLICATION " + own + " SET TABLE " + t.Name().Quoted(), set}
}

// completePublicationSQL returns the statements that complete capture's own publication p. They are for somebody who owns both
// the table and p, or for a superuser. If p has neither the table nor an ancestor of the table, the statements add the table
// and, unlike those of alterPublicationSQL, keep the other tables in p. Otherwise, if needsList is true, the statements remove
// all other tables, because one of these may be an ancestor of the table. The stream might then use the ancestor's name.
func (t *Table) completePublicationSQL(p *publication, version int) (statements []string) {
	own := QuoteIdentifier(objectName(t.Name()))
	switch {
	case !p.listed && !p.hasTable && !p.ancestors:
		statements = append(statements, "ALTER PUBLICATION "+own+" ADD TABLE "+t.Name().Quoted())
	case p.needsList(t):
		statements = append(statements, "ALTER PUBLICATION "+own+" SET TABLE "+t.Name().Quoted())
	}
	if !p.operations || !p.viaRoot || p.lacksGenerated(t, version) {
		statements = append(statements, "ALTER PUBLICATION "+own+" SET ("+publicationOptions(version)+")")
	}
	return statements
}

// noPublicationProblem explains why there is no publication to follow. Its hint is the SQL that removes the cause: it creates,
// repairs or drops capture's own publication, or grants CREATE on the database. Each statement has a comment that names the
// role that may run it. On a managed service, nobody is a superuser. So if different roles own the table and the publication,
// the hint also has the statements with which the table's owner alone can create a publication with another name. ddlErr is the
// error of an attempt to create or repair the publication, or nil if there was no attempt.
func (t *Table) noPublicationProblem(s *Server, publications []publication, own string, ddlErr error) *Problem {
	p := &Problem{
		Summary: fmt.Sprintf("no publication has all changes of table %s", t.Name()),
		Reason:  fmt.Sprintf("user %s may not create one; the table's owner %s may, with CREATE on the database", s.User, t.facts.Owner),
		Hint:    t.createPublicationHint(own, s),
		Err:     ddlErr,

		needsSetup: true,
	}
	if t.facts.Owned && !t.facts.Creates {
		p.Reason = fmt.Sprintf("user %s has the rights of the table's owner, but not CREATE on the database", s.User)
		p.Hint = t.grantCreateHint(t.facts.User, s)
	}
	if existing := ownPublication(publications, own); existing != nil {
		owner := displayIdentifier(existing.owner)
		p.Reason = fmt.Sprintf("%s exists, but %v, and user %s may not change it: it belongs to %s", own, existing.checkComplete(t), s.User, owner)
		p.Hint = strings.Join(t.completePublicationSQL(existing, s.VersionNum), "; ") + "; -- as "
		other := "\nor, because any publication with all changes of the table will do:\n" + t.createPublicationHint(existing.otherName, s)
		switch {
		case !existing.trusted:
			p.Reason = fmt.Sprintf("%s exists, but belongs to %s, who neither owns the table nor follows it", own, owner)
			p.Hint = fmt.Sprintf("if capture connects as %[1]s, let it read the table, as a superuser: capture setup --role %[1]s --table %[2]s; otherwise: %[3]s; -- as %[4]s or a superuser, unless somebody needs it",
				foreign.ShellWord(foreign.Text(existing.owner)), foreign.ShellWord(t.Name().String()), dropPublicationSQL(own), owner) + other
		case existing.owner == t.facts.Owner, !existing.needsList(t):
			p.Hint += owner + ", who owns the publication, or a superuser"
		case existing.superuser:
			p.Hint += "a superuser, such as " + owner + other
		default:
			p.Hint += fmt.Sprintf("a superuser, or a member of both %s, who owns the publication, and %s, who owns the table", owner, displayIdentifier(t.facts.Owner)) + other
		}
	}
	if ddlErr != nil && !IsDenied(ddlErr) {
		p.Reason = ddlErr.Error()
	}
	return p
}

func dropPublicationSQL(name string) string {
	return "DROP PUBLICATION IF EXISTS " + QuoteIdentifier(name)
}
