package web

import (
	"bytes"
	"math"
	"strconv"
	"strings"
	"time"

	"capture/snapshot/rowjson"
)

// noTime is the time of rows that have no time. Such rows come last.
const noTime = math.MinInt64

// timeValue returns the row's time in microseconds since 1970. The time "infinity" is later than all other times.
func (c *columnRoles) timeValue(line []byte) int64 {
	if c.time < 0 {
		return noTime
	}
	v := c.timeJSON(line)
	switch {
	case len(v) == 0 || v[0] == 'n': // the value is null
		return noTime
	case v[0] != '"':
		at, _, err := rowjson.ParseEpoch(v)
		if err != nil {
			return noTime
		}
		return at.UnixMicro()
	}
	v = v[1 : len(v)-1]
	if micros, ok := parseUsualMicros(v); ok {
		return micros
	}
	text := string(v)
	switch text {
	case "infinity":
		return math.MaxInt64
	case "-infinity":
		return noTime + 1
	}
	if micros, ok := parseMicros(text); ok {
		return micros
	}
	return noTime
}

// parseUsualMicros does the same as parseMicros for timestamps in the years 1 to 9999, but in a tenth of the time.
func parseUsualMicros(text []byte) (micros int64, ok bool) {
	const form = "0000-00-00T00:00:00"
	text = bytes.TrimSuffix(text, []byte("+00:00"))
	if len(text) < len(form) || len(text) > len(form)+len(".000000") {
		return 0, false
	}
	var numbers [6]int // year, month, day, hour, minute, second
	n := 0
	for i := range len(form) {
		switch c := text[i]; {
		case form[i] == '0' && c >= '0' && c <= '9':
			numbers[n] = 10*numbers[n] + int(c-'0')
		case form[i] != '0' && c == form[i]:
			n++
		default:
			return 0, false
		}
	}
	nanos, unit := 0, int(time.Second)
	for i, c := range text[len(form):] {
		if i == 0 {
			if c != '.' {
				return 0, false
			}
			continue
		}
		if c < '0' || c > '9' {
			return 0, false
		}
		unit /= 10
		nanos += int(c-'0') * unit
	}
	return time.Date(numbers[0], time.Month(numbers[1]), numbers[2], numbers[3], numbers[4], numbers[5], nanos, time.UTC).UnixMicro(), true
}

// parseMicros parses a timestamp or a date as row_to_json writes it, in UTC, and returns the microseconds since 1970.
func parseMicros(text string) (int64, bool) {
	text, isBC := strings.CutSuffix(text, " BC")
	text = strings.TrimSuffix(text, "+00:00")
	date, clock, hasClock := strings.Cut(text, "T")
	fields := strings.SplitN(date, "-", 3)
	if len(fields) != 3 {
		return 0, false
	}
	var numbers [3]int
	for i, field := range fields {
		var err error
		if numbers[i], err = strconv.Atoi(field); err != nil {
			return 0, false
		}
	}
	var ofDay time.Duration
	if hasClock {
		at, err := time.Parse("15:04:05", clock) // also parses fractions of a second
		if err != nil {
			return 0, false
		}
		ofDay = time.Duration(at.Hour())*time.Hour + time.Duration(at.Minute())*time.Minute + time.Duration(at.Second())*time.Second + time.Duration(at.Nanosecond())
	}
	year := numbers[0]
	if isBC {
		year = 1 - year
	}
	return time.Date(year, time.Month(numbers[1]), numbers[2], 0, 0, 0, 0, time.UTC).UnixMicro() + ofDay.Microseconds(), true
}
