package postgres

import "strings"

// Problem is something in the way, in words for whoever runs capture or the database.
type Problem struct {
	What string // is wrong, one clause
	Why  string // it matters, or happened; may be ""
	Mend string // what to do: a sentence, or SQL or a setting to paste; may be ""
	Err  error  // what it was made from; may be nil

	gone bool // the table does not exist
}

// Error says all three on one line.
func (p *Problem) Error() string {
	var b strings.Builder
	b.WriteString(p.What)
	if p.Why != "" {
		b.WriteString(": " + p.Why)
	}
	if p.Mend != "" {
		b.WriteString("; to mend it: " + strings.Join(strings.Fields(p.Mend), " "))
	}
	return b.String()
}

// Unwrap is the error that the Problem explains.
func (p *Problem) Unwrap() error { return p.Err }

// Gone says whether the table does not exist (now).
func (p *Problem) Gone() bool { return p.gone }
