package restore

import (
	"strings"

	"capture/internal/postgres"
)

// applyRows applies rows lo to hi-1 to the table. It first applies all of them with one call of apply. If the server refuses
// one of the rows, applyRows searches for that row with further calls, and returns its number and the server's error. For
// any other error, it returns that error and does not search.
//
// A call of apply that fails must change nothing. During the search, the rows of successful calls stay applied, because the
// reason for a refusal may be an earlier row, such as one with the same key.
func applyRows(lo, hi int, apply func(lo, hi int) error) (refused int, err error) {
	err = apply(lo, hi)
	if err == nil || !isRowError(err) {
		return 0, err
	}
	for hi-lo > 1 {
		middle := lo + (hi-lo)/2
		switch half := apply(lo, middle); {
		case half == nil:
			lo = middle
		case isRowError(half):
			hi, err = middle, half
		default:
			return 0, half
		}
	}
	if last := apply(lo, hi); last != nil {
		err = last
	}
	return lo, err
}

// isRowError reports whether a statement failed because of a row. Some types, such as those of PostGIS, report a bad value as
// an internal error. The context of such an error says that COPY was reading a row.
func isRowError(err error) bool {
	return postgres.IsRowRefused(err) || isRefusal(err) && strings.Contains(postgres.ErrorContext(err), "COPY ")
}

// isRefusal reports whether the server refused a statement for its content, and not because of the server's own state or the
// user's rights.
func isRefusal(err error) bool {
	state := postgres.SQLState(err)
	if len(state) < 2 || state == insufficientPrivilege {
		return false
	}
	switch state[:2] {
	case "08", "25", "40", "53", "55", "57", "58": // connection, transaction, rollback, resources, state, intervention, system
		return false
	}
	return true
}
