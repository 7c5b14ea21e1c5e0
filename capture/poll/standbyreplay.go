package poll

import (
	"context"
	"fmt"

	"capture/internal/postgres"
)

// checkReplay returns an error while a standby is behind the state that capture has already shown. This can have two causes.
// First, the standby may have crashed. It then restarts from its last restartpoint, and answers queries before it has
// replayed all the WAL that it had replayed before the crash. Second, another standby, which has replayed less WAL, may now
// answer at the same address. The file never goes back to an older state, so capture waits until the standby has caught up.
// A primary is not checked, because its state is valid even after a failover.
func (s *Source) checkReplay(ctx context.Context) error {
	if s.shownLSN == 0 {
		return nil
	}
	lsn, standby, err := postgres.LoadWALPosition(ctx, s.reader.Conn)
	if err != nil {
		return err
	}
	if !standby || lsn >= s.shownLSN {
		return nil
	}
	return &postgres.Problem{
		Summary: fmt.Sprintf("the standby has replayed WAL up to %s, and feedback.json shows a state of up to %s", lsn, s.shownLSN),
		Reason:  "its state is older than the file, which never goes back",
		Hint:    "wait until the standby has caught up; if it stays at an older state on purpose, restart capture",
	}
}
