package web

import (
	"cmp"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"capture/capture"
)

const (
	summaryDays  = 90
	summaryTags  = 100
	maxTags      = 10_000 // told apart; further ones are counted together
	maxDays      = 50_000
	summaryWait  = 400 * time.Millisecond // for a count that is under way; then the last one has to do
	summaryShare = 9                      // pauses are this many times as long as counting took
	positiveTag  = "Looks Good"           // what a positive vote's tag begins with
)

// counts is what a walk over all rows found.
type counts struct {
	version uint64
	shape   string // its fingerprint
	rows    int
	days    map[[10]byte]*day
	tags    map[string]int
	moreTag int // tags beyond maxTags
	bare    int // rows without a tag
}

// of says whether the counts are those of t. The rows of an earlier run have another shape than any table.
func (c *counts) of(t table) bool {
	return c.version == t.Version() && c.shape == t.Shape().Fingerprint
}

type day struct {
	Day      string `json:"day"`
	Total    int    `json:"total"`
	Positive int    `json:"positive"` // has a tag that begins "Looks Good"
	Negative int    `json:"negative"` // has tags, but none of those
}

type tagCount struct {
	Tag      string `json:"tag"`
	Count    int    `json:"count"`
	Positive bool   `json:"positive"`
}

// summaries keeps the last counts. A walk takes a second or two for a million rows, so it runs beside the requests, and
// never takes more than a tenth of the time.
type summaries struct {
	work    sync.WaitGroup
	mu      sync.Mutex
	last    *counts
	running chan struct{} // closed when the walk under way ends; nil while there is none
	rest    time.Time     // no new walk before
}

// of is the counts of t, or older ones where those take too long; nil where there are none at all yet.
func (s *summaries) of(t table, stop <-chan struct{}) *counts {
	s.mu.Lock()
	if s.last != nil && s.last.of(t) {
		defer s.mu.Unlock()
		return s.last
	}
	if s.running == nil && !time.Now().Before(s.rest) {
		done := make(chan struct{})
		s.running = done
		s.work.Go(func() {
			defer close(done)
			begun := time.Now()
			c := count(t, stop)
			s.mu.Lock()
			defer s.mu.Unlock()
			if s.running = nil; c != nil {
				s.last = c
			}
			s.rest = time.Now().Add(summaryShare * time.Since(begun))
		})
	}
	running := s.running
	s.mu.Unlock()

	if running != nil {
		wait := time.NewTimer(summaryWait)
		defer wait.Stop()
		select {
		case <-running:
		case <-wait.C:
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.last
}

// count walks over all rows, nil where stop ends it or rows can't be read back.
func count(t table, stop <-chan struct{}) *counts {
	c := &counts{version: t.Version(), shape: t.Shape().Fingerprint, days: map[[10]byte]*day{}, tags: map[string]int{}}
	for row, err := range t.From(nil) {
		if err != nil {
			return nil
		}
		line := row.Line
		if c.rows++; c.rows%4096 == 0 {
			select {
			case <-stop:
				return nil
			default:
			}
		}
		tagged, positive := false, false
		t.eachTag(line, func(tag []byte) bool {
			tagged = true
			positive = positive || isPositive(string(tag))
			if _, known := c.tags[string(tag)]; known || len(c.tags) < maxTags {
				c.tags[string(tag)]++
			} else {
				c.moreTag++
			}
			return true
		})
		if !tagged {
			c.bare++
		}
		if d := c.day(t.when(line)); d != nil {
			d.Total++
			switch {
			case positive:
				d.Positive++
			case tagged:
				d.Negative++
			}
		}
	}
	return c
}

func isPositive(tag string) bool {
	return len(tag) >= len(positiveTag) && strings.EqualFold(tag[:len(positiveTag)], positiveTag)
}

// day is the entry of the day that a time is in, nil for no day, as infinity.
func (c *counts) day(when []byte) *day {
	if len(when) < 10 || when[4] != '-' || when[7] != '-' {
		return nil
	}
	k := [10]byte(when)
	d := c.days[k]
	if d == nil && len(c.days) < maxDays {
		d = &day{Day: string(k[:])}
		c.days[k] = d
	}
	return d
}

// lastDays is the last ninety days, each of them, up to today, or up to the newest vote's where that was longer ago.
func (c *counts) lastDays(today time.Time) []day {
	first := today.AddDate(0, 0, 1-summaryDays).Format(time.DateOnly)
	newest := ""
	for _, d := range c.days {
		if d.Day <= today.Format(time.DateOnly) {
			newest = max(newest, d.Day)
		}
	}
	end := today
	if newest != "" && newest < first {
		if t, err := time.Parse(time.DateOnly, newest); err == nil {
			end = t
		}
	}
	days := make([]day, summaryDays)
	for i := range days {
		name := end.AddDate(0, 0, i+1-summaryDays).Format(time.DateOnly)
		days[i].Day = name
		if d := c.days[[10]byte([]byte(name))]; d != nil {
			days[i] = *d
		}
	}
	return days
}

// topTags is the commonest tags, the commonest first, and how many more there are.
func (c *counts) topTags() (top []tagCount, more int) {
	top = make([]tagCount, 0, len(c.tags))
	for tag, n := range c.tags {
		top = append(top, tagCount{tag, n, isPositive(tag)})
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

// summaryAnswer is the JSON of /api/summary.
type summaryAnswer struct {
	Title   string          `json:"title"`
	Table   string          `json:"table"`
	Columns []summaryColumn `json:"columns"`
	Rows    int             `json:"rows"`
	Version uint64          `json:"version"`
	Current bool            `json:"current"` // the counts are of this version; else they are older, or not there yet

	Days     []day      `json:"days,omitempty"` // the oldest first; none where the table has no time
	Tags     []tagCount `json:"tags,omitempty"`
	MoreTags int        `json:"more_tags,omitempty"` // kinds of tags beyond those listed
	Untagged int        `json:"untagged"`

	Status capture.Status `json:"status"`
}

type summaryColumn struct {
	Name string `json:"name"`
	Type string `json:"type"`
	Role role   `json:"role,omitempty"`
	Key  bool   `json:"key,omitempty"`
}

func (s *Server) summarize(w http.ResponseWriter, _ *http.Request) {
	t, ok := s.table(w)
	if !ok {
		return
	}
	a := summaryAnswer{
		Title:   s.title,
		Table:   t.shape.Table,
		Rows:    t.Rows(),
		Version: t.Version(),
		Status:  s.status(),
	}
	if t.shape.Schema != "" && t.shape.Schema != "public" {
		a.Table = t.shape.Schema + "." + t.shape.Table
	}
	if a.Title == "" {
		a.Title = "Feedback in " + a.Table
	}
	for i := range t.shape.Columns {
		c := &t.shape.Columns[i]
		a.Columns = append(a.Columns, summaryColumn{c.Name, c.TypeName, t.roles[i], slices.Contains(t.shape.Key, i)})
	}
	if c := s.summary.of(t, s.stopping); c != nil {
		a.Current = c.of(t)
		if t.time >= 0 {
			a.Days = c.lastDays(time.Now().UTC())
		}
		if t.tags >= 0 {
			a.Tags, a.MoreTags = c.topTags()
			a.Untagged = c.bare
		}
	}
	answer(w, http.StatusOK, a)
}
