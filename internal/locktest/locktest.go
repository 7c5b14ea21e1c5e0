// Package locktest lets a test act just before capture locks a table.
package locktest

import (
	"context"
	"regexp"
	"sync"

	"github.com/jackc/pgx/v5"

	"capture/internal/postgres"
)

// Tracer traces the statements of connections. A test puts it into the connections' configuration (pgx.ConnConfig.Tracer).
type Tracer struct {
	Locked  chan struct{} // closed when before has returned
	Refused chan error    // receives the first error of a statement that did not get its lock in time, because another session holds a conflicting lock

	first  *regexp.Regexp
	before func()
	once   sync.Once
}

// New returns a Tracer that calls a function once, just before a connection sends a statement that matches a regular
// expression. The parameter before is the function, and the parameter first is the regular expression.
func New(first string, before func()) *Tracer {
	return &Tracer{first: regexp.MustCompile(first), before: before, Locked: make(chan struct{}), Refused: make(chan error, 1)}
}

// TraceQueryStart implements pgx.QueryTracer.
func (t *Tracer) TraceQueryStart(ctx context.Context, _ *pgx.Conn, data pgx.TraceQueryStartData) context.Context {
	if t.first.MatchString(data.SQL) {
		t.once.Do(func() {
			t.before()
			close(t.Locked)
		})
	}
	return ctx
}

// TraceQueryEnd implements pgx.QueryTracer.
func (t *Tracer) TraceQueryEnd(_ context.Context, _ *pgx.Conn, data pgx.TraceQueryEndData) {
	if postgres.IsLockTimeout(data.Err) {
		select {
		case t.Refused <- data.Err:
		default:
		}
	}
}
