package tablecopy

import (
	"context"

	"capture/capture/source"
	"capture/snapshot"
)

// ReadTable copies the table, as a new transaction sees it, into t as its next View. That View has no position in the stream.
// originSource is the name of the source in the View's origin. check, if not nil, is called regularly during the copy (see
// [NewWatchdog]).
func ReadTable(ctx context.Context, env *source.Env, originSource string, t *snapshot.Table, check CheckFunc) error {
	r := NewReader(env, originSource)
	defer r.Close()
	err := r.withIdleTimeout(ctx, r.connect)
	if err != nil {
		return err
	}
	if _, err := r.Begin(ctx); err != nil { // Close ends the transaction
		return err
	}
	stats, err := NewCopier(env, r.Conn, &r.Reads, r.Table, r.Server, check).load(ctx, t, originOf(r.name, r.Server), snapshot.Position{})
	if err != nil {
		return err
	}
	env.Logger.Info("read", stats.logFields(r.Table)...)
	return nil
}
