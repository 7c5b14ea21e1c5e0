package postgres

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5"

	"capture/internal/foreign"
)

// SetupOptions are options of [SetupSQL].
type SetupOptions struct {
	Source string // "logical", "notify" or "auto"; "auto" means logical, or an error if the server or the table does not allow logical replication
	Role   string // role that capture connects as, or empty; setup creates it if needed, grants it what capture needs, and makes it the publication's owner

	// Complete adds the statements that this session's user may not run. It is set if an administrator will run the
	// statements.
	Complete bool
}

// SetupSQL returns the statements, without semicolons, that prepare the database for capture. It leaves out statements that
// would change nothing. [ApplyStatements] runs them.
func SetupSQL(ctx context.Context, conn *pgx.Conn, table *Table, o SetupOptions) ([]string, error) {
	s, err := LoadServer(ctx, conn)
	if err != nil {
		return nil, err
	}
	user, err := loadSetupUser(ctx, conn)
	if err != nil {
		return nil, err
	}
	var statements []string
	if o.Role != "" {
		if statements, err = setupRoleSQL(ctx, conn, table, &s, user, o); err != nil {
			return nil, err
		}
	}
	identityErr := table.checkReplicaIdentity(s.VersionNum)
	logicalErr := s.checkLogicalReplication()
	if logicalErr == nil {
		logicalErr = identityErr
	}
	if logicalErr == nil {
		logicalErr = s.CheckStandbys(ctx, conn)
	}
	var more []string
	switch {
	case s.InRecovery, s.VersionNum < MinVersion:
		return nil, logicalErr
	case o.Source == "notify":
		more, err = table.setupTriggersSQL(ctx, conn)
	case o.Source == "auto" && logicalErr != nil:
		return nil, askForNotify(table, logicalErr)
	case o.Source == "auto", o.Source == "logical":
		// A publication can be created before wal_level is logical. So logicalErr is no reason to stop here. identityErr is a
		// reason to stop, because a publication of this table could make the application's writes fail.
		if identityErr != nil {
			return nil, identityErr
		}
		more, err = table.setupPublicationSQL(ctx, conn, &s, user, o)
	default:
		return nil, fmt.Errorf("set up for source %q: expected auto, logical or notify", o.Source)
	}
	return append(statements, more...), err
}

// askForNotify returns err, the reason why logical replication cannot be set up, with a hint to choose the triggers explicitly.
// capture setup does not create them unasked, because they slow the application's commits down.
func askForNotify(table *Table, err error) error {
	var p *Problem
	if !errors.As(err, &p) || p.Err != nil {
		return err
	}
	asking := *p
	asking.Hint = fmt.Sprintf("%s;\nor run capture setup --source notify --table %s, which creates triggers: they slow commits down, and transactions that write to the table cannot be prepared (PREPARE TRANSACTION)",
		p.Hint, foreign.ShellWord(table.Name().String()))
	return &asking
}

// LoadSetupState returns a text that changes when somebody runs the statements of [SetupSQL] for the source, which is
// "logical" or "notify". If the table is published with all tables or with its schema, the text also changes with other
// statements, such as TRUNCATE and GRANT; see publicationFingerprintExpr. For "notify", the text is "" if the triggers are
// not intact. For "logical", it is "" if no publication is complete and the user may not create or repair capture's own
// publication. LoadSetupState changes nothing in the database.
func LoadSetupState(ctx context.Context, conn *pgx.Conn, name Name, source string) (string, error) {
	s, table, err := LoadServerAndTable(ctx, conn, name)
	if err != nil {
		return "", err
	}
	if source == "notify" {
		err := CheckTriggers(ctx, conn, table)
		if p := (*Problem)(nil); err == nil || errors.As(err, &p) && p.Err == nil {
			return map[bool]string{true: "triggers"}[err == nil], nil
		}
		return "", err
	}
	own := objectName(table.Name())
	publications, err := findPublications(ctx, conn, table, own)
	if err != nil {
		return "", err
	}
	chosen, statements := table.choosePublication(publications, own, s.VersionNum)
	switch {
	case chosen < 0 && statements == nil:
		return "", nil
	case chosen < 0:
		// This text differs from the "" above. So the result changes if a GRANT permits the user to create the publication.
		return "the user may create the publication", nil
	}
	// The text also contains the right to replicate, because the setup grants it: by an attribute, or on Amazon RDS by a
	// membership.
	var rights string
	err = Pinned(conn).QueryRow(ctx, `SELECT pg_catalog.concat_ws(' ', r.rolreplication,
			(SELECT count(*) FROM pg_catalog.pg_auth_members m WHERE m.member = r.oid))
		FROM pg_catalog.pg_roles r WHERE r.rolname = current_user`).Scan(&rights)
	if err != nil {
		return "", Explain(fmt.Errorf("query the right to replicate: %w", err))
	}
	return strings.Join([]string{publications[chosen].name, publications[chosen].fingerprint, rights}, " "), nil
}

// setupPublicationSQL returns the statements that create or repair capture's own publication, even if another publication
// already has all changes of the table. Unless o.Role is empty, the statements also make this role the owner of the
// publication, so that capture can drop the publication if it makes the application's writes fail.
//
// In two cases, capture's own publication stays as it is: its owner is not trusted, or it needs a repair that the user may not
// make and o.Complete is false. Then setupPublicationSQL returns no statements if another publication has all changes, and an
// error if none has.
func (t *Table) setupPublicationSQL(ctx context.Context, conn *pgx.Conn, s *Server, user setupUser, o SetupOptions) ([]string, error) {
	own := objectName(t.Name())
	publications, err := findPublications(ctx, conn, t, own)
	if err != nil {
		return nil, err
	}
	p := ownPublication(publications, own)
	if p != nil && p.owner == o.Role {
		// After the table was dropped and created again, the role may not read it yet. The statements of setupRoleSQL change
		// this.
		p.trusted, p.alterable = true, p.hasRights
	}
	chosen, statements := t.choosePublication(publications, own, s.VersionNum)
	switch {
	case p == nil:
		statements = t.createPublicationSQL(own, s.VersionNum)
		// Whoever runs CREATE PUBLICATION becomes the publication's owner. In two cases, a superuser runs it: the user is a
		// superuser, or the statements are printed for an administrator because the user may not run them. In both cases, a
		// further statement makes the table's owner the publication's owner.
		if o.Role == "" && (user.superuser && user.name != t.facts.Owner || o.Complete && !t.mayCreatePublication()) {
			statements = append(statements, "ALTER PUBLICATION "+QuoteIdentifier(own)+" OWNER TO "+QuoteIdentifier(t.facts.Owner))
		}
	case !p.trusted, p.checkComplete(t) != nil && !p.mayRepair(t) && !o.Complete:
		if chosen < 0 {
			return nil, t.noPublicationProblem(s, publications, own, nil)
		}
		return nil, nil // capture follows the chosen publication
	case p.checkComplete(t) != nil && !p.mayRepair(t):
		statements = t.completePublicationSQL(p, s.VersionNum)
	}
	alterable := p == nil && t.mayCreatePublication() || p != nil && p.alterable
	switch {
	case o.Role == "" || !alterable && !o.Complete:
		return statements, nil
	case p != nil && p.owner == o.Role:
		// On a managed service, whoever runs the statements is no superuser, and must therefore be a member of the role that
		// owns the publication.
		if len(statements) > 0 && !p.mayRepair(t) && user.provider != "" {
			statements = asMemberSQL(o.Role, statements)
		}
		return statements, nil
	}
	return changeOwnerSQL(ctx, conn, s, user, own, statements, alterable, o)
}

// asMemberSQL puts a GRANT before the statements and a REVOKE after them. The user who runs the result is therefore a member of
// the role while the statements run.
func asMemberSQL(role string, statements []string) []string {
	before, after := "GRANT "+QuoteIdentifier(role)+" TO CURRENT_USER", "REVOKE "+QuoteIdentifier(role)+" FROM CURRENT_USER"
	return slices.Concat([]string{before}, statements, []string{after})
}

// changeOwnerSQL returns the given statements, which create or repair a publication, together with statements that make
// o.Role the publication's owner. Unless the user is a superuser, Postgres requires that the user is a member of the role,
// and that the role has CREATE on the database. The statements grant what is missing and revoke it at the end. If alterable
// is set, the user may alter the publication, or create it if it does not exist.
//
// If the user may not run all these statements, or if the role lacks the right to replicate and the user may not grant it, the
// result depends on o.Complete. If o.Complete is false, the owner does not change, and capture doctor reports the consequences.
// If o.Complete is true, the result contains the statements for an administrator. On a managed service, the administrator is no
// superuser. The administrator is usually not a member of the role, even if the user is. On a managed service, the
// statements therefore always grant the membership.
func changeOwnerSQL(ctx context.Context, conn *pgx.Conn, s *Server, user setupUser, publication string, statements []string, alterable bool, o SetupOptions) ([]string, error) {
	role := o.Role
	change := "ALTER PUBLICATION " + QuoteIdentifier(publication) + " OWNER TO " + QuoteIdentifier(role)
	var superuser, follows, member, mayJoin, creates, ownsDatabase bool
	// Up to version 15, CREATEROLE allows the user to grant membership in any role. Since version 16, CREATEROLE allows that
	// only for roles that the user administers, such as roles that the user has created.
	err := Pinned(conn).QueryRow(ctx, `
		SELECT u.rolsuper, COALESCE(r.rolreplication, false) OR EXISTS (
				SELECT FROM pg_catalog.pg_auth_members m JOIN pg_catalog.pg_roles g ON g.oid = m.roleid
				WHERE m.member = r.oid AND g.rolname = 'rds_replication'),
			r.oid IS NOT NULL AND pg_catalog.pg_has_role(u.oid, r.oid, CASE WHEN x.version >= 160000 THEN 'SET' ELSE 'MEMBER' END),
			CASE WHEN r.oid IS NULL THEN u.rolcreaterole ELSE pg_catalog.pg_has_role(u.oid, r.oid, 'MEMBER WITH ADMIN OPTION') END
				OR u.rolcreaterole AND x.version < 160000,
			r.oid IS NOT NULL AND pg_catalog.has_database_privilege(r.oid, d.oid, 'CREATE'),
			pg_catalog.pg_has_role(u.oid, d.datdba, 'USAGE')
		FROM (SELECT pg_catalog.current_setting('server_version_num')::int AS version) x
		JOIN pg_catalog.pg_roles u ON u.rolname = current_user
		JOIN pg_catalog.pg_database d ON d.datname = pg_catalog.current_database()
		LEFT JOIN pg_catalog.pg_roles r ON r.rolname = $1::text::name`, role).Scan(&superuser, &follows, &member, &mayJoin, &creates, &ownsDatabase)
	if err != nil {
		return nil, Explain(fmt.Errorf("query whether %s can own publication %s: %w", role, publication, err))
	}
	mayChange := alterable && (follows || user.mayGrantReplication) && (member || mayJoin) && (creates || ownsDatabase)
	switch {
	case superuser, o.Complete && !mayChange && user.provider == "": // in both cases, a superuser runs the statements, so they need no grants
		return append(statements, change), nil
	case !mayChange && !o.Complete:
		return statements, nil
	}
	statements = append(statements, change)
	if !creates {
		database := QuoteIdentifier(s.Database)
		statements = append(append([]string{"GRANT CREATE ON DATABASE " + database + " TO " + QuoteIdentifier(role)}, statements...),
			"REVOKE CREATE ON DATABASE "+database+" FROM "+QuoteIdentifier(role))
	}
	if !member || !mayChange {
		statements = asMemberSQL(role, statements)
	}
	return statements, nil
}

// setupUser is the user that runs the setup.
type setupUser struct {
	name                string
	superuser           bool
	mayGrantReplication bool // whether the user may allow another role to replicate
	provider            provider
}

func loadSetupUser(ctx context.Context, q Querier) (setupUser, error) {
	var user setupUser
	var err error
	if user.provider, err = findProvider(ctx, q); err != nil {
		return user, err
	}
	// Superusers may grant the right to replicate; since version 16, users with CREATEROLE and REPLICATION may, too. On a
	// managed service, the user is assumed to be the service's administrator, who may grant this right.
	err = Pinned(q).QueryRow(ctx, `SELECT rolname::text, rolsuper, rolsuper OR $1::text <> '' OR
			(rolcreaterole AND rolreplication AND pg_catalog.current_setting('server_version_num')::int >= 160000)
		FROM pg_catalog.pg_roles WHERE rolname = current_user`, string(user.provider)).Scan(&user.name, &user.superuser, &user.mayGrantReplication)
	if err != nil {
		return user, Explain(fmt.Errorf("query this user's privileges: %w", err))
	}
	return user, nil
}

// setupRoleSQL returns the statements that create the role and grant it what capture needs. They set no password, so whoever
// runs them must set one.
func setupRoleSQL(ctx context.Context, q Querier, t *Table, s *Server, user setupUser, o SetupOptions) ([]string, error) {
	role := o.Role
	var exists, replicates bool
	var connects, selects bool
	var unusable []string
	err := Pinned(q).QueryRow(ctx, `
		SELECT r.oid IS NOT NULL, COALESCE(r.rolreplication OR r.rolsuper, false) OR EXISTS (
				SELECT FROM pg_catalog.pg_auth_members m JOIN pg_catalog.pg_roles g ON g.oid = m.roleid
				WHERE m.member = r.oid AND g.rolname = 'rds_replication'),
			COALESCE(pg_catalog.has_database_privilege(r.oid, pg_catalog.current_database(), 'CONNECT'), false),
			ARRAY(SELECT n.nspname::text FROM pg_catalog.pg_namespace n
				WHERE n.nspname = ANY ($2::text[]::name[]) AND NOT COALESCE(pg_catalog.has_schema_privilege(r.oid, n.oid, 'USAGE'), false)
				ORDER BY n.nspname <> ($2::text[])[1]::name, n.nspname),
			COALESCE(pg_catalog.has_table_privilege(r.oid, $3::oid, 'SELECT'), false)
		FROM (SELECT) x LEFT JOIN pg_catalog.pg_roles r ON r.rolname = $1::text::name`, role,
		append([]string{t.Schema}, t.keySchemas()...), t.OID).Scan(&exists, &replicates, &connects, &unusable, &selects)
	if err != nil {
		return nil, Explain(fmt.Errorf("find role %s: %w", role, err))
	}
	name := QuoteIdentifier(role)
	var statements []string
	if !exists {
		statements = append(statements, "CREATE ROLE "+name+" LOGIN",
			"COMMENT ON ROLE "+name+" IS "+commentLiteral("reads table "+t.Name().String()+" and follows its changes"))
	}
	if !replicates && (user.mayGrantReplication || o.Complete) {
		statements = append(statements, user.provider.grantReplication(role))
	}
	if !connects {
		statements = append(statements, "GRANT CONNECT ON DATABASE "+QuoteIdentifier(s.Database)+" TO "+name)
	}
	for _, schema := range unusable { // schema contains the table, or a type or an operator of its key
		statements = append(statements, "GRANT USAGE ON SCHEMA "+QuoteIdentifier(schema)+" TO "+name)
	}
	if !selects {
		statements = append(statements, "GRANT SELECT ON "+t.Name().Quoted()+" TO "+name)
	}
	return statements, nil
}
