package postgres

import (
	"context"
	"errors"
	"regexp"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5/pgconn"

	"capture/internal/foreign"
)

// Explain explains an error of the server, a pooler or the network. If capture can add a reason or a hint, or if the error's
// text is not safe to show, the result is a [*Problem] that wraps the error. The Problem's summary is the error's text without
// passwords, made safe to show by [foreign.Text]. Explain returns err unchanged if it is nil, a Problem or an error of another
// kind.
func Explain(err error) error {
	if err == nil {
		return nil
	}
	var p *Problem
	if errors.As(err, &p) || errors.Is(err, context.Canceled) {
		return err
	}
	p = &Problem{Err: err}
	pg, beside := serverError(err)
	message := ""
	switch {
	case pg == nil:
		explainNetwork(p, err)
	case functionMessage(pg) == "":
		explainServer(p, pg)
		fallthrough
	default:
		message = hideValues(pg)
	}
	text := withoutAttempts(err, pg)
	for _, b := range beside {
		text = oneLine(strings.Replace(text, b.Error(), "", 1))
	}
	if message != "" {
		text = strings.Replace(text, pg.Error(), message, 1)
	}
	if text = withoutPasswords(text); strings.Contains(text, "\n") {
		text = oneLine(text)
	}
	text = foreign.Text(text)
	switch {
	case p.Reason != "" || p.Hint != "":
		p.Summary = text
		return p
	case text != err.Error():
		return &Problem{Summary: text, Err: err}
	}
	return err
}

// serverError finds the server's error in err. pg is nil if err contains no error of a server. err may contain several
// errors: with sslmode allow and prefer, pgx tries to connect with and without TLS. pg_hba.conf often admits only one of the
// two, so a refusal by pg_hba.conf explains less than another error. Therefore, pg is the last error that is not such a
// refusal. If all errors are refusals, pg is the first refusal. If pg is not a refusal, the second result contains the refusals
// by the server that sent pg.
func serverError(err error) (pg *pgconn.PgError, beside []error) {
	server := func(attempt error) string {
		address, _, _ := strings.Cut(attempt.Error(), ": ")
		return address
	}
	var refusals []error
	chosen := ""
	for _, attempt := range connectAttempts(err) {
		var answer *pgconn.PgError
		if !errors.As(attempt, &answer) {
			continue
		}
		refused := isRefusedByHBA(answer)
		if refused {
			refusals = append(refusals, attempt)
		}
		if pg == nil || !refused {
			pg, chosen = answer, server(attempt)
		}
	}
	if pg == nil || isRefusedByHBA(pg) {
		return pg, nil
	}
	return pg, slices.DeleteFunc(refusals, func(r error) bool { return server(r) != chosen })
}

// connectAttempts returns the error of each attempt if err comes from pgx's attempts to connect. Otherwise, it returns err
// alone. The text of each attempt begins with the server's address and ": "; see perDialConnectError in pgx.
func connectAttempts(err error) []error {
	var connect *pgconn.ConnectError
	if !errors.As(err, &connect) {
		return []error{err}
	}
	if joined, ok := connect.Unwrap().(interface{ Unwrap() []error }); ok {
		return joined.Unwrap()
	}
	return []error{connect.Unwrap()}
}

// isRefusedByHBA reports whether pg_hba.conf does not admit the connection. Other refusals have the same SQLSTATE, but only
// this refusal has a message with the file's name, which is the same in every language.
func isRefusedByHBA(e *pgconn.PgError) bool {
	return e.Code == invalidAuthorization && strings.Contains(e.Message, "pg_hba.conf")
}

// withoutAttempts returns the text of err. If err comes from several attempts to connect, the text usually contains the error
// of only one attempt: the attempt that the server answered with pg, or the last attempt if pg is nil. The text lacks the
// server's address, because the caller has already named the server. The text contains the errors of all attempts if they
// went to different servers, or if another attempt failed for a different reason that has nothing to do with TLS.
func withoutAttempts(err error, pg *pgconn.PgError) string {
	var connect *pgconn.ConnectError
	if !errors.As(err, &connect) {
		return err.Error()
	}
	attempts := connectAttempts(err)
	chosen := len(attempts) - 1
	for i, attempt := range attempts {
		var answer *pgconn.PgError
		if pg != nil && errors.As(attempt, &answer) && answer == pg {
			chosen = i
		}
	}
	server, reason, ok := strings.Cut(attempts[chosen].Error(), ": ")
	if !ok {
		return err.Error()
	}
	for i, attempt := range attempts {
		address, text, _ := strings.Cut(attempt.Error(), ": ")
		if address != server || i != chosen && text != reason && !isForTLS(attempt) {
			return err.Error()
		}
	}
	if pg != nil {
		reason = pg.Error()
	}
	return strings.Replace(err.Error(), connect.Error(), reason, 1)
}

// isForTLS reports whether a failed attempt to connect may succeed if pgx turns TLS on or off. pg_hba.conf can refuse
// connections with TLS or without TLS, and some servers do not offer TLS.
func isForTLS(attempt error) bool {
	var answer *pgconn.PgError
	if errors.As(attempt, &answer) {
		return isRefusedByHBA(answer)
	}
	return strings.Contains(attempt.Error(), "server refused TLS")
}

// urlPassword and dsnPassword match passwords in URLs and DSNs. Errors of pgx, a proxy or the server may quote a URL or DSN. A
// password may contain an @, so the last @ before a space ends it.
var (
	urlPassword = regexp.MustCompile(`(://[^\s:/@]*):\S*@`)
	dsnPassword = regexp.MustCompile(`(?i)((?:ssl)?password\s*=\s*)('(?:[^'\\]|\\.)*'|[^\s&]+)`)
)

// withoutPasswords returns s with … in place of each password.
func withoutPasswords(s string) string {
	s = urlPassword.ReplaceAllString(s, "$1:…@")
	return dsnPassword.ReplaceAllString(s, "${1}…")
}

func oneLine(s string) string { return strings.Join(strings.Fields(s), " ") }
