package restore

import (
	"strings"

	"capture/internal/postgres"
)

// applyRows applies rows lo to hi-1 to the table, in one call of apply if the server accepts them all. If the server refuses a
// row, applyRows searches for that row, and returns its number and the server's error. It returns any other error at once.
//
// A call of apply that fails must change nothing. During the search, the rows of successful calls stay applied. The server
// may refuse a row only because an earlier row exists, for example if both rows have the same key.
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
