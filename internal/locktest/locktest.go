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
	Locked  chan struct{} // closed when act has returned
	Refused chan error    // receives the first error of a statement that did not get its lock in time, because another session holds a conflicting lock

	pattern *regexp.Regexp
	act     func()
	once    sync.Once
}

// New returns a Tracer that calls act once, just before a connection sends the first statement that matches the regular
// expression pattern.
func New(pattern string, act func()) *Tracer {
	return &Tracer{pattern: regexp.MustCompile(pattern), act: act, Locked: make(chan struct{}), Refused: make(chan error, 1)}
}

// TraceQueryStart implements pgx.QueryTracer.
func (t *Tracer) TraceQueryStart(ctx context.Context, _ *pgx.Conn, data pgx.TraceQueryStartData) context.Context {
	if t.pattern.MatchString(data.SQL) {
		t.once.Do(func() {
			t.act()
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
