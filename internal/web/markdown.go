package web

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"

	"github.com/hashicorp/go-hclog"

	"capture/internal/markdown"
)

// markdownHandler serves the answers in a vote. Models write the answers in Markdown, and the page gets them as trees of
// elements.
type markdownHandler struct {
	tables *tables
	parser *markdown.Parser
	log    hclog.Logger
}

// serveAnswers sends the Markdown elements of each answer in the vote whose key is in the path. It leaves out an answer that is
// too long, nested too deeply or not parsed in time.
func (h *markdownHandler) serveAnswers(w http.ResponseWriter, r *http.Request) {
	t, ok := h.tables.current(w)
	if !ok {
		return
	}
	_, line, ok := h.tables.find(w, r, t)
	if !ok {
		return
	}
	answers := map[string][]markdown.Node{}
	for i, column := range t.shape.Columns {
		value := t.value(line, i)
		if t.roles[i] != roleAnswer || len(value) < 2 || value[0] != '"' {
			continue
		}
		nodes, err := h.parser.Parse(r.Context(), string(unquoteJSON(value)))
		switch {
		case err == nil:
			answers[column.Name] = nodes
		case errors.Is(err, markdown.ErrTooComplex):
		case errors.Is(err, context.DeadlineExceeded):
			h.log.Debug("Markdown not parsed in time", "column", column.Name)
		default:
			writeUnavailable(w, 1, "the answer could not be parsed as Markdown; see the error log")
			return
		}
	}
	setVotesHeader(w)
	_ = json.NewEncoder(w).Encode(struct {
		Answers map[string][]markdown.Node `json:"answers"`
	}{answers})
}
