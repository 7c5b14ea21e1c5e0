package postgres

import (
	"context"
	"fmt"

	"github.com/jackc/pgx/v5"
)

// SetupOptions are options of [SetupSQL].
type SetupOptions struct {
	Source string // "logical", "notify", or "auto" for the better one that the server and the table allow
	Role   string // a role for capture to connect as: created if needed, and granted what capture needs; empty means none
}

// SetupSQL returns the statements, without semicolons, that prepare the database for capture. It leaves out those that have
// nothing left to do. [ApplyStatements] runs them.
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
		if statements, err = setupRoleSQL(ctx, conn, table, &s, user, o.Role); err != nil {
			return nil, err
		}
	}
	identityErr := table.checkReplicaIdentity(s.VersionNum)
	logicalErr := s.checkLogicalReplication()
	if logicalErr == nil {
		logicalErr = identityErr
	}
	var more []string
	switch {
	case s.InRecovery:
		return nil, logicalErr
	case o.Source == "notify", o.Source == "auto" && logicalErr != nil:
		more, err = table.setupTriggersSQL(ctx, conn)
	case o.Source == "auto", o.Source == "logical":
		// A publication may be created before wal_level is logical, but never for a table that it would harm.
		if identityErr != nil {
			return nil, identityErr
		}
		more, err = table.setupPublicationSQL(ctx, conn, &s, user)
	default:
		return nil, fmt.Errorf("set up for source %q: expected auto, logical or notify", o.Source)
	}
	return append(statements, more...), err
}

// setupPublicationSQL returns the statements that create or repair capture's own publication, even if another one serves.
func (t *Table) setupPublicationSQL(ctx context.Context, conn *pgx.Conn, s *Server, user setupUser) ([]string, error) {
	own := objectName(t.Name())
	publications, err := findPublications(ctx, conn, t, own)
	if err != nil {
		return nil, err
	}
	_, statements := t.choosePublication(publications, own, s.VersionNum)
	if ownPublication(publications, own) == nil {
		statements = t.createPublicationSQL(s.VersionNum)
		if user.superuser && user.name != t.facts.Owner {
			statements = append(statements, "ALTER PUBLICATION "+QuoteIdentifier(own)+" OWNER TO "+QuoteIdentifier(t.facts.Owner))
		}
	}
	return statements, nil
}

// setupUser is the user that runs the setup.
type setupUser struct {
	name                string
	superuser           bool
	mayGrantReplication bool // may give the right to replicate to another role
	provider            provider
}

func loadSetupUser(ctx context.Context, q Querier) (setupUser, error) {
	var user setupUser
	var err error
	if user.provider, err = findProvider(ctx, q); err != nil {
		return user, err
	}
	// Superusers may, administrators of managed services may, and since 16 whoever may create roles and has the right.
	err = Pinned(q).QueryRow(ctx, `SELECT rolname::text, rolsuper, rolsuper OR $1::text <> '' OR
			(rolcreaterole AND rolreplication AND pg_catalog.current_setting('server_version_num')::int >= 160000)
		FROM pg_catalog.pg_roles WHERE rolname = current_user`, string(user.provider)).Scan(&user.name, &user.superuser, &user.mayGrantReplication)
	if err != nil {
		return user, Explain(fmt.Errorf("query this user's privileges: %w", err))
	}
	return user, nil
}

// setupRoleSQL returns the statements that create the role and grant it what capture needs. They set no password: whoever
// runs them does.
func setupRoleSQL(ctx context.Context, q Querier, t *Table, s *Server, user setupUser, role string) ([]string, error) {
	var exists, replicates bool
	var connects, uses, selects bool
	err := Pinned(q).QueryRow(ctx, `
		SELECT r.oid IS NOT NULL, COALESCE(r.rolreplication OR r.rolsuper, false) OR EXISTS (
				SELECT FROM pg_catalog.pg_auth_members m JOIN pg_catalog.pg_roles g ON g.oid = m.roleid
				WHERE m.member = r.oid AND g.rolname = 'rds_replication'),
			COALESCE(pg_catalog.has_database_privilege(r.oid, pg_catalog.current_database(), 'CONNECT'), false),
			COALESCE(pg_catalog.has_schema_privilege(r.oid, $2::text, 'USAGE'), false),
			COALESCE(pg_catalog.has_table_privilege(r.oid, $3::oid, 'SELECT'), false)
		FROM (SELECT) x LEFT JOIN pg_catalog.pg_roles r ON r.rolname = $1::text::name`, role, t.Schema, t.OID).Scan(
		&exists, &replicates, &connects, &uses, &selects)
	if err != nil {
		return nil, Explain(fmt.Errorf("find role %s: %w", role, err))
	}
	name := QuoteIdentifier(role)
	var statements []string
	if !exists {
		statements = append(statements, "CREATE ROLE "+name+" LOGIN",
			"COMMENT ON ROLE "+name+" IS "+commentLiteral("reads table "+t.Name().String()+" and follows its changes"))
	}
	if !replicates && user.mayGrantReplication {
		statements = append(statements, user.provider.grantReplication(role))
	}
	if !connects {
		statements = append(statements, "GRANT CONNECT ON DATABASE "+QuoteIdentifier(s.Database)+" TO "+name)
	}
	if !uses {
		statements = append(statements, "GRANT USAGE ON SCHEMA "+QuoteIdentifier(t.Schema)+" TO "+name)
	}
	if !selects {
		statements = append(statements, "GRANT SELECT ON "+t.Name().Quoted()+" TO "+name)
	}
	return statements, nil
}
