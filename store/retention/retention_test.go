package retention_test

import (
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"capture/internal/race"
	"capture/store/retention"
)

func at(text string) time.Time {
	t, err := time.Parse(time.RFC3339, text)
	if err != nil {
		panic(err)
	}
	return t
}

func TestParse(t *testing.T) {
	for text, want := range map[string]retention.Policy{
		"24h,7d,4w": {Hours: 24, Days: 7, Weeks: 4}, "0": {}, "48": {Hours: 48}, "7d": {Days: 7}, "4w, 24h": {Hours: 24, Weeks: 4},
		"0h": {}, "100000w": {Weeks: 100000},
	} {
		p, err := retention.Parse(text)
		if err != nil || p != want {
			t.Errorf("%q: %+v, %v", text, p, err)
		}
		if again, err := retention.Parse(p.String()); err != nil || again != p {
			t.Errorf("%q: %q is %+v, %v", text, p, again, err)
		}
	}
	for _, text := range []string{"", "h", "-1", "+1h", "1.5h", "24h,", "24h,24h", "5,5h", "3m", "100001", "1y", "24 h"} {
		if p, err := retention.Parse(text); err == nil {
			t.Errorf("%q is %+v", text, p)
		}
	}
}

// drop removes the states that Plan returns from the list. It returns the remaining states, and the number of bytes that
// cannot be freed.
func drop(states []retention.State, p retention.Policy, now time.Time, excess int64) ([]retention.State, int64) {
	dropped, short := retention.Plan(states, p, now, excess)
	var left []retention.State
	for i, s := range states {
		if !slices.Contains(dropped, i) {
			left = append(left, s)
		}
	}
	return left, short
}

// TestYear adds a state each hour for a year, and checks each time which states are left. Hours, days and weeks are those of
// UTC, so a change to daylight saving time makes no difference.
func TestYear(t *testing.T) {
	var states []retention.State
	p := retention.Default
	for now := at("2026-01-01T00:00:00Z"); now.Before(at("2027-01-01T00:00:00Z")); now = now.Add(time.Hour) {
		written := now.Add(7 * time.Second)
		states, _ = drop(append(states, retention.State{Time: written, Rows: 1}), p, written, 0)
		var want []time.Time
		have := func(t time.Time) bool { return !t.Before(at("2026-01-01T00:00:00Z")) }
		for i := range 24 {
			want = append(want, written.Add(-time.Duration(i)*time.Hour))
		}
		midnight := now.Truncate(24 * time.Hour).Add(7 * time.Second)
		for i := range 6 { // the newest states of the days before
			want = append(want, midnight.Add(-time.Duration(i)*24*time.Hour-time.Hour))
		}
		monday := midnight
		for monday.Weekday() != time.Monday {
			monday = monday.Add(-24 * time.Hour)
		}
		for i := range 3 {
			want = append(want, monday.Add(-time.Duration(i)*7*24*time.Hour-time.Hour))
		}
		want = slices.DeleteFunc(want, func(t time.Time) bool { return !have(t) })
		slices.SortFunc(want, time.Time.Compare)
		want = slices.CompactFunc(want, time.Time.Equal)
		if len(states) != len(want) {
			t.Fatalf("at %s: %d states, not %d", now, len(states), len(want))
		}
		for i := range want {
			if !states[i].Time.Equal(want[i]) {
				t.Fatalf("at %s: state %d is of %s, not %s", now, i, states[i].Time, want[i])
			}
		}
	}
}

// TestClockJumps checks that no state is lost if the clock jumps and is right again after half a day: each state that would
// stay without the jump must stay.
func TestClockJumps(t *testing.T) {
	for _, jump := range []time.Duration{-400 * 24 * time.Hour, -3 * time.Hour, 3 * time.Hour, 400 * 24 * time.Hour} {
		var states, wantStates []retention.State
		elapsed, wrong := time.Duration(0), time.Duration(0)
		start := at("2026-03-01T00:00:30Z")
		clock := retention.NewClock(start, time.Time{}, 0)
		for hour := range 24 * 60 {
			elapsed = time.Duration(hour) * time.Hour
			real := start.Add(elapsed)
			switch hour {
			case 24 * 40:
				wrong = jump
			case 24*40 + 12:
				wrong = 0
			}
			wall := real.Add(wrong)
			states, _ = drop(append(states, retention.State{Time: wall, Rows: hour}), retention.Default, clock.Now(wall, elapsed), 0)
			if wrong == 0 && (hour < 24*40 || hour >= 24*40+12) {
				wantStates = append(wantStates, retention.State{Time: wall, Rows: hour})
			}
			wantStates, _ = drop(wantStates, retention.Default, real, 0)
			if len(states) > 100 {
				t.Fatalf("jump of %s: %d states", jump, len(states))
			}
			for _, want := range wantStates {
				// Each of the wantStates that is older than the jump must be left. Later states are checked only after a
				// long jump, once the clock is right again: after a jump of three hours, two states can belong to the same
				// hour, and Plan keeps only one of them.
				isJudged := want.Rows < 24*40 || wrong == 0 && jump.Abs() > 24*time.Hour
				if isJudged && !slices.Contains(states, want) {
					t.Fatalf("jump of %s, hour %d: the state of %s is gone", jump, hour, want.Time)
				}
			}
		}
	}
}

// TestPause checks that the states stay for a day if capture starts after a stop of a year, because the clock could be
// wrong. After this day, Plan drops them. If capture starts again within this day, the day begins again.
func TestPause(t *testing.T) {
	last := at("2026-03-01T00:00:30Z")
	start := last.Add(365 * 24 * time.Hour)
	clock := retention.NewClock(start, last, 0)
	states := []retention.State{{Time: last}}
	for _, after := range []time.Duration{0, 23 * time.Hour} {
		if states, _ = drop(states, retention.Default, clock.Now(start.Add(after), after), 0); len(states) != 1 {
			t.Fatalf("dropped %s after the start", after)
		}
		again := retention.NewClock(start.Add(after), clock.Behind(start.Add(after), after), 0)
		if states, _ = drop(states, retention.Default, again.Now(start.Add(after), 0), 0); len(states) != 1 {
			t.Fatalf("dropped at another start, %s after the first", after)
		}
	}
	if states, _ = drop(states, retention.Default, clock.Now(start.Add(25*time.Hour), 25*time.Hour), 0); len(states) != 0 {
		t.Error("a state of a year ago is still there a day after the start")
	}
	if behind := clock.Behind(start.Add(25*time.Hour), 25*time.Hour); !behind.IsZero() {
		t.Errorf("a day after the start, the accepted time is %s", behind)
	}
}

func TestLosses(t *testing.T) {
	day := at("2026-03-10T00:00:00Z")
	hour := func(h int) time.Time { return day.Add(time.Duration(h) * time.Hour) }
	states := []retention.State{
		{Time: hour(1), Rows: 900, Loss: true, Acknowledged: true},
		{Time: hour(2), Rows: 1000, Loss: true, Acknowledged: true}, // the earlier of the two largest states of the day
		{Time: hour(3), Rows: 800, Loss: true},                      // the earlier of two states before unacknowledged losses
		{Time: hour(4), Rows: 800, Loss: true},                      // the later of the two: an UPDATE may have ruined its values
		{Time: hour(4).Add(time.Minute), Rows: 1000, Loss: true, Acknowledged: true},
		{Time: hour(5), Rows: 1000},
	}
	check := func(p retention.Policy, now time.Time, want ...int) {
		t.Helper()
		left, _ := drop(states, p, now, 0)
		var hours []int
		for _, s := range left {
			hours = append(hours, s.Time.Hour())
		}
		if !slices.Equal(hours, want) {
			t.Errorf("%s at %s keeps the hours %v, not %v", p, now, hours, want)
		}
	}
	check(retention.Policy{}, hour(6), 2, 3)
	check(retention.Policy{Hours: 3}, hour(6), 2, 3, 4, 5)
	check(retention.Policy{Days: 3}, hour(30), 2, 3, 5)
	check(retention.Policy{}, day.Add(29*24*time.Hour), 2, 3)
	check(retention.Policy{}, day.Add(30*24*time.Hour), 3)
	check(retention.Policy{}, day.Add(300*24*time.Hour), 3)

	states = []retention.State{
		{Time: hour(1), Rows: 1000, Loss: true, Acknowledged: true},
		{Time: hour(2), Rows: 1000, Loss: true}, // stays instead of the state of hour 1, because nobody has acknowledged its loss
		{Time: hour(-1), Rows: 2000, Loss: true},
	}
	check(retention.Policy{}, hour(6), 2, 23)

	states = []retention.State{
		{Time: hour(1), Rows: 100, Loss: true, Values: true, Acknowledged: true},
		{Time: hour(2), Rows: 100, Loss: true, Values: true}, // the state before the first UPDATE that ruined values
		{Time: hour(3), Rows: 101, Loss: true, Values: true},
		{Time: hour(4), Rows: 101, Loss: true, Values: true}, // the state before the last UPDATE that ruined values
		{Time: hour(5), Rows: 102, Loss: true},
	}
	check(retention.Policy{}, hour(6), 2, 4, 5)
	check(retention.Policy{}, day.Add(30*24*time.Hour), 5)
}

// TestSpace checks the order in which Plan drops states if space is short. First come the states that are kept only as the
// newest of an hour, then the newest of a day, and then the newest of a week. Then come the states before acknowledged
// losses, and last the states before unacknowledged losses. Within each group, Plan drops the oldest state first. Plan never
// drops the state before the largest unacknowledged loss.
func TestSpace(t *testing.T) {
	now := at("2026-03-11T12:30:00Z") // a Wednesday
	const mb = 1 << 20
	ago := func(h int) time.Time { return now.Add(-time.Duration(h) * time.Hour) }
	states := []retention.State{
		{Time: ago(0), Bytes: mb},                                                // 0: newest of its hour, its day and its week
		{Time: ago(1), Bytes: mb},                                                // 1: newest of its hour
		{Time: ago(2), Bytes: mb},                                                // 2: newest of its hour
		{Time: ago(24), Bytes: mb},                                               // 3: newest of its day
		{Time: ago(24 * 8), Bytes: mb},                                           // 4: newest of its week
		{Time: ago(24 * 20), Bytes: mb, Loss: true, Acknowledged: true},          // 5
		{Time: ago(24 * 21), Bytes: mb, Loss: true, Rows: 10},                    // 6
		{Time: ago(24 * 22), Bytes: mb, Loss: true, Rows: 20},                    // 7: before the largest unacknowledged loss
		{Time: ago(24 * 90), Bytes: mb, Loss: true, Rows: 15},                    // 8: too old
		{Time: ago(24 * 40), Bytes: mb, Loss: true, Acknowledged: true, Rows: 9}, // 9: too old
	}
	for n, want := range [][]int{{8, 9}, {8, 9}, {8, 9}, {8, 9, 2}, {8, 9, 2, 1}, {8, 9, 2, 1, 3}, {8, 9, 2, 1, 3, 4}, {8, 9, 2, 1, 3, 4, 0}, {8, 9, 2, 1, 3, 4, 0, 5}} {
		dropped, short := retention.Plan(states, retention.Policy{Hours: 3, Days: 2, Weeks: 2}, now, int64(n)*mb)
		if !slices.Equal(dropped, want) || short != 0 {
			t.Errorf("%d MB: dropped %v, not %v; short of %d", n, dropped, want, short)
		}
	}
	if dropped, short := retention.Plan(states, retention.Policy{}, now, 20*mb); len(dropped) != 9 || slices.Contains(dropped, 7) || short != 11*mb {
		t.Errorf("20 MB: dropped %v, short of %d", dropped, short)
	}
	for _, test := range []struct {
		b    retention.Budget
		want int64
	}{
		{retention.Budget{File: 1, Size: 1000 * mb, Free: 900 * mb}, 0},
		{retention.Budget{File: 1, Size: 1000 * mb, Free: 195 * mb}, 5 * mb},
		{retention.Budget{File: 100 * mb, Size: 500 * mb, Free: 150 * mb}, 50 * mb},
	} {
		if got := test.b.Excess(states); got != test.want {
			t.Errorf("%+v: %d, not %d", test.b, got, test.want)
		}
	}
	if got := (retention.Budget{File: 1, Size: 1 << 40, Free: 1 << 39}).Excess(slices.Repeat(states, 10)); got != 36*mb {
		t.Errorf("100 MB of states for a small file: %d", got)
	}
}

// TestManyLosses adds many states at random times, about half of them before a loss. The number of states and their bytes
// must stay bounded, and the state before the largest unacknowledged loss must never be dropped. If there is space, the
// state before the largest loss of each day must stay for 30 days.
func TestManyLosses(t *testing.T) {
	const day = "2006-01-02"
	count := 10_000
	if race.Enabled {
		count = 3000 // about two months of states
	}
	for _, c := range []struct{ rowBytes, free int64 }{
		{1_000, 1 << 39},  // there is space for all states that the policy covers
		{20_000, 1 << 39}, // there is space for only some of these states
		{1_000, 0},        // the volume is full
	} {
		random := rand.New(rand.NewPCG(1, 2))
		now := at("2026-01-01T00:00:00Z")
		var states []retention.State
		best, largest := map[string]retention.State{}, retention.State{}
		for range count {
			now = now.Add(time.Duration(random.IntN(3600)) * time.Second)
			s := retention.State{Time: now, Rows: random.IntN(1000), Loss: random.IntN(2) == 0}
			s.Acknowledged = s.Loss && random.IntN(4) > 0
			s.Bytes = int64(s.Rows) * c.rowBytes
			states = append(states, s)
			budget := retention.Budget{File: 1000 * c.rowBytes, Size: 1 << 40, Free: c.free}
			states, _ = drop(states, retention.Default, now, budget.Excess(states))
			if len(states) > 24+7+4+31+1 {
				t.Fatalf("%d states", len(states))
			}
			bytes := int64(0)
			for _, s := range states {
				bytes += s.Bytes
			}
			if bytes > max(10*budget.File, 64<<20) {
				t.Fatalf("%d states have %d bytes, and the file %d", len(states), bytes, budget.File)
			}
			if s.Loss && !s.Acknowledged && s.Rows > largest.Rows {
				largest = s
			}
			if largest.Loss && !slices.Contains(states, largest) {
				t.Fatalf("the state before the largest unacknowledged loss, of %s, is gone at %s", largest.Time, now)
			}
			if b, ok := best[now.Format(day)]; s.Loss && (!ok || s.Rows > b.Rows || s.Rows == b.Rows && b.Acknowledged && !s.Acknowledged) {
				best[now.Format(day)] = s
			}
			if c.rowBytes != 1_000 || c.free == 0 {
				continue
			}
			for d := range 30 {
				b, ok := best[now.AddDate(0, 0, -d).Format(day)]
				if ok && !slices.Contains(states, b) {
					t.Fatalf("the largest loss of %s is gone at %s", b.Time, now)
				}
			}
		}
	}
}
