package web

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"time"

	"capture/snapshot"
	"capture/snapshot/rowjson"
)

const (
	defaultLimit = 50
	maxLimit     = 500
	scanTime     = 250 * time.Millisecond // what one request may spend looking for rows
	pageBytes    = 8 << 20                // of rows in one answer; a single larger row still comes
	maxScans     = 4                      // at a time
)

// table is the state that one request reads.
type table struct {
	*snapshot.View
	*layout
}

// table takes the last committed state, or answers why there is none.
func (s *Server) table(w http.ResponseWriter) (table, bool) {
	view := s.view()
	if view == nil {
		w.Header().Set("Retry-After", "1")
		fail(w, http.StatusServiceUnavailable, "the table has not been copied yet; see /readyz for what it waits for")
		return table{}, false
	}
	l, err := layoutOf(view.Shape(), s.timeColumn, s.tagsColumn)
	if err != nil {
		s.log.Error("the table can't be shown", "error", err)
		fail(w, http.StatusInternalServerError, "the table can't be shown; the error log says why")
		return table{}, false
	}
	return table{view, l}, true
}

// found is one row for the API.
type found snapshot.Row

// unreadable answers that rows which are not in memory could not be read back.
func (s *Server) unreadable(w http.ResponseWriter, err error) {
	s.log.Error("rows can't be shown", "error", err)
	w.Header().Set("Retry-After", "10")
	fail(w, http.StatusServiceUnavailable, "rows that are not in memory could not be read back; the table is copied anew, see /readyz")
}

// appendTo appends {"key":…,"row":…}. The row's own text is taken over as it is, digit by digit.
func (f found) appendTo(dst []byte, shape *rowjson.Shape) []byte {
	key, _ := json.Marshal(keyText(shape, f.Key)) // a string can always be written
	dst = append(dst, `{"key":`...)
	dst = append(dst, key...)
	dst = append(dst, `,"row":`...)
	dst = append(dst, f.Line...)
	return append(dst, '}')
}

// votes answers with a page of rows, newest key first.
func (s *Server) votes(w http.ResponseWriter, r *http.Request) {
	t, ok := s.table(w)
	if !ok {
		return
	}
	query := r.URL.Query()
	f, err := parseFilter(query, t.layout)
	limit := defaultLimit
	if text := query.Get("limit"); err == nil && text != "" {
		if limit, err = strconv.Atoi(text); err != nil || limit < 1 || limit > maxLimit {
			err = fmt.Errorf("limit takes a number from 1 to %d", maxLimit)
		}
	}
	var after rowjson.Key
	if text := query.Get("after"); err == nil && text != "" {
		if after, ok = t.keyOf(text); !ok {
			err = errors.New("after takes a key as this API gives it")
		}
	}
	if err != nil {
		fail(w, http.StatusBadRequest, err.Error())
		return
	}
	select {
	case s.scans <- struct{}{}:
	case <-r.Context().Done():
		return
	}
	p, err := t.scan(&f, after, limit)
	<-s.scans
	if err != nil {
		s.unreadable(w, err)
		return
	}
	p.write(w, t)
}

// page is the outcome of one scan.
type page struct {
	rows    []found
	next    rowjson.Key // where to go on, nil at the end
	scanned int
}

// scan looks for rows below after, until it has enough of them, or time is up.
func (t table) scan(f *filter, after rowjson.Key, limit int) (p page, err error) {
	size := 0
	until := time.Now().Add(scanTime)
	for row, err := range t.Before(after) {
		if err != nil {
			return page{}, err
		}
		if p.scanned%64 == 63 && time.Now().After(until) || len(p.rows) == limit || size > pageBytes {
			return p, nil
		}
		p.scanned++
		p.next = row.Key
		if f.match(t.layout, row.Line) {
			p.rows = append(p.rows, found{row.Key, bytes.Clone(row.Line)}) // alone: it may lie in much that was read back
			size += len(row.Line)
		}
	}
	p.next = nil
	return p, nil
}

// write sends the page row by row: a row may be large, and is in memory once already.
func (p page) write(w http.ResponseWriter, t table) {
	h := w.Header()
	h.Set("Content-Type", "application/json")
	h.Set("Cache-Control", "no-store")
	buf := fmt.Appendf(nil, `{"version":%d,"total":%d,"scanned":%d,"next":`, t.Version(), t.Rows(), p.scanned)
	if p.next == nil {
		buf = append(buf, "null"...)
	} else {
		next, _ := json.Marshal(keyText(t.shape, p.next))
		buf = append(buf, next...)
	}
	buf = append(buf, `,"rows":[`...)
	for i, row := range p.rows {
		if i > 0 {
			buf = append(buf, ',')
		}
		buf = append(buf, '\n')
		buf = row.appendTo(buf, t.shape)
		if _, err := w.Write(buf); err != nil {
			return
		}
		buf = buf[:0]
	}
	w.Write(append(buf, "\n]}\n"...))
}

// vote answers with one row.
func (s *Server) vote(w http.ResponseWriter, r *http.Request) {
	t, ok := s.table(w)
	if !ok {
		return
	}
	key, ok := t.keyOf(r.PathValue("key"))
	var line []byte
	if ok {
		var err error
		if line, err = t.Get(key); err != nil {
			s.unreadable(w, err)
			return
		}
	}
	if line == nil {
		fail(w, http.StatusNotFound, "the table has no row with this key; it may have been deleted")
		return
	}
	h := w.Header()
	h.Set("Content-Type", "application/json")
	h.Set("Cache-Control", "no-store")
	w.Write(append(found{bytes.Clone(key), line}.appendTo(nil, t.shape), '\n'))
}
