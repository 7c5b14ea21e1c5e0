package web

import (
	"bytes"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"golang.org/x/sync/semaphore"

	"capture/snapshot"
	"capture/snapshot/rowjson"
)

// votesHandler serves votes from memory, as pages and one at a time.
type votesHandler struct {
	tables   *tables
	searches *semaphore.Weighted
}

func newVotesHandler(t *tables) *votesHandler {
	return &votesHandler{t, semaphore.NewWeighted(maxSearches)}
}

// serveList answers with a page of the votes that match the filter, newest key first.
func (h *votesHandler) serveList(w http.ResponseWriter, r *http.Request) {
	t, ok := h.tables.current(w)
	if !ok {
		return
	}
	var q pageQuery
	query, err := parseQuery(r)
	if err == nil {
		q, err = parsePageQuery(query, t.columnRoles)
	}
	if err != nil {
		writeError(w, http.StatusBadRequest, err.Error())
		return
	}
	if h.searches.Acquire(r.Context(), 1) != nil {
		return // the client has gone
	}
	p, err := readPage(t, q)
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
	var line []byte
	key, ok := t.parseKey(r.PathValue("key"))
	if ok {
		var err error
		if line, err = t.Get(key); err != nil {
			h.tables.writeReadError(w, err)
			return
		}
	}
	if line == nil {
		writeError(w, http.StatusNotFound, "the table has no row with this key; it may have been deleted")
		return
	}
	setVotesHeader(w)
	w.Write(append(appendVote(nil, t.shape, snapshot.Row{Key: key, Line: line}), '\n'))
}

func setVotesHeader(w http.ResponseWriter) {
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", noStore)
}

// pageQuery is a request for one page of votes.
type pageQuery struct {
	filter filter
	after  rowjson.Key // exclusive upper bound of the page's keys; nil begins with the newest vote
	limit  int
}

// parsePageQuery parses the parameters of a page. Its errors are meant for the client.
func parsePageQuery(query url.Values, c *columnRoles) (q pageQuery, err error) {
	if q.filter, err = parseFilter(query, c); err != nil {
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
		if q.after, ok = c.parseKey(text); !ok {
			return q, errors.New("after takes a key as this API prints it")
		}
	}
	return q, nil
}

// votesPage is the answer to a pageQuery.
type votesPage struct {
	rows    []snapshot.Row
	next    rowjson.Key // key after which the next page begins; nil at the end of the table
	scanned int         // number of rows examined
}

// readPage searches the rows below q.after until the page is full or searchTimeout has passed.
func readPage(t tableView, q pageQuery) (p votesPage, err error) {
	size := 0
	deadline := time.Now().Add(searchTimeout)
	for row, err := range t.Before(q.after) {
		if err != nil {
			return votesPage{}, err
		}
		isFull := len(p.rows) == q.limit || size > maxPageBytes
		if isFull || p.scanned%64 == 63 && time.Now().After(deadline) {
			return p, nil
		}
		p.scanned++
		p.next = row.Key
		if q.filter.matches(t.columnRoles, row.Line) {
			// The line is cloned, since it may be part of a whole page of rows that was read back from disk.
			p.rows = append(p.rows, snapshot.Row{Key: row.Key, Line: bytes.Clone(row.Line)})
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
		buf = appendKeyText(buf, t.shape, p.next)
	}
	buf = append(buf, `,"rows":[`...)
	for i, row := range p.rows {
		if i > 0 {
			buf = append(buf, ',')
		}
		buf = append(buf, '\n')
		buf = appendVote(buf, t.shape, row)
		if _, err := w.Write(buf); err != nil {
			return
		}
		buf = buf[:0]
	}
	w.Write(append(buf, "\n]}\n"...))
}
