package postgres

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"os"
	"regexp"
	"strings"
	"syscall"

	"github.com/jackc/pgx/v5/pgconn"
)

// Explain turns an error of a server, a pooler or the network into a [*Problem] that wraps it, where there is more to
// say than the error itself says. Other errors, nil and Problems come back as they are. What was being done, as err's
// own text says it, is kept; passwords in it are not.
func Explain(err error) error {
	if err == nil {
		return nil
	}
	var p *Problem
	if errors.As(err, &p) || errors.Is(err, context.Canceled) {
		return err
	}
	p = &Problem{Err: err}
	var pg *pgconn.PgError
	if errors.As(err, &pg) {
		explainServer(p, pg)
	} else {
		explainNetwork(p, err)
	}
	if p.Hint == "" && p.Reason == "" {
		if text := withoutPasswords(err.Error()); text != err.Error() {
			return &Problem{Summary: text, Err: err}
		}
		return err
	}
	p.Summary = oneLine(withoutPasswords(err.Error()))
	return p
}

var (
	urlPassword = regexp.MustCompile(`(://[^\s:/@]*):[^\s@]*@`)
	dsnPassword = regexp.MustCompile(`(?i)((?:ssl)?password\s*=\s*)('(?:[^'\\]|\\.)*'|[^\s&]+)`)
)

func withoutPasswords(s string) string {
	s = urlPassword.ReplaceAllString(s, "$1:…@")
	return dsnPassword.ReplaceAllString(s, "${1}…")
}

func oneLine(s string) string { return strings.Join(strings.Fields(s), " ") }

// explainServer goes by SQLSTATE and by the routine that raised the error: messages come in the server's language.
func explainServer(p *Problem, e *pgconn.PgError) {
	msg := strings.ToLower(e.Message)
	switch e.Code {
	case "28P01":
		p.Reason = "the password is wrong, or the user does not exist"
		p.Hint = "correct the user or password in --database-url, PGPASSWORD or the password file"
	case "28000":
		explainRefusal(p, e, msg)
	case "3D000":
		p.Reason, p.Hint = "there is no such database", "correct the database's name in --database-url or PGDATABASE"
	case "42501":
		p.Reason = "the user lacks a right for this"
		p.Hint = "run capture doctor, which says which one, or capture setup --print for the SQL that grants all of them"
		if strings.Contains(e.Routine, "CheckSlotPermissions") || strings.Contains(e.Routine, "check_permissions") ||
			strings.Contains(msg, "replication") || strings.Contains(e.Routine, "InitPostgres") || e.Routine == "InitWalSender" {
			p.Reason = "the user may not replicate"
			p.Hint = replicationGrant
		}
	case "53300":
		p.Reason = "the server has no connection left"
		p.Hint = "close idle ones, or raise max_connections (for replication max_wal_senders) and restart the server"
	case "53400":
		p.Reason = "all replication slots are in use"
		p.Hint = "drop one that nobody needs, SELECT slot_name, active FROM pg_replication_slots;, or raise max_replication_slots and restart the server"
	case "55000":
		switch {
		case strings.HasPrefix(e.Routine, "CheckLogicalDecodingRequirements"), strings.Contains(msg, "wal_level"):
			p.Reason, p.Hint = "logical replication is off", "ALTER SYSTEM SET wal_level = logical; and restart the server"
		case strings.Contains(msg, "slot"):
			p.Reason = "the slot is lost or cannot be had now"
			p.Hint = ""
		}
	case "55006":
		p.Reason, p.Hint = "a former connection still holds it", "wait until it has timed out (wal_sender_timeout)"
	case lockNotAvailable:
		p.Reason, p.Hint = "another session holds a lock on the table", ""
	case "57P03":
		p.Reason, p.Hint = "the server is starting, stopping or recovering", ""
	case "57P01", "57P02", "57P04":
		p.Reason, p.Hint = "the server ended the connection", ""
	case "58P01":
		p.Reason, p.Hint = "the server lacks a file", "see the server's log; where a library is named, install the package that has it"
	case "42P01":
		p.Reason, p.Hint = "there is no such table, or its schema is not on the search path", "name it with --table schema.name"
	case "42704":
		p.Reason, p.Hint = "the server does not know a name in the request", ""
		if strings.Contains(msg, "configuration parameter") {
			p.Reason, p.Hint = "the database URL has a parameter that this server does not know", "take it out of --database-url"
		} else if strings.Contains(msg, "publication") {
			p.Reason, p.Hint = "the publication was dropped, or made after the slot", ""
		}
	case "55P02":
		p.Reason, p.Hint = "the database URL has a parameter that cannot be set for a session", "take it out of --database-url"
	case "08P01", "0A000":
		if strings.Contains(msg, "replication") || strings.Contains(msg, "startup parameter") || strings.Contains(msg, "startup options") {
			explainPooler(p, msg)
		} else if strings.Contains(msg, "bouncer") {
			p.Reason, p.Hint = "the connection pooler in between can't be used as it is configured", "see the pooler's own log"
		}
	}
}

const replicationGrant = "ALTER ROLE <user> REPLICATION; (on Amazon RDS: GRANT rds_replication TO <user>;)"

// explainRefusal tells the reasons apart for which a server or a pooler lets nobody in.
func explainRefusal(p *Problem, e *pgconn.PgError, msg string) {
	switch {
	case e.Routine == "ClientAuthentication" || strings.Contains(msg, "pg_hba.conf"):
		p.Reason = "no line of the server's pg_hba.conf lets this user in from here, with or without TLS as it was tried"
		p.Hint = "add one such as \"hostssl <database> <user> <address>/32 scram-sha-256\" and SELECT pg_reload_conf();, " +
			"or set sslmode=require in --database-url where only TLS is let in (a logical replication connection needs its database's line, not a \"replication\" one)"
	case strings.Contains(msg, "replication") || strings.Contains(msg, "startup parameter"):
		explainPooler(p, msg)
	case strings.Contains(e.Routine, "InitializeSessionUserId"):
		p.Reason, p.Hint = "the role does not exist or may not log in", "CREATE ROLE <user> LOGIN PASSWORD '…'; or ALTER ROLE <user> LOGIN;"
	default:
		p.Reason, p.Hint = "the server refuses this user", "see the server's log, and correct the user in --database-url"
	}
}

func explainPooler(p *Problem, msg string) {
	if strings.Contains(msg, "replication") {
		p.Reason = "a connection pooler, such as PgBouncer, stands in between and cannot replicate"
		p.Hint = "point --database-url at the server itself, or use --source poll"
		return
	}
	p.Reason = "a connection pooler stands in between and refuses a parameter of the database URL"
	p.Hint = "take the parameter out of --database-url, or add it to the pooler's ignore_startup_parameters"
}

func explainNetwork(p *Problem, err error) {
	var (
		dns       *net.DNSError
		unknownCA x509.UnknownAuthorityError
		wrongHost x509.HostnameError
		badCert   x509.CertificateInvalidError
		alert     tls.AlertError
		record    tls.RecordHeaderError
	)
	text := strings.ToLower(err.Error())
	switch {
	case errors.As(err, &dns):
		p.Reason, p.Hint = "the host's name cannot be resolved", "correct the host in --database-url or PGHOST, or mend DNS"
	case errors.As(err, &unknownCA):
		p.Reason = "the server's certificate is signed by an authority that is not trusted here"
		p.Hint = "give the authority's certificate with sslrootcert=… in --database-url or PGSSLROOTCERT"
	case errors.As(err, &wrongHost):
		p.Reason, p.Hint = "the server's certificate is for another host name", "use that name in --database-url, or sslmode=verify-ca"
	case errors.As(err, &badCert):
		p.Reason, p.Hint = "the server's certificate is not valid (expired, or not for servers)", "renew it on the server, and check this machine's clock"
	case errors.As(err, &alert), strings.Contains(text, "remote error: tls"):
		p.Reason, p.Hint = "the server refused the TLS handshake", "check sslcert and sslkey: the server may want a client certificate, or another one"
	case strings.Contains(text, "server refused tls"):
		p.Reason, p.Hint = "the server or pooler has TLS switched off", "switch it on there, or set sslmode=prefer where the network is trusted"
	case errors.As(err, &record):
		p.Reason, p.Hint = "what answers there does not speak TLS as Postgres does", "check host and port in --database-url"
	case errors.Is(err, syscall.ECONNREFUSED):
		p.Reason, p.Hint = "nothing listens there", "start the server, or correct host and port in --database-url (PGHOST, PGPORT)"
	case errors.Is(err, os.ErrNotExist) && strings.Contains(text, "unix"), errors.Is(err, syscall.ENOENT):
		p.Reason, p.Hint = "there is no server's socket at that path", "start the server, or give its host with --database-url or PGHOST"
	case errors.Is(err, syscall.EHOSTUNREACH), errors.Is(err, syscall.ENETUNREACH):
		p.Reason, p.Hint = "the host cannot be reached from here", "check the network, its firewall and the host in --database-url"
	case errors.Is(err, syscall.ECONNRESET), errors.Is(err, syscall.EPIPE), strings.Contains(text, "unexpected eof"):
		p.Reason, p.Hint = "the connection was cut", ""
	case isTimeout(err):
		p.Reason = "no answer in time"
		p.Hint = "check that the server runs and that a firewall lets this machine through to it"
	}
}

func isTimeout(err error) bool {
	var n net.Error
	return errors.Is(err, context.DeadlineExceeded) || errors.Is(err, os.ErrDeadlineExceeded) || (errors.As(err, &n) && n.Timeout())
}

const lockNotAvailable = "55P03"

// hasCode says whether err is a server's error with this SQLSTATE.
func hasCode(err error, code string) bool {
	var pg *pgconn.PgError
	return errors.As(err, &pg) && pg.Code == code
}

func problemf(reason, hint, summary string, args ...any) *Problem {
	return &Problem{Summary: fmt.Sprintf(summary, args...), Reason: reason, Hint: hint}
}
