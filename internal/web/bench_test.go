package web

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"
)

// benchTable returns a table of 50,000 votes of 3 kB.
func benchTable(b *testing.B) tableView {
	b.Helper()
	r := rand.New(rand.NewPCG(1, 2))
	words := strings.Fields("the of and to in a is that for it as was with be by on not he his but at are this have from or had an they which one you were all her she there would their we him been has when who will no more if out so up said what its about than into them can only other time new some could these two may first then do")
	rows := newRowsTable(b, votesShape())
	var text strings.Builder
	for id := range 50_000 {
		text.Reset()
		for text.Len() < 2700 {
			text.WriteString(words[r.IntN(len(words))])
			text.WriteByte(' ')
		}
		tags := []string{"{Incorrect}", "{Looks Good}"}[id%2]
		rows.vote(id, fmt.Sprintf("What is the question with the number %d about?", id), text.String(), tags, "short", fmt.Sprintf("2026-01-%02d 10:00:00", id%28+1))
	}
	rows.commit()
	view := rows.View()
	roles, err := newColumnRoles(view.Shape(), "", "")
	if err != nil {
		b.Fatal(err)
	}
	return tableView{view, roles}
}

func BenchmarkSearch(b *testing.B) {
	t := benchTable(b)
	for name, f := range map[string]filter{
		"rare":     {words: []word{newWord("xylophone")}},
		"mixed":    {words: []word{newWord("aboutthat")}},
		"accent":   {words: []word{newWord("é")}},
		"tag":      {tag: "nowhere"},
		"day":      {from: "2027-01-01"},
		"question": {question: questionID{1}},
	} {
		b.Run(name, func(b *testing.B) {
			b.SetBytes(t.Bytes())
			for b.Loop() {
				for row := range t.From(nil) {
					if f.matches(t.columnRoles, row.Line) {
						b.Fatal("found")
					}
				}
			}
			b.ReportMetric(float64(t.Rows())*float64(b.N)/b.Elapsed().Seconds(), "rows/s")
		})
	}
}

// BenchmarkSummary counts all votes. Half of the votes are negative, and no two votes have the same question.
func BenchmarkSummary(b *testing.B) {
	t := benchTable(b)
	b.SetBytes(t.Bytes())
	for b.Loop() {
		countVotes(t, time.Date(2026, 1, 28, 0, 0, 0, 0, time.UTC), nil)
	}
	b.ReportMetric(float64(t.Rows())*float64(b.N)/b.Elapsed().Seconds(), "rows/s")
}

// BenchmarkTimeOrder measures the sort by time. After a start, capture sorts once, before it shows the first page.
func BenchmarkTimeOrder(b *testing.B) {
	t := benchTable(b)
	for b.Loop() {
		if _, err := new(timeOrder).partsOf(t); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(t.Rows())*float64(b.N)/b.Elapsed().Seconds(), "rows/s")
}

func BenchmarkPage(b *testing.B) {
	t := benchTable(b)
	var p votesPage
	order := new(timeOrder)
	if _, err := order.partsOf(t); err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		p, _ = readPage(order.newestFirst(t, nil), t, pageQuery{limit: defaultPageRows})
	}
	if len(p.rows) != defaultPageRows {
		b.Fatal(len(p.rows))
	}
}
