package logical

import (
	"context"
	"errors"

	"github.com/jackc/pgx/v5"

	"capture/internal/postgres"
)

// checkStandbys reports a condition if the end of the slot could invalidate logical slots on a standby. Before the slot
// exists, it returns that as an error instead, unless the operator chose this source. It never ends a source that follows:
// that would end the slot.
func (s *Source) checkStandbys(ctx context.Context, conn *pgx.Conn) error {
	err := s.server.CheckStandbys(ctx, conn)
	var problem *postgres.Problem
	if err != nil && (!errors.As(err, &problem) || problem.Err != nil) {
		return err
	}
	if err != nil && !s.env.Chosen && !s.env.Progress.HasFollowed() {
		return err
	}
	text := ""
	if err != nil {
		text = problem.Summary + ": " + problem.Reason
	}
	if s.env.Progress.SetCondition("standbys", text) && text != "" {
		s.log.Warn(problem.Summary, "reason", problem.Reason, "hint", problem.Hint)
	}
	return nil
}
