package logical

import (
	"context"
	"errors"

	"github.com/jackc/pgx/v5"

	"capture/internal/postgres"
)

// checkStandbys reports a condition to Progress if the end of capture's slot could invalidate logical slots on a standby. If
// the slot does not exist yet, and the operator has not chosen this source, checkStandbys returns an error instead. It returns
// no such error once the source follows the table, because the error would end the slot.
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
