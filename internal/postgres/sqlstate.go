package postgres

import (
	"errors"
	"strings"

	"github.com/jackc/pgx/v5/pgconn"
)

// ErrorClass is what an error means for the choice of a source.
type ErrorClass int

const (
	Unknown     ErrorClass = iota // the connection failed, and the cause may be the network, the server, or something between them
	Unreachable                   // no source can work: the server, the database or the table is not there
	Permanent                     // this source cannot work until somebody changes a setting, a privilege or the table
	Transient                     // this source cannot work now; the cause disappears on its own
)

// Classify returns the class of an error from a connection, a query or a check of the table.
func Classify(err error) ErrorClass {
	var problem *Problem
	pg, _ := serverError(err)
	switch {
	case errors.As(err, &problem) && problem.TableMissing():
		return Unreachable
	case pg != nil:
		return classOf(pg.Code)
	case problem != nil && problem.Err == nil: // one of capture's own checks failed, for example of a setting or a privilege
		return Permanent
	}
	return Unknown
}

// classOf returns the class of a server's error by its SQLSTATE; see "PostgreSQL Error Codes" in Postgres' documentation.
func classOf(code string) ErrorClass {
	if s, ok := sqlStates[code]; ok {
		return s.class
	}
	switch code[:min(2, len(code))] {
	case "08", "40", "53", "57", "58", "XX": // connection exception, transaction rollback, insufficient resources, operator intervention, system error, internal error
		return Unreachable
	}
	return Permanent
}

const (
	insufficientPrivilege = "42501"
	lockNotAvailable      = "55P03"
	deadlockDetected      = "40P01"
	invalidAuthorization  = "28000"
	invalidParameterValue = "22023"
	undefinedObject       = "42704"
	undefinedColumn       = "42703"
	undefinedFunction     = "42883"
)

// sqlStates lists the SQLSTATEs for which capture can add a reason or a hint to the server's message, and those whose class
// differs from the default in classOf. If an SQLSTATE has several causes, explainServer distinguishes them.
var sqlStates = map[string]struct {
	class        ErrorClass
	reason, hint string
}{
	"08P01":              {class: Permanent}, // protocol_violation: a pooler's answer to a request that it does not support
	"0A000":              {class: Permanent},
	invalidAuthorization: {class: Permanent},
	"28P01": {Unreachable, "the password is wrong, or the user does not exist",
		"correct the user or password in --database-url, PGPASSWORD or the password file; capture setup --role NAME, run by an administrator, creates a role " +
			"without a password, so set one afterwards with \\password in psql; with --database-auth azure, capture doctor prints the SQL that creates the role"},
	"40001": {Unreachable, "the standby canceled the read, because it had to replay changes of rows that the read still needed",
		"on the standby: ALTER SYSTEM SET hot_standby_feedback = on; SELECT pg_reload_conf(); or raise max_standby_streaming_delay"},
	"3D000": {Unreachable, "the database does not exist", "correct the database name in --database-url or PGDATABASE"},
	"42P01": {Permanent, "the table does not exist, or its schema is not on the search path", "name it with --table schema.name"},
	insufficientPrivilege: {Permanent, "the user lacks a privilege",
		"run capture doctor to see which one, or capture setup --print for the SQL that grants all of them"},
	undefinedObject: {class: Permanent, reason: "the server does not know a name in the request"},
	"53300": {Transient, "the server has no connection left",
		"close idle connections, or raise max_connections (for replication max_wal_senders) and restart the server"},
	"53400": {Transient, "all replication slots are in use",
		"drop a slot that nobody needs (SELECT slot_name, active FROM pg_replication_slots;), or raise max_replication_slots and restart the server"},
	"55000":          {class: Permanent},
	"55006":          {Transient, "an earlier connection still holds it", "wait until that connection times out (wal_sender_timeout)"},
	"55P02":          {Permanent, "a parameter of the database URL cannot be set for a session", "remove the parameter from --database-url"},
	lockNotAvailable: {class: Transient, reason: "another session holds a lock on the table"},
	"57P01":          {class: Unreachable, reason: "the server ended the connection"},
	"57P02":          {class: Unreachable, reason: "the server ended the connection"},
	"57P03":          {class: Unreachable, reason: "the server is starting, stopping or recovering"},
	"57P04":          {class: Unreachable, reason: "the server ended the connection"},
	"58P01": {Permanent, "the server lacks a file", // the file is most likely pgoutput's library
		"see the server's log; if it names a library, install the package that contains it"},
}

// SQLState returns the SQLSTATE of a server's error, or "" if err is not a server's error.
func SQLState(err error) string {
	var pg *pgconn.PgError
	if errors.As(err, &pg) {
		return pg.Code
	}
	return ""
}

// IsLockTimeout reports whether the server gave up waiting for a lock that another session holds.
func IsLockTimeout(err error) bool { return SQLState(err) == lockNotAvailable }

// IsDenied reports whether err is the server's error that the user lacks a privilege.
func IsDenied(err error) bool { return SQLState(err) == insufficientPrivilege }

// IsUndefinedTable reports whether err is the server's error that a table or its schema does not exist.
func IsUndefinedTable(err error) bool {
	state := SQLState(err)
	return state == "42P01" || state == "3F000"
}

// replicationGrant is the hint for errors that occur before the managed service has been identified; see
// [provider.grantReplication].
const replicationGrant = "ALTER ROLE <user> REPLICATION; (on Amazon RDS: GRANT rds_replication TO <user>;)"

// explainServer sets p's reason and hint for a server's error. If possible, it identifies the error by the SQLSTATE and by the
// routine that raised the error. The message is less useful, because it is in the server's language.
func explainServer(p *Problem, e *pgconn.PgError) {
	s := sqlStates[e.Code]
	p.Reason, p.Hint = s.reason, s.hint
	message := strings.ToLower(e.Message)
	switch e.Code {
	case invalidAuthorization:
		explainRefusedLogin(p, e, message)
	case insufficientPrivilege:
		if strings.Contains(e.Routine, "CheckSlotPermissions") || strings.Contains(e.Routine, "check_permissions") ||
			strings.Contains(message, "replication") || strings.Contains(e.Routine, "InitPostgres") || e.Routine == "InitWalSender" {
			p.Reason, p.Hint = "the user may not replicate", replicationGrant
		} else if e.Routine == "CheckMyDatabase" {
			p.Reason, p.Hint = "the user lacks CONNECT on the database", "GRANT CONNECT ON DATABASE <database> TO <user>;"
		} else if e.Routine == "StartupDecodingContext" || strings.Contains(e.Hint, "output_plugin_libraries") {
			p.Reason = "the server does not allow its own output plugin pgoutput"
			p.Hint = "add 'pgoutput' to output_plugin_libraries, which lists the allowed plugins, and run SELECT pg_reload_conf();"
		}
	case "55000":
		switch {
		case strings.HasPrefix(e.Routine, "CheckLogicalDecodingRequirements"), strings.Contains(message, "wal_level"):
			p.Reason, p.Hint = "logical replication is off", "ALTER SYSTEM SET wal_level = logical; then restart the server"
		case strings.Contains(message, "slot"):
			p.Reason = "the replication slot is lost, or not available now"
		}
	case undefinedObject:
		if strings.Contains(message, "configuration parameter") {
			p.Reason, p.Hint = "the server does not know a parameter of the database URL", "remove the parameter from --database-url"
		} else if strings.Contains(message, "publication") {
			p.Reason = "the publication was dropped, or created after the slot"
		}
	case "08P01", "0A000":
		if strings.Contains(message, "replication") || strings.Contains(message, "startup parameter") || strings.Contains(message, "startup options") {
			explainPooler(p, message)
		} else if strings.Contains(message, "bouncer") {
			p.Reason, p.Hint = "the connection pooler cannot be used as it is configured", "see the pooler's log"
		}
	}
}

// explainRefusedLogin distinguishes the causes for which a server or a pooler refuses a user.
func explainRefusedLogin(p *Problem, e *pgconn.PgError, message string) {
	switch {
	case isRefusedByHBA(e):
		p.Reason = "no line of the server's pg_hba.conf admits this user from this address, with or without TLS as tried"
		p.Hint = "add a line such as \"hostssl <database> <user> <address>/32 scram-sha-256\" (host instead of hostssl if the server has no TLS) and run SELECT pg_reload_conf();, " +
			"or set sslmode=require in --database-url if only TLS is admitted (a logical replication connection needs the line of its database, not one for \"replication\")"
	case strings.Contains(message, "replication") || strings.Contains(message, "startup parameter"):
		explainPooler(p, message)
	case strings.Contains(e.Routine, "InitializeSessionUserId"):
		p.Reason, p.Hint = "the role does not exist or may not log in", "CREATE ROLE <user> LOGIN PASSWORD '…'; or ALTER ROLE <user> LOGIN;"
	default:
		p.Reason, p.Hint = "the server refuses this user", "see the server's log, then correct the user in --database-url"
	}
}

func explainPooler(p *Problem, message string) {
	if strings.Contains(message, "replication") {
		p.Reason = "a connection pooler such as PgBouncer is in between and cannot replicate"
		p.Hint = "point --database-url at the server itself, or use --source poll"
		return
	}
	p.Reason = "a connection pooler refuses a parameter of the database URL"
	p.Hint = "remove the parameter from --database-url, or add it to the pooler's ignore_startup_parameters"
}
