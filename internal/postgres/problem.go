package postgres

import (
	"fmt"
	"strings"
)

// Problem explains what prevents capture from following a table. The explanation is for people who run capture or the database.
type Problem struct {
	Summary string // what is wrong, in one clause
	Reason  string // why it matters, or how it came about; may be empty
	Hint    string // what to do: a sentence, or SQL or a setting to paste; may be empty
	Err     error  // the error that the Problem explains; may be nil

	tableMissing bool
	needsSetup   bool
	breaksWrites bool
}

// Error returns the summary, the reason and the hint in one line.
func (p *Problem) Error() string {
	var b strings.Builder
	b.WriteString(p.Summary)
	if p.Reason != "" {
		b.WriteString(": " + p.Reason)
	}
	if p.Hint != "" {
		b.WriteString("; hint: " + oneLine(p.Hint))
	}
	return b.String()
}

// Unwrap returns the error that the Problem explains.
func (p *Problem) Unwrap() error { return p.Err }

// TableMissing reports whether the table does not exist.
func (p *Problem) TableMissing() bool { return p.tableMissing }

// NeedsSetup reports whether a publication or triggers that capture setup creates are missing.
func (p *Problem) NeedsSetup() bool { return p.needsSetup }

// BreaksWrites reports whether a publication that capture cannot drop makes the application's UPDATE and DELETE fail.
func (p *Problem) BreaksWrites() bool { return p.breaksWrites }

func problemf(reason, hint, summary string, args ...any) *Problem {
	return &Problem{Summary: fmt.Sprintf(summary, args...), Reason: reason, Hint: hint}
}
