package rowjson

import (
	"bytes"
	"errors"
	"math"
	"strconv"
	"time"
)

// This file reads numbers and times in forms that other programs write if they do not know Postgres' types. row_to_json never
// writes these forms.

// OIDs of types (pg_type.dat).
const (
	int8OID = 20
	int2OID = 21
	int4OID = 23
	oidOID  = 26
	dateOID = 1082
)

// isInteger reports whether t is an integer type. The input function of such a type refuses 1.0.
func isInteger(t *Type) bool {
	switch t.OID {
	case int2OID, int4OID, int8OID, oidOID:
		return true
	}
	return false
}

// appendWholeNumber appends a JSON number for an integer column. It removes a fraction of zeros, because pandas writes 1.0
// for 1 in a column with missing values. It appends a number with an exponent or another fraction unchanged, and Postgres
// refuses that number.
func appendWholeNumber(dst, value []byte) []byte {
	digits, fraction, _ := bytes.Cut(value, []byte{'.'})
	if len(bytes.Trim(fraction, "0")) > 0 || bytes.ContainsAny(digits, "eE") {
		return append(dst, value...)
	}
	return append(dst, digits...)
}

// An EpochUnit is the unit of a number that stands for a time: the time that has passed since 1970-01-01 00:00 UTC.
type EpochUnit time.Duration

const (
	Seconds      EpochUnit = EpochUnit(time.Second)
	Milliseconds EpochUnit = EpochUnit(time.Millisecond)
	Microseconds EpochUnit = EpochUnit(time.Microsecond)
	Nanoseconds  EpochUnit = EpochUnit(time.Nanosecond)
)

func (u EpochUnit) String() string {
	switch u {
	case Seconds:
		return "seconds"
	case Milliseconds:
		return "milliseconds"
	case Microseconds:
		return "microseconds"
	}
	return "nanoseconds"
}

// GuessEpochUnit returns the probable unit of n, a number that stands for a time. It returns the largest unit in which the
// time is before November 5138. This unit is right for all times from March 1973 to November 5138, because in the next
// smaller unit the same number stands for a time before March 1973. For 0, any unit gives the same time.
func GuessEpochUnit(n int64) EpochUnit {
	const limit = 100_000_000_000
	switch abs := max(n, -n); {
	case abs < limit && abs >= 0: // for the lowest int64, -n is negative, too
		return Seconds
	case abs < limit*1000 && abs >= 0:
		return Milliseconds
	case abs < limit*1_000_000 && abs >= 0:
		return Microseconds
	}
	return Nanoseconds
}

// Time returns the time that is n units after the start of 1970, in UTC.
func (u EpochUnit) Time(n int64) time.Time {
	perSecond := int64(Seconds / u)
	return time.Unix(n/perSecond, n%perSecond*int64(u)).UTC()
}

var (
	errNotTime = errors.New("a number that is no time since 1970")
	errNotDay  = errors.New("a number that is a time since 1970, but not the start of a day")
)

// ParseEpoch parses a JSON number that stands for a time, in the unit that GuessEpochUnit returns.
func ParseEpoch(value []byte) (time.Time, EpochUnit, error) {
	n, err := strconv.ParseInt(string(value), 10, 64)
	if err == nil {
		unit := GuessEpochUnit(n)
		return unit.Time(n), unit, nil
	}
	// A number with a fraction or an exponent comes from a program that counts in floating point, mostly in seconds.
	f, err := strconv.ParseFloat(string(value), 64)
	if err != nil || math.Abs(f) >= math.MaxInt64 {
		return time.Time{}, 0, errNotTime
	}
	unit := GuessEpochUnit(int64(f))
	whole, fraction := math.Modf(f)
	micros := math.Round(fraction * float64(unit) / float64(time.Microsecond))
	return unit.Time(int64(whole)).Add(time.Duration(micros) * time.Microsecond), unit, nil
}

// IsTime reports whether a JSON number for this type stands for a time.
func IsTime(t *Type) bool {
	return t.Kind == Timestamp || t.Kind == TimestampTZ || t.OID == dateOID
}

// appendEpochText appends the text form of the time that a JSON number stands for.
func appendEpochText(dst []byte, t *Type, value []byte) ([]byte, error) {
	at, _, err := ParseEpoch(value)
	if err != nil {
		return dst, err
	}
	return appendTimeText(dst, t, at)
}

// appendTimeText appends a time as Postgres' input functions read it.
func appendTimeText(dst []byte, t *Type, at time.Time) ([]byte, error) {
	switch {
	case at.Year() < 1:
		return dst, errNotTime
	case t.OID != dateOID:
		dst = at.AppendFormat(dst, "2006-01-02 15:04:05.999999999")
	case !at.Equal(at.Truncate(24 * time.Hour)):
		return dst, errNotDay
	default:
		dst = at.AppendFormat(dst, time.DateOnly)
	}
	if t.Kind == TimestampTZ {
		dst = append(dst, "+00"...)
	}
	return dst, nil
}

// ParseDateCall parses a time as Windows PowerShell and ASP.NET write it: /Date(1750179480000)/ in milliseconds since 1970. An
// offset such as +0200 may follow the number. The offset does not change the time.
func ParseDateCall(text []byte) (time.Time, bool) {
	number, ok := bytes.CutPrefix(text, []byte("/Date("))
	if ok {
		number, ok = bytes.CutSuffix(number, []byte(")/"))
	}
	if !ok || len(number) == 0 {
		return time.Time{}, false
	}
	if i := bytes.LastIndexAny(number, "+-"); i > 0 && len(number)-i == len("+0000") {
		number = number[:i]
	}
	n, err := strconv.ParseInt(string(number), 10, 64)
	return Milliseconds.Time(n), err == nil
}
