package postgres

import (
	"context"
	"errors"
	"regexp"
	"strings"

	"github.com/jackc/pgx/v5/pgconn"

	"capture/internal/foreign"
)

// Explain turns an error of the server, a pooler or the network into a [*Problem] that wraps it, if capture can add a reason
// or a hint, or if the error's text is not safe to show. The Problem's summary is the error's text without passwords, made
// safe to show by [foreign.Text]. Explain returns nil, Problems and all other errors unchanged.
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

// urlPassword and dsnPassword match passwords in URLs and DSNs. Errors of pgx, a proxy or the server may quote these.
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
