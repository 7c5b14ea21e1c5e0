package web

import (
	"encoding/json"
	"net/http"

	"github.com/hashicorp/go-hclog"

	"capture/snapshot"
)

// tables provides requests with the table in the daemon's memory.
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
