package rowjson

import (
	"math"
	"testing"
	"time"
)

// TestAppendTextOfOtherPrograms checks that AppendText reads the forms in which pandas, Spark, PowerShell and Python write
// values.
func TestAppendTextOfOtherPrograms(t *testing.T) {
	integer, date := Type{Kind: Number, OID: int4OID}, Type{Kind: Text, OID: dateOID}
	local, zoned := Type{Kind: Timestamp, OID: 1114}, Type{Kind: TimestampTZ, OID: 1184}
	for _, c := range []struct {
		typ         *Type
		value, want string // want is "" if the value is refused
	}{
		{&integer, "1.0", "1"}, {&integer, "-17.000", "-17"}, {&integer, "0.0", "0"}, {&integer, "1", "1"}, {&integer, `"1"`, "1"},
		{&integer, "1.5", "1.5"}, {&integer, "1e3", "1e3"}, {&integer, "1.0e3", "1.0e3"}, {&integer, "9007199254740993.0", "9007199254740993"},
		{&Type{Kind: Number, OID: 1700}, "1.0", "1.0"}, {&Type{Kind: Number, OID: 701}, "1.0", "1.0"},
		{&Type{Kind: Array, Elem: &integer}, "[1.0,null,2]", "{1,NULL,2}"},
		{&Type{Kind: Bool}, "true", "t"}, {&Type{Kind: Bool}, "0", "0"}, {&Type{Kind: Bool}, "12", "12"}, {&Type{Kind: Bool}, `"true"`, "true"},
		{&local, "1750179480", "2025-06-17 16:58:00"}, {&local, "1750179480123", "2025-06-17 16:58:00.123"},
		{&local, "1750179480123456", "2025-06-17 16:58:00.123456"}, {&local, "1750179480123456789", "2025-06-17 16:58:00.123456789"},
		{&local, "1750179480.123456", "2025-06-17 16:58:00.123456"}, {&local, "1.750179480e9", "2025-06-17 16:58:00"}, {&local, "1750179480000.0", "2025-06-17 16:58:00"},
		{&local, "0", "1970-01-01 00:00:00"}, {&local, "-1.5", "1969-12-31 23:59:58.5"}, {&local, "-1", "1969-12-31 23:59:59"}, {&local, "-99999999999", ""},
		{&local, "1e300", ""}, {&local, "-9223372036854775808", "1677-09-21 00:12:43.145224192"},
		{&zoned, "1750179480123", "2025-06-17 16:58:00.123+00"}, {&zoned, `"2025-06-17T16:58:00Z"`, "2025-06-17 16:58:00Z"},
		{&local, `"\/Date(1750179480123)\/"`, "2025-06-17 16:58:00.123"}, {&zoned, `"/Date(1750179480123+0200)/"`, "2025-06-17 16:58:00.123+00"},
		{&local, `"/Date(-1000)/"`, "1969-12-31 23:59:59"}, {&local, `"/Date()/"`, "/Date()/"}, {&local, `"/Date(x)/"`, "/Date(x)/"},
		{&date, "1750118400000", "2025-06-17"}, {&date, "1750118400", "2025-06-17"}, {&date, "1750118400001", ""}, {&date, `"2025-06-17"`, "2025-06-17"},
		{&Type{Kind: Text, OID: 25}, "1750118400000", "1750118400000"}, {&Type{Kind: Text, OID: 25}, `"/Date(1)/"`, "/Date(1)/"},
	} {
		text, err := AppendText([]byte("before"), c.typ, []byte(c.value))
		if c.want == "" && err == nil || c.want != "" && (err != nil || string(text) != "before"+c.want) {
			t.Errorf("%s for OID %d gave %q, %v, want %q", c.value, c.typ.OID, text, err, c.want)
		}
	}
}

func TestGuessEpochUnit(t *testing.T) {
	for year := 1974; year < 2250; year++ {
		at := time.Date(year, 6, 17, 16, 58, 1, 0, time.UTC)
		for unit, n := range map[EpochUnit]int64{Seconds: at.Unix(), Milliseconds: at.UnixMilli(), Microseconds: at.UnixMicro(), Nanoseconds: at.UnixNano()} {
			if got := GuessEpochUnit(n); got != unit || !unit.Time(n).Equal(at) {
				t.Fatalf("%d %s since 1970 are taken for %s: %s", n, unit, got, got.Time(n))
			}
		}
	}
	for _, n := range []int64{math.MinInt64, math.MaxInt64} {
		if got := GuessEpochUnit(n); got != Nanoseconds {
			t.Errorf("%d is taken for %s", n, got)
		}
	}
}
