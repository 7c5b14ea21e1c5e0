// Package guard turns a panic in a goroutine into an error.
//
// A panic that is not recovered ends the whole process. So each goroutine that capture starts runs its work through [Run].
// After a panic, the other goroutines can then stop in order, and the last complete state still reaches the disk.
package guard

import (
	"context"
	"errors"
	"fmt"
	"runtime/debug"
	"sync"

	"github.com/hashicorp/go-hclog"
)

// PanicError is the error that [Run] returns for a panic. A panic is a defect in capture itself. A retry would not help, so
// the daemon stops after a last flush.
type PanicError struct {
	Task  string // what the goroutine was doing
	Value any    // the panic's value
}

func (e *PanicError) Error() string { return fmt.Sprintf("%s: internal error: %v", e.Task, e.Value) }

// Run calls f and returns its error. If f panics, Run logs the stack and returns a *PanicError.
func Run(log hclog.Logger, task string, f func() error) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = &PanicError{task, p}
			log.Error("internal error", "while", task, "panic", fmt.Sprint(p), "stack", string(debug.Stack()))
		}
	}()
	return f()
}

// RunWatched runs watch and f concurrently. If watch returns an error, RunWatched cancels f's context, and
// returns watch's error in place of the error that f returns. When f returns, RunWatched cancels watch's context and waits
// until watch has returned.
func RunWatched(ctx context.Context, log hclog.Logger, task string, watch, f func(context.Context) error) error {
	inner, cancel := context.WithCancelCause(ctx)
	watched := make(chan struct{})
	go func() {
		defer close(watched)
		if err := Run(log, task, func() error { return watch(inner) }); err != nil {
			cancel(err)
		}
	}()
	stop := sync.OnceFunc(func() {
		cancel(nil)
		<-watched
	})
	defer stop() // in case f panics
	err := f(inner)
	stop()
	if cause := context.Cause(inner); err != nil && ctx.Err() == nil && !errors.Is(cause, context.Canceled) {
		return cause
	}
	return err
}
