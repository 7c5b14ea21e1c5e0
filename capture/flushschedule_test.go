package capture

import (
	"testing"
	"time"
	"unsafe"

	"capture/store"
)

// skewedClock is a wall clock that somebody sets while time passes.
type skewedClock struct {
	start time.Time     // time on the wall clock at the start
	base  time.Time     // time at the start, with a reading of the monotonic clock
	real  time.Duration // time that has really passed since the start
	by    time.Duration // how far the wall clock has been set ahead
}

// now is like time.Now after somebody has set the clock: it returns a time whose monotonic reading does not match its wall
// clock. Only the runtime creates such times, so this method assembles the time from its parts.
func (c *skewedClock) now() time.Time {
	t := c.base.Add(c.real)
	wall := c.start.Add(c.real + c.by)
	parts := (*struct {
		wall uint64 // 1 bit that is set if there is a monotonic reading, 33 bits of seconds since 1885, 30 bits of nanoseconds
		ext  int64
		loc  unsafe.Pointer
	})(unsafe.Pointer(&t))
	since := wall.Sub(time.Date(1885, 1, 1, 0, 0, 0, 0, time.UTC))
	parts.wall = 1<<63 | uint64(since/time.Second)<<30 | uint64(since%time.Second)
	return t
}

// TestClockJumps sets the wall clock back and forth while time passes. The schedule nevertheless makes about one regular
// write per hour, and never waits much longer than an hour.
func TestClockJumps(t *testing.T) {
	const hour = time.Hour
	type jump struct {
		after time.Duration // real time from the start to the jump
		by    time.Duration // change of the wall clock
	}
	for _, c := range []struct {
		name    string
		jumps   []jump
		real    time.Duration // duration of the whole test
		atLeast int
		atMost  int
		past    time.Duration // time from the last full hour to the start
	}{
		{"no jump", nil, 10 * hour, 10, 10, 0},
		{"no jump, starts late in the hour", nil, 10 * hour, 10, 10, 59 * time.Minute},
		{"an hour forth (daylight saving of a clock that knows no zones)", []jump{{150 * time.Minute, hour}}, 10 * hour, 10, 11, 0},
		{"an hour back", []jump{{150 * time.Minute, -hour}}, 10 * hour, 9, 11, 0},
		{"a day back", []jump{{150 * time.Minute, -24 * hour}}, 10 * hour, 9, 11, 0},
		{"a year forth", []jump{{150 * time.Minute, 8760 * hour}}, 10 * hour, 10, 11, 0},
		{"to 1970, and right again", []jump{{30 * time.Minute, -490_000 * hour}, {hour, 490_000 * hour}}, 10 * hour, 9, 12, 0},
		{"back and forth over the hour, all the time", []jump{
			{50 * time.Minute, 20 * time.Minute}, {51 * time.Minute, -20 * time.Minute}, {52 * time.Minute, 20 * time.Minute},
			{53 * time.Minute, -20 * time.Minute}, {54 * time.Minute, 20 * time.Minute}, {55 * time.Minute, -20 * time.Minute},
		}, 10 * hour, 9, 11, 0},
		{"a leap second smeared", []jump{{time.Hour, -time.Second}, {2 * time.Hour, time.Second}}, 10 * hour, 9, 11, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			clock := &skewedClock{start: time.Date(2025, 3, 30, 0, 0, 0, 0, time.UTC).Add(c.past), base: time.Now()}
			if now := clock.now(); !now.Equal(clock.start) {
				t.Fatalf("the clock shows %s", now)
			}
			s := newFlushSchedule(100*time.Millisecond, hour, clock.now())
			var flushes []time.Duration
			for clock.real < c.real {
				// Like the flusher, wait as long as the schedule says, but at least a millisecond.
				wait := max(s.waitTime(clock.now()), time.Millisecond)
				if wait > clockCheck {
					t.Fatalf("it would not look at the clock for %s", wait)
				}
				for len(c.jumps) > 0 && clock.real+wait >= c.jumps[0].after {
					clock.by += c.jumps[0].by
					c.jumps = c.jumps[1:]
				}
				clock.real += wait
				if reason, due := s.writeDue(clock.now(), true); due {
					if reason != store.ReasonInterval {
						t.Fatalf("a flush by reason of %s", reason)
					}
					flushes = append(flushes, clock.real)
					s.addWrite(clock.now(), time.Millisecond, nil)
				}
			}
			if n := len(flushes); n < c.atLeast || n > c.atMost {
				t.Errorf("%d flushes, want %d to %d: %v", n, c.atLeast, c.atMost, flushes)
			}
			for i := 1; i < len(flushes); i++ {
				if gap := flushes[i] - flushes[i-1]; gap > hour+10*time.Second {
					t.Errorf("nothing for %s after %s", gap, flushes[i-1])
				}
			}
		})
	}
}
