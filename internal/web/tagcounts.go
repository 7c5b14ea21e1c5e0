package web

import (
	"cmp"
	"slices"
	"strings"
)

const (
	summaryTags = 100
	weeklyTags  = 6            // number of tags whose votes are counted per week in /api/summary
	maxTagKinds = 10_000       // maximum number of different tags that are counted; users write them, so there may be any number
	maxTagBytes = 256          // maximum length in bytes of a tag that is counted
	positiveTag = "Looks Good" // start of every positive tag; upper and lower case count as equal
)

// tagCounts counts the votes with each tag, in total and in each week of a period.
type tagCounts map[string]*tagCounter

type tagCounter struct {
	total int
	weeks [summaryWeeks]int // votes with the tag in each week of the period
}

// tagCount counts the votes with one tag, in the form of /api/summary.
type tagCount struct {
	Tag      string `json:"tag"`
	Count    int    `json:"count"`
	Positive bool   `json:"positive"`
}

// tagWeeks counts the votes with one tag in each week of the period, in the form of /api/summary.
type tagWeeks struct {
	Tag      string `json:"tag"`
	Positive bool   `json:"positive"`
	Weeks    []int  `json:"weeks"` // votes in each week, oldest week first
}

func isPositiveTag(tag string) bool {
	return len(tag) >= len(positiveTag) && strings.EqualFold(tag[:len(positiveTag)], positiveTag)
}

// add counts a tag of a vote. dayIndex is the index of the vote's day in the period, or -1 if the day is outside the period.
// Tags longer than maxTagBytes are not counted. Once maxTagKinds different tags have been counted, no other tags are
// counted.
func (c tagCounts) add(tag []byte, dayIndex int) {
	counter := c[string(tag)]
	if counter == nil {
		if len(c) >= maxTagKinds || len(tag) > maxTagBytes {
			return
		}
		counter = &tagCounter{}
		c[string(tag)] = counter
	}
	counter.total++
	if dayIndex >= 0 {
		counter.weeks[dayIndex/7]++
	}
}

// top returns the most frequent tags, in descending order, and the number of different tags that it leaves out.
func (c tagCounts) top() (top []tagCount, more int) {
	top = make([]tagCount, 0, len(c))
	for tag, counter := range c {
		top = append(top, tagCount{tag, counter.total, isPositiveTag(tag)})
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

// topWeekly returns the tags that are the most frequent in the period, most frequent first, with their counts per week.
func (c tagCounts) topWeekly() []tagWeeks {
	type sum struct {
		tag   string
		votes int
	}
	var sums []sum
	for tag, counter := range c {
		votes := 0
		for _, n := range counter.weeks {
			votes += n
		}
		if votes > 0 {
			sums = append(sums, sum{tag, votes})
		}
	}
	slices.SortFunc(sums, func(a, b sum) int {
		return cmp.Or(cmp.Compare(b.votes, a.votes), cmp.Compare(a.tag, b.tag))
	})
	top := []tagWeeks{}
	for _, s := range sums[:min(len(sums), weeklyTags)] {
		top = append(top, tagWeeks{s.tag, isPositiveTag(s.tag), slices.Clone(c[s.tag].weeks[:])})
	}
	return top
}
