package web

import (
	"bytes"
	"errors"
	"fmt"
	"iter"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"golang.org/x/sync/semaphore"

	"capture/snapshot"
)

// votesHandler serves votes from memory, as pages and one at a time.
type votesHandler struct {
	tables   *tables
	searches *semaphore.Weighted
}

func newVotesHandler(t *tables) *votesHandler {
	return &votesHandler{t, semaphore.NewWeighted(maxSearches)}
}

// serveList answers with a page of the votes that match the filter, newest first.
func (h *votesHandler) serveList(w http.ResponseWriter, r *http.Request) {
	t, ok := h.tables.current(w)
	if !ok {
		return
	}
	var q pageQuery
	query, err := parseQuery(r)
	if err == nil {
		q, err = parsePageQuery(query, t)
	}
	if err != nil {
		writeError(w, http.StatusBadRequest, err.Error())
		return
	}
	if h.searches.Acquire(r.Context(), 1) != nil {
		return // the client has gone
	}
	p, err := readPage(h.tables.order.newestFirst(t, q.after), t, q)
	h.searches.Release(1)
	if err != nil {
		h.tables.writeReadError(w, err)
		return
	}
	p.writeTo(w, t)
}

// serveVote answers with the vote whose key is in the path.
func (h *votesHandler) serveVote(w http.ResponseWriter, r *http.Request) {
	t, ok := h.tables.current(w)
	if !ok {
		return
	}
	key, line, ok := h.tables.find(w, r, t)
	if !ok {
		return
	}
	setVotesHeader(w)
	w.Write(append(appendVote(nil, t, placedRow{snapshot.Row{Key: key, Line: line}, place{t.timeValue(line), key}}), '\n'))
}

func setVotesHeader(w http.ResponseWriter) {
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", noStore)
}

// pageQuery is a request for one page of votes.
type pageQuery struct {
	filter filter
	after  *place // place after which the page begins; nil if the page begins with the newest vote
	limit  int
}

// parsePageQuery parses the query parameters of a request for a page of votes. Its errors are meant for the client.
func parsePageQuery(query url.Values, t tableView) (q pageQuery, err error) {
	if q.filter, err = parseFilter(query, t.columnRoles); err != nil {
		return q, err
	}
	q.limit = defaultPageRows
	if text := query.Get("limit"); text != "" {
		if q.limit, err = strconv.Atoi(text); err != nil || q.limit < 1 || q.limit > maxPageRows {
			return q, fmt.Errorf("limit takes a number from 1 to %d", maxPageRows)
		}
	}
	if text := query.Get("after"); text != "" {
		var ok bool
		if q.after, ok = t.parsePlace(text); !ok {
			return q, errors.New("after takes the next of the page before, or the key of a vote that is in the table")
		}
	}
	return q, nil
}

// votesPage is the answer to a pageQuery.
type votesPage struct {
	rows    []placedRow
	next    *place // place after which the next page begins; nil at the end of the table
	scanned int    // number of rows examined
}

// readPage searches the rows that newestFirst yields, until the page is full or searchTimeout has passed.
func readPage(newestFirst iter.Seq2[placedRow, error], t tableView, q pageQuery) (p votesPage, err error) {
	size := 0
	var deadline time.Time
	for row, err := range newestFirst {
		if err != nil {
			return votesPage{}, err
		}
		if p.scanned == 0 {
			deadline = time.Now().Add(searchTimeout) // the time limit starts at the first row, because it must not include the time to sort the table
		}
		isFull := len(p.rows) == q.limit || size > maxPageBytes
		if isFull || p.scanned%64 == 63 && time.Now().After(deadline) {
			return p, nil
		}
		p.scanned++
		p.next = &place{row.place.time, bytes.Clone(row.Key)}
		if q.filter.matches(t.columnRoles, row.Line) {
			// The line is cloned, since it may be part of a whole page of rows that was read back from disk.
			row.Line = bytes.Clone(row.Line)
			p.rows = append(p.rows, row)
			size += len(row.Line)
		}
	}
	p.next = nil
	return p, nil
}

// writeTo sends the page row by row. A buffer for the whole page would hold the rows a second time.
func (p votesPage) writeTo(w http.ResponseWriter, t tableView) {
	setVotesHeader(w)
	buf := fmt.Appendf(nil, `{"version":%d,"total":%d,"scanned":%d,"next":`, t.Version(), t.Rows(), p.scanned)
	if p.next == nil {
		buf = append(buf, "null"...)
	} else {
		buf = appendJSONText(buf, t.placeText(*p.next))
	}
	buf = append(buf, `,"rows":[`...)
	for i, row := range p.rows {
		if i > 0 {
			buf = append(buf, ',')
		}
		buf = append(buf, '\n')
		buf = appendVote(buf, t, row)
		if _, err := w.Write(buf); err != nil {
			return
		}
		buf = buf[:0]
	}
	w.Write(append(buf, "\n]}\n"...))
}
