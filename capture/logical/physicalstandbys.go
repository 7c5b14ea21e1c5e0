package logical

import (
	"context"
	"errors"

	"github.com/jackc/pgx/v5"

	"capture/internal/postgres"
)

// checkStandbys checks whether the end of capture's slot could invalidate logical slots on a standby. If so, it usually
// reports a condition to Progress. It returns an error instead if the source does not follow the table yet, and the operator
// has not chosen this source. Once the source follows the table, an error would end the slot, which is what could invalidate
// the slots on the standby.
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
