package web

import (
	"encoding/json"
	"net/http"

	"github.com/hashicorp/go-hclog"

	"capture/snapshot"
	"capture/snapshot/rowjson"
)

// tables gives the handlers of requests access to the table in the daemon's memory.
type tables struct {
	view                   func() *snapshot.View
	timeColumn, tagsColumn string
	order                  timeOrder
	log                    hclog.Logger
	failures               logLimiter
}

// tableView is the committed state that one request reads, with the roles of its columns.
type tableView struct {
	*snapshot.View
	*columnRoles
}

// current returns the last committed state. If there is none, current answers the request with the reason and returns false.
func (t *tables) current(w http.ResponseWriter) (tableView, bool) {
	view := t.view()
	if view == nil {
		writeUnavailable(w, 1, "the table has not been copied yet; see /readyz for the reason")
		return tableView{}, false
	}
	found, err := t.withRoles(view)
	if err != nil {
		t.logFailure("table can't be served", err)
		writeError(w, http.StatusInternalServerError, "the table can't be served; see the error log")
		return tableView{}, false
	}
	return found, true
}

// withRoles adds the roles of the columns to a state.
func (t *tables) withRoles(view *snapshot.View) (tableView, error) {
	roles, err := newColumnRoles(view.Shape(), t.timeColumn, t.tagsColumn)
	return tableView{view, roles}, err
}

// find returns the row whose key is in the path of the request. If there is none, find answers the request and returns false.
func (t *tables) find(w http.ResponseWriter, r *http.Request, view tableView) (key rowjson.Key, line []byte, ok bool) {
	if key, ok = view.parseKey(r.PathValue("key")); ok {
		var err error
		if line, err = view.Get(key); err != nil {
			t.writeReadError(w, err)
			return nil, nil, false
		}
	}
	if line == nil {
		writeError(w, http.StatusNotFound, "the table has no row with this key; it may have been deleted")
		return nil, nil, false
	}
	return key, line, true
}

// writeReadError answers that rows could not be read back from the spill file.
func (t *tables) writeReadError(w http.ResponseWriter, err error) {
	t.logFailure("rows can't be read back", err)
	writeUnavailable(w, 10, "rows that are not in memory could not be read back; the table is being copied again, see /readyz")
}

func (t *tables) logFailure(message string, err error) {
	if skipped, ok := t.failures.allow(); ok {
		t.log.Error(message, "error", err, "more_left_out", skipped)
	}
}

// appendVote appends {"key":…,"next":…,"row":…} to dst. It copies the row's JSON unchanged, so each number keeps its digits.
func appendVote(dst []byte, t tableView, row placedRow) []byte {
	dst = append(dst, `{"key":`...)
	dst = appendJSONText(dst, keyText(t.shape, row.Key))
	if t.isOrderedByTime() {
		dst = append(dst, `,"next":`...)
		dst = appendJSONText(dst, t.placeText(row.place))
	}
	dst = append(dst, `,"row":`...)
	dst = append(dst, row.Line...)
	return append(dst, '}')
}

func appendJSONText(dst []byte, text string) []byte {
	quoted, _ := json.Marshal(text) // never fails for a string
	return append(dst, quoted...)
}
