package web

import (
	"sync"
	"time"
)

const (
	summaryWeeks = 13
	summaryDays  = 7 * summaryWeeks
	microsPerDay = int64(24 * time.Hour / time.Microsecond)

	countWait = 400 * time.Millisecond // maximum wait for a count in progress; after this time, a request gets the previous counts
	countRest = 9                      // pause after a count, as a multiple of its duration
)

// voteCounts are the counts of the votes in one state of the table, in the form of /api/summary. They also depend on the day
// on which the votes were counted, because the period usually ends with that day.
type voteCounts struct {
	version uint64
	shape   string // fingerprint of the table's shape in that state
	today   string // day on which the votes were counted

	days      []dayCount // the days of the period, oldest first
	tags      []tagCount
	moreTags  int // number of different tags left out of tags
	tagWeeks  []tagWeeks
	untagged  int
	questions []questionCount
}

// dayCount counts the votes of one day, in the form of /api/summary.
type dayCount struct {
	Day      string `json:"day"`
	Total    int    `json:"total"`
	Positive int    `json:"positive"` // votes with a positive tag
	Negative int    `json:"negative"` // votes with other tags only
}

// isOf reports whether the counts belong to the state t, and were counted today. The shapes must be equal, too, because
// versions are comparable only between states of the same shape.
func (c *voteCounts) isOf(t tableView, today time.Time) bool {
	return c.version == t.Version() && c.shape == t.Shape().Fingerprint && c.today == today.Format(time.DateOnly)
}

// period is the range of days that the counts by day, by week and by question cover. It has summaryDays days, which begin at
// midnight UTC.
type period struct {
	start int64 // start of the first day, in microseconds since 1970
}

// periodEnding returns the period whose last day contains the given time.
func periodEnding(last time.Time) period {
	return period{last.UTC().Truncate(24*time.Hour).AddDate(0, 0, 1-summaryDays).UnixMicro()}
}

func (p period) end() int64 { return p.start + summaryDays*microsPerDay }

// dayOf returns the index of the day that contains the given time, or -1 if the time is outside the period.
func (p period) dayOf(micros int64) int {
	if micros < p.start || micros >= p.end() {
		return -1
	}
	return int((micros - p.start) / microsPerDay)
}

// countVotes counts the votes in all rows. The period ends with today. If no vote is in this period, the period ends with the
// day of the newest earlier vote instead. countVotes returns nil if stop is closed or a row cannot be read back.
func countVotes(t tableView, today time.Time, stop <-chan struct{}) *voteCounts {
	c := newCounting(t, periodEnding(today))
	if !eachLine(t, stop, c.add) {
		return nil
	}
	if c.latest > noTime+1 && c.latest < c.period.start { // noTime+1 stands for -infinity
		c = newCounting(t, periodEnding(time.UnixMicro(c.latest)))
		if !eachLine(t, stop, c.add) {
			return nil
		}
	}
	if c.questions.selectCandidates() && !c.addQuestions(t, stop) {
		return nil
	}
	counts := &voteCounts{
		version: t.Version(), shape: t.Shape().Fingerprint, today: today.Format(time.DateOnly),
		days: c.days[:], tagWeeks: c.tags.topWeekly(), untagged: c.untagged, questions: c.questions.worst(),
	}
	for i := range counts.questions {
		if q := &counts.questions[i]; t.time >= 0 {
			q.Last = c.days[q.lastDay].Day
		}
	}
	counts.tags, counts.moreTags = c.tags.top()
	return counts
}

// eachLine calls count with the line of each row. It returns false if stop is closed or a row cannot be read back.
func eachLine(t tableView, stop <-chan struct{}, count func(line []byte)) bool {
	rows := 0
	for row, err := range t.From(nil) {
		if err != nil {
			return false
		}
		if rows++; rows%4096 == 0 {
			select {
			case <-stop:
				return false
			default:
			}
		}
		count(row.Line)
	}
	return true
}

// counting is a count in progress.
type counting struct {
	*columnRoles
	period    period
	latest    int64 // time of the latest vote before the period's end, in microseconds since 1970; noTime if there is none
	days      [summaryDays]dayCount
	tags      tagCounts
	untagged  int
	votes     []questionVote // one for each row, in the order of the rows; nil if the table has no questions or no tags
	questions questionGroups
}

func newCounting(t tableView, p period) *counting {
	c := &counting{columnRoles: t.columnRoles, period: p, latest: noTime, tags: tagCounts{}}
	for i := range c.days {
		c.days[i].Day = time.UnixMicro(p.start).UTC().AddDate(0, 0, i).Format(time.DateOnly)
	}
	if t.columnRoles.tags >= 0 && t.question >= 0 {
		c.votes, c.questions = make([]questionVote, 0, t.Rows()), newQuestionGroups(t.Rows())
	}
	return c
}

// questionVote is the result of the first pass for one vote, for use in the second pass. It is 0 if the vote does not count for
// its question. Otherwise it is the index of the vote's day plus 1, plus positiveVote if the vote is positive. Without these
// results, the second pass would take twice the time.
type questionVote uint8

const positiveVote questionVote = 1 << 7

func (v questionVote) day() int { return int(v&^positiveVote) - 1 }

// add counts a vote in the first pass over the rows.
func (c *counting) add(line []byte) {
	at := c.timeValue(line)
	if at < c.period.end() {
		c.latest = max(c.latest, at)
	}
	day := c.period.dayOf(at)
	tagged, positive := false, false
	c.eachTag(line, func(tag []byte) bool {
		tagged = true
		positive = positive || isPositiveTag(string(tag))
		c.tags.add(tag, day)
		return true
	})
	if !tagged {
		c.untagged++
	}
	if day >= 0 {
		count := &c.days[day]
		count.Total++
		switch {
		case positive:
			count.Positive++
		case tagged:
			count.Negative++
		}
	}
	if c.votes == nil {
		return
	}
	c.votes = append(c.votes, 0)
	vote := &c.votes[len(c.votes)-1]
	switch {
	case !tagged || day < 0 && c.time >= 0:
		return
	case positive:
		*vote = positiveVote
	default:
		if id, _, ok := c.questionOf(line); ok {
			c.questions.prepare(id)
		}
	}
	*vote += questionVote(1 + max(day, 0)) // without times, every vote counts for the first day
}

// addQuestions counts the votes for the questions that were selected, in the second pass over the rows.
func (c *counting) addQuestions(t tableView, stop <-chan struct{}) bool {
	row := -1
	return eachLine(t, stop, func(line []byte) {
		row++
		vote := c.votes[row]
		if vote == 0 {
			return
		}
		if id, text, ok := c.questionOf(line); ok && c.questions.isCandidate(id) {
			c.questions.add(id, text, vote&positiveVote != 0, vote.day())
		}
	})
}

// voteCounter keeps the last counts. Counting a million rows takes a second or two, so a count runs in a goroutine of its
// own and not in a request. Only one count runs at a time. Each count is followed by a pause of countRest times its
// duration, so counting takes at most a tenth of the time.
type voteCounter struct {
	stop <-chan struct{} // closed when the server stops
	work sync.WaitGroup

	mu        sync.Mutex
	last      *voteCounts
	running   chan struct{} // closed when the count in progress ends; nil if there is none
	restUntil time.Time     // earliest time of the next count
}

// countsOf returns the counts of t. If they are not available within countWait, it returns the last counts, which belong to an
// earlier state. If nothing has been counted yet, it returns nil.
func (c *voteCounter) countsOf(t tableView, today time.Time) *voteCounts {
	c.mu.Lock()
	if c.last != nil && c.last.isOf(t, today) {
		defer c.mu.Unlock()
		return c.last
	}
	if c.running == nil && !time.Now().Before(c.restUntil) {
		c.running = c.startCount(t, today)
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
func (c *voteCounter) startCount(t tableView, today time.Time) chan struct{} {
	done := make(chan struct{})
	c.work.Go(func() {
		defer close(done)
		start := time.Now()
		counts := countVotes(t, today, c.stop)
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
