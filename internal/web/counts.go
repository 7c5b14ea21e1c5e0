package web

import (
	"cmp"
	"slices"
	"strings"
	"sync"
	"time"
)

const (
	summaryDays = 90
	summaryTags = 100
	maxTagKinds = 10_000 // maximum number of different tags that are counted; users write them, so there may be any number
	maxDays     = 50_000
	positiveTag = "Looks Good" // prefix of a positive vote's tag, in any case

	countWait = 400 * time.Millisecond // maximum wait for a count in progress; then a request gets the previous counts
	countRest = 9                      // pause after a count, as a multiple of its duration
)

// voteCounts are the counts of all votes in one state of the table.
type voteCounts struct {
	version  uint64
	shape    string // fingerprint of the shape
	days     map[[10]byte]*dayCount
	tags     map[string]int
	untagged int
}

// dayCount counts the votes of one day, in the form of /api/summary.
type dayCount struct {
	Day      string `json:"day"`
	Total    int    `json:"total"`
	Positive int    `json:"positive"` // votes with a positive tag
	Negative int    `json:"negative"` // votes with other tags only
}

// tagCount counts the votes with one tag, in the form of /api/summary.
type tagCount struct {
	Tag      string `json:"tag"`
	Count    int    `json:"count"`
	Positive bool   `json:"positive"`
}

// isOf reports whether the counts are of the state t. Versions are comparable only between states of the same shape.
func (c *voteCounts) isOf(t tableView) bool {
	return c.version == t.Version() && c.shape == t.Shape().Fingerprint
}

// countVotes counts the votes in all rows. It returns nil if stop is closed or a row cannot be read back.
func countVotes(t tableView, stop <-chan struct{}) *voteCounts {
	c := &voteCounts{version: t.Version(), shape: t.Shape().Fingerprint, days: map[[10]byte]*dayCount{}, tags: map[string]int{}}
	rows := 0
	for row, err := range t.From(nil) {
		if err != nil {
			return nil
		}
		if rows++; rows%4096 == 0 {
			select {
			case <-stop:
				return nil
			default:
			}
		}
		c.add(t.columnRoles, row.Line)
	}
	return c
}

func (c *voteCounts) add(roles *columnRoles, line []byte) {
	tagged, positive := false, false
	roles.eachTag(line, func(tag []byte) bool {
		tagged = true
		positive = positive || isPositiveTag(string(tag))
		if _, known := c.tags[string(tag)]; known || len(c.tags) < maxTagKinds {
			c.tags[string(tag)]++
		}
		return true
	})
	if !tagged {
		c.untagged++
	}
	if day := c.dayOf(roles.timeText(line)); day != nil {
		day.Total++
		switch {
		case positive:
			day.Positive++
		case tagged:
			day.Negative++
		}
	}
}

func isPositiveTag(tag string) bool {
	return len(tag) >= len(positiveTag) && strings.EqualFold(tag[:len(positiveTag)], positiveTag)
}

// dayOf returns the entry for the day of a time. It returns nil if the time has no day, such as infinity, or if there are
// maxDays other days already.
func (c *voteCounts) dayOf(timeText []byte) *dayCount {
	if len(timeText) < 10 || timeText[4] != '-' || timeText[7] != '-' {
		return nil
	}
	key := [10]byte(timeText)
	day := c.days[key]
	if day == nil && len(c.days) < maxDays {
		day = &dayCount{Day: string(key[:])}
		c.days[key] = day
	}
	return day
}

// lastDays returns summaryDays consecutive days, the oldest first. The last one is today. If none of these days has a vote, the
// last one is the day of the newest vote instead.
func (c *voteCounts) lastDays(today time.Time) []dayCount {
	first := today.AddDate(0, 0, 1-summaryDays).Format(time.DateOnly)
	newest := ""
	for _, day := range c.days {
		if day.Day <= today.Format(time.DateOnly) {
			newest = max(newest, day.Day)
		}
	}
	last := today
	if newest != "" && newest < first {
		if t, err := time.Parse(time.DateOnly, newest); err == nil {
			last = t
		}
	}
	days := make([]dayCount, summaryDays)
	for i := range days {
		name := last.AddDate(0, 0, i+1-summaryDays).Format(time.DateOnly)
		days[i].Day = name
		if day := c.days[[10]byte([]byte(name))]; day != nil {
			days[i] = *day
		}
	}
	return days
}

// topTags returns the most frequent tags, in descending order, and the number of different tags that it leaves out.
func (c *voteCounts) topTags() (top []tagCount, more int) {
	top = make([]tagCount, 0, len(c.tags))
	for tag, n := range c.tags {
		top = append(top, tagCount{tag, n, isPositiveTag(tag)})
	}
	slices.SortFunc(top, func(a, b tagCount) int {
		return cmp.Or(cmp.Compare(b.Count, a.Count), cmp.Compare(a.Tag, b.Tag))
	})
	if len(top) > summaryTags {
		more = len(top) - summaryTags
		top = top[:summaryTags]
	}
	return top, more
}

// voteCounter keeps the last counts. Counting a million rows takes a second or two, so it runs in a goroutine of its own and
// not in a request. One count runs at a time, and counts run at most a tenth of the time.
type voteCounter struct {
	stop <-chan struct{} // closed when the server stops
	work sync.WaitGroup

	mu        sync.Mutex
	last      *voteCounts
	running   chan struct{} // closed when the count in progress ends; nil if there is none
	restUntil time.Time     // earliest time of the next count
}

// countsOf returns the counts of t. If they are not available within countWait, it returns the last counts, which are of an
// earlier state, or nil if there are none yet.
func (c *voteCounter) countsOf(t tableView) *voteCounts {
	c.mu.Lock()
	if c.last != nil && c.last.isOf(t) {
		defer c.mu.Unlock()
		return c.last
	}
	if c.running == nil && !time.Now().Before(c.restUntil) {
		c.running = c.startCount(t)
	}
	running := c.running
	c.mu.Unlock()

	if running != nil {
		wait := time.NewTimer(countWait)
		defer wait.Stop()
		select {
		case <-running:
		case <-wait.C:
		}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.last
}

// startCount counts the votes of t in a goroutine. The channel that it returns is closed when the count ends.
func (c *voteCounter) startCount(t tableView) chan struct{} {
	done := make(chan struct{})
	c.work.Go(func() {
		defer close(done)
		start := time.Now()
		counts := countVotes(t, c.stop)
		c.mu.Lock()
		defer c.mu.Unlock()
		if counts != nil {
			c.last = counts
		}
		c.running = nil
		c.restUntil = time.Now().Add(countRest * time.Since(start))
	})
	return done
}
