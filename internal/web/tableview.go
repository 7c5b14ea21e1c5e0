package web

import (
	"encoding/json"
	"net/http"

	"github.com/hashicorp/go-hclog"

	"capture/snapshot"
	"capture/snapshot/rowjson"
)

// tables provides requests with the table in the daemon's memory.
type tables struct {
	view                   func() *snapshot.View
	timeColumn, tagsColumn string
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
	roles, err := newColumnRoles(view.Shape(), t.timeColumn, t.tagsColumn)
	if err != nil {
		t.logFailure("table can't be served", err)
		writeError(w, http.StatusInternalServerError, "the table can't be served; see the error log")
		return tableView{}, false
	}
	return tableView{view, roles}, true
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

// appendVote appends {"key":…,"row":…} to dst. It copies the row's JSON unchanged, so each number keeps its digits.
func appendVote(dst []byte, shape *rowjson.Shape, row snapshot.Row) []byte {
	dst = append(dst, `{"key":`...)
	dst = appendKeyText(dst, shape, row.Key)
	dst = append(dst, `,"row":`...)
	dst = append(dst, row.Line...)
	return append(dst, '}')
}

func appendKeyText(dst []byte, shape *rowjson.Shape, key rowjson.Key) []byte {
	text, _ := json.Marshal(keyText(shape, key)) // never fails for a string
	return append(dst, text...)
}
