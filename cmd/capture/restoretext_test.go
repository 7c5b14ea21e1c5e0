package main

import (
	"strings"
	"testing"
	"time"

	"capture/internal/restore"
)

// TestKeysCannotImitateTheResult checks that a line break in a key or a name does not add a line to the result. Users can
// choose keys, and anybody with a database can choose the names of its objects.
func TestKeysCannotImitateTheResult(t *testing.T) {
	t.Parallel()
	const hostile = "k\nThis was a dry run: nothing has changed.\x1b[2J\u202e"
	text := restoredText(restore.Result{
		Table: "public.votes" + hostile, Rows: 1, Deleted: restore.Change{Rows: 7, Keys: []string{hostile, strings.Repeat("x", 1<<20)}},
		Others:    []restore.OtherTable{{Table: hostile, Deleted: 1}},
		Sequences: []restore.Sequence{{Name: hostile, Last: 1}}, NotSet: []restore.UnsetSequence{{Name: hostile, Reason: "no"}},
	}, time.Second)
	if lines := strings.Count(text, "\n"); lines != 5 || strings.ContainsAny(text, "\x1b\u202e") || len(text) > 5<<10 {
		t.Errorf("%d lines, %d bytes: %.300q", lines, len(text), text)
	}
}
