package capture

import (
	"fmt"
	"runtime/debug"

	"github.com/hashicorp/go-hclog"
)

// panicError is a panic turned into an error: a fault of ours, for which the daemon ends after a last flush.
type panicError struct {
	what  string
	value any
}

func (e *panicError) Error() string { return fmt.Sprintf("%s: internal error: %v", e.what, e.value) }

// guarded turns a panic of f into a *panicError, so that the other parts end in order and what is whole is flushed. Each
// goroutine needs it: a panic ends the process from wherever it is not recovered.
func guarded(log hclog.Logger, what string, f func() error) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = &panicError{what, p}
			log.Error("internal error", "while", what, "panic", fmt.Sprint(p), "stack", string(debug.Stack()))
		}
	}()
	return f()
}
