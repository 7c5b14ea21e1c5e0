// Package retention decides which earlier states of feedback.json are kept. It computes with times and sizes and does no I/O.
//
// A [Policy] such as 24h,7d,4w keeps the newest state of each of the last 24 hours, 7 days and 4 weeks. Hours, days and weeks
// are in UTC, so daylight saving time has no effect. Weeks begin on Monday. States before a loss of rows are kept longer:
//
//	a state is kept because it                                    until
//	is the newest state of an hour, a day or a week               the policy no longer covers it
//	has the most rows of all states before one day's losses       30 days have passed
//	has the most rows of all states before unacknowledged losses  somebody acknowledges the loss, or it has ended
//
// [Plan] applies the policy. Together with [Budget.Excess] it also applies the limit on space. If space is short, it first
// drops the states that are kept only as the newest of an hour, then the newest of a day, then the newest of a week, then
// states before acknowledged losses, and then states before unacknowledged losses. Within each of these groups, it drops the
// oldest first. It never drops the state in the last row of the table.
//
// The time comes from a [Clock], which does not immediately follow a wall clock that was set forward. If the wall clock is a
// year ahead by mistake, the states of the last month must stay.
package retention

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
)

// Policy keeps the newest state of each of the last Hours hours, Days days and Weeks weeks. The zero Policy keeps only states
// before losses.
type Policy struct{ Hours, Days, Weeks int }

// Default is the policy of `capture run`.
var Default = Policy{Hours: 24, Days: 7, Weeks: 4}

// mostPeriods is the maximum of each number of a Policy. It limits the number of states.
const mostPeriods = 100_000

// Parse parses a policy. It consists of parts such as 24h, 7d and 4w, separated by commas. Each unit may occur once. A number
// without a unit means hours, so 0 is the zero Policy.
func Parse(text string) (Policy, error) {
	var p Policy
	seen := map[byte]bool{}
	for part := range strings.SplitSeq(text, ",") {
		part = strings.TrimSpace(part)
		if part == "" {
			return Policy{}, errors.New("a part is empty")
		}
		unit := part[len(part)-1]
		number := part[:len(part)-1]
		if unit >= '0' && unit <= '9' {
			unit, number = 'h', part
		}
		n, err := strconv.Atoi(number)
		if err != nil || n < 0 || n > mostPeriods || number[0] == '+' || number[0] == '-' {
			return Policy{}, fmt.Errorf("%q is not a number from 0 to %d with the unit h, d or w", part, mostPeriods)
		}
		switch {
		case seen[unit]:
			return Policy{}, fmt.Errorf("the unit %c is there twice", unit)
		case unit == 'h':
			p.Hours = n
		case unit == 'd':
			p.Days = n
		case unit == 'w':
			p.Weeks = n
		default:
			return Policy{}, fmt.Errorf("%q has another unit than h, d or w", part)
		}
		seen[unit] = true
	}
	return p, nil
}

// String returns the policy in the form that Parse accepts.
func (p Policy) String() string {
	var parts []string
	for _, part := range []struct {
		n    int
		unit string
	}{{p.Hours, "h"}, {p.Days, "d"}, {p.Weeks, "w"}} {
		if part.n > 0 {
			parts = append(parts, strconv.Itoa(part.n)+part.unit)
		}
	}
	if len(parts) == 0 {
		return "0"
	}
	return strings.Join(parts, ",")
}

// IsOff reports whether the policy keeps only states before losses.
func (p Policy) IsOff() bool { return p == Policy{} }
