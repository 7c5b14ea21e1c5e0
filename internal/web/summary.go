package web

import (
	"net/http"
	"slices"
	"time"

	"capture/capture"
)

// summaryHandler serves the data that the page shows above the list of votes.
type summaryHandler struct {
	tables  *tables
	status  func() capture.Status
	title   string
	counter voteCounter
}

// summary is the JSON of /api/summary.
type summary struct {
	Title   string          `json:"title"`
	Table   string          `json:"table"`
	Columns []summaryColumn `json:"columns"`
	Rows    int             `json:"rows"`
	Version uint64          `json:"version"`
	Current bool            `json:"current"` // whether the counts below belong to this version; if not, they are older or missing

	Days      []dayCount      `json:"days,omitzero"`       // votes per day, oldest first; missing if the table has no time column
	Tags      []tagCount      `json:"tags,omitzero"`       // votes per tag, most frequent tag first; missing if the table has no column of tags
	MoreTags  int             `json:"more_tags,omitempty"` // number of different tags left out of Tags
	TagWeeks  []tagWeeks      `json:"tag_weeks,omitzero"`  // votes per tag and week, most frequent tag first; missing if the table has no times or tags
	Untagged  int             `json:"untagged"`
	Questions []questionCount `json:"questions,omitzero"` // votes per question, the question with the most negative votes first; missing if the table has no questions or tags

	Status capture.Status `json:"status"`
}

type summaryColumn struct {
	Name string `json:"name"`
	Type string `json:"type"`
	Role role   `json:"role,omitempty"`
	Key  bool   `json:"key,omitempty"`
}

func (h *summaryHandler) serveSummary(w http.ResponseWriter, _ *http.Request) {
	t, ok := h.tables.current(w)
	if !ok {
		return
	}
	s := summary{
		Title:   h.title,
		Table:   t.shape.Table,
		Rows:    t.Rows(),
		Version: t.Version(),
		Status:  h.status(),
	}
	if t.shape.Schema != "" && t.shape.Schema != "public" {
		s.Table = t.shape.Schema + "." + t.shape.Table
	}
	if s.Title == "" {
		s.Title = "Feedback in " + s.Table
	}
	for i := range t.shape.Columns {
		c := &t.shape.Columns[i]
		s.Columns = append(s.Columns, summaryColumn{c.Name, c.TypeName, t.roles[i], slices.Contains(t.shape.Key, i)})
	}
	today := time.Now().UTC()
	if counts := h.counter.countsOf(t, today); counts != nil {
		s.Current = counts.isOf(t, today)
		if t.time >= 0 {
			s.Days = counts.days
		}
		if t.tags >= 0 {
			s.Tags, s.MoreTags, s.Untagged = counts.tags, counts.moreTags, counts.untagged
		}
		if t.tags >= 0 && t.time >= 0 {
			s.TagWeeks = counts.tagWeeks
		}
		if t.tags >= 0 && t.question >= 0 {
			s.Questions = counts.questions
		}
	}
	writeJSON(w, http.StatusOK, s)
}
