package guard

import (
	"context"
	"errors"
	"strings"
	"testing"

	"github.com/hashicorp/go-hclog"
)

func TestRunTurnsPanicIntoError(t *testing.T) {
	t.Parallel()
	var out strings.Builder
	log := hclog.New(&hclog.LoggerOptions{Output: &out})
	err := Run(log, "count", func() error { panic("the rows are gone") })
	var panicked *PanicError
	if !errors.As(err, &panicked) || panicked.Task != "count" || panicked.Value != "the rows are gone" {
		t.Errorf("the error is %v", err)
	}
	if !strings.Contains(out.String(), "guard_test.go") {
		t.Errorf("the log does not have the stack: %s", out.String())
	}
	want := errors.New("failed")
	if err := Run(log, "count", func() error { return want }); !errors.Is(err, want) {
		t.Errorf("the error is %v, want %v", err, want)
	}
}

func TestRunWatched(t *testing.T) {
	t.Parallel()
	reason, failure := errors.New("the reason"), errors.New("the failure")
	untilDone := func(ctx context.Context) error { <-ctx.Done(); return ctx.Err() }
	quiet := func(ctx context.Context) error { <-ctx.Done(); return nil }
	for _, c := range []struct {
		name     string
		watch, f func(context.Context) error
		want     error
	}{
		{"f succeeds", quiet, func(context.Context) error { return nil }, nil},
		{"f fails", quiet, func(context.Context) error { return failure }, failure},
		{"watch ends f", func(context.Context) error { return reason }, untilDone, reason},
		{"watch ends early", func(context.Context) error { return nil }, func(context.Context) error { return failure }, failure},
	} {
		ended := false
		watch := func(ctx context.Context) error {
			defer func() { ended = true }()
			return c.watch(ctx)
		}
		err := RunWatched(t.Context(), hclog.NewNullLogger(), c.name, watch, c.f)
		if !errors.Is(err, c.want) || c.want == nil && err != nil {
			t.Errorf("%s: %v, want %v", c.name, err, c.want)
		}
		if !ended {
			t.Errorf("%s: it did not wait for watch", c.name)
		}
	}
	var panicked *PanicError
	err := RunWatched(t.Context(), hclog.NewNullLogger(), "watch", func(context.Context) error { panic("x") }, untilDone)
	if !errors.As(err, &panicked) {
		t.Errorf("a panic of watch: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := RunWatched(ctx, hclog.NewNullLogger(), "watch", quiet, untilDone); !errors.Is(err, context.Canceled) {
		t.Errorf("after the end of its own context: %v", err)
	}
}
