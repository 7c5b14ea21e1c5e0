package postgres

import (
	"context"
	"errors"
	"regexp"
	"strings"

	"github.com/jackc/pgx/v5/pgconn"

	"capture/internal/foreign"
)

// Explain turns an error of the server, a pooler or the network into a [*Problem] that wraps it, if capture knows more than
// the error says. The Problem's summary is the error's text without passwords, and fit to be shown: see [foreign.Text]. Explain
// returns other errors, nil and Problems unchanged.
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
	text := err.Error()
	if raised := raisedByFunction(err); raised != "" {
		text = strings.Replace(text, pg.Error(), raised, 1)
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

// Passwords in URLs and in DSNs. An error of pgx, of a proxy or of the server may quote either.
var (
	urlPassword = regexp.MustCompile(`(://[^\s:/@]*):[^\s@]*@`)
	dsnPassword = regexp.MustCompile(`(?i)((?:ssl)?password\s*=\s*)('(?:[^'\\]|\\.)*'|[^\s&]+)`)
)

// withoutPasswords returns s with … in place of each password.
func withoutPasswords(s string) string {
	s = urlPassword.ReplaceAllString(s, "$1:…@")
	return dsnPassword.ReplaceAllString(s, "${1}…")
}

func oneLine(s string) string { return strings.Join(strings.Fields(s), " ") }
