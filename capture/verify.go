package capture

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/jackc/pgx/v5"

	"capture/internal/guard"
	"capture/snapshot"
)

// verifyRetry is the longest pause after a comparison that ended with an error.
const verifyRetry = 10 * time.Minute

// verifier regularly compares the captured rows with the table. It counts and logs differences, and requests a new copy of the
// table to repair them. docs/operations.md (CaptureDiffers) lists the known causes. A difference with any other cause is a
// defect that should be reported.
type verifier struct {
	compare    CompareFunc
	interval   time.Duration
	database   func() *pgx.ConnConfig // returns the configuration for the next connection
	maxRow     int64                  // see CompareFunc
	newestView func(context.Context) (*snapshot.View, error)
	resync     func(reason string)
	conditions *conditions
	metrics    *metrics
	log        hclog.Logger
}

// run compares the rows with the table once per interval until ctx ends.
func (v *verifier) run(ctx context.Context) error {
	wait := v.interval
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(wait):
		}
		wait = v.interval
		err := v.verify(ctx)
		if panicked := (*guard.PanicError)(nil); errors.As(err, &panicked) {
			return err
		}
		if err != nil && ctx.Err() == nil {
			v.log.Warn("cannot compare the rows with the table", "error", err)
			wait = min(verifyRetry, v.interval)
		}
	}
}

// verify compares the rows with the table once, and reports the result.
func (v *verifier) verify(ctx context.Context) error {
	start := time.Now()
	rows, keys, err := v.compare(ctx, v.database(), v.maxRow, v.newestView)
	if err != nil {
		return err
	}
	if rows > 0 {
		v.metrics.differences.Add(float64(rows))
		v.log.Error("rows differ from the table; copying it again", "rows", rows, "keys", keys)
		v.conditions.set("difference", fmt.Sprintf("%d rows differed from the table at %s; the table was copied again", rows, start.UTC().Format(time.RFC3339)))
		v.resync(fmt.Sprintf("%d rows differ from the table", rows))
	} else {
		v.conditions.set("difference", "")
		v.log.Info("verified: no difference from the table", "ms", millis(time.Since(start)))
	}
	v.metrics.lastVerified.SetToCurrentTime()
	return nil
}
