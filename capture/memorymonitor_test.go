package capture

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/hashicorp/go-hclog"

	"capture/snapshot"
	"capture/snapshot/rowjson"
)

// TestOldRowsInMemoryAreReported: while large transactions cannot move old rows to the spill file, a check in the status fails.
// The log gets one line when this begins and one line when it ends. Neither the log nor the check contains the text of a row.
func TestOldRowsInMemoryAreReported(t *testing.T) {
	t.Parallel()
	folder := filepath.Join(t.TempDir(), "missing") // this folder does not exist, so no file can be written into it
	tab := snapshot.NewTable()
	tab.SpillOldRows(folder, func(err error) { t.Error(err) })
	var log bytes.Buffer
	m := &memoryMonitor{table: tab, conditions: newConditions(), log: hclog.New(&hclog.LoggerOptions{Output: &log})}
	write := func(letter string) {
		t.Helper()
		tab.Load(&rowjson.Shape{}, snapshot.Origin{})
		for i := range 24 {
			tab.Put(fmt.Appendf(nil, "%02d", i), fmt.Appendf(nil, `{"id":%d,"text":"%s"}`, i, strings.Repeat(letter, 1<<20)))
		}
	}
	commit := func() {
		t.Helper()
		if err := tab.Commit(snapshot.Position{}); err != nil {
			t.Fatal(err)
		}
	}
	expect := func(when string, began, ended int, failing bool) {
		t.Helper()
		m.checkSpilling()
		m.checkSpilling() // must log nothing new
		if n := strings.Count(log.String(), "[WARN]  old rows of a large transaction stay in memory, cannot spill to disk: error=\"move old rows to a file in "+folder); n != began {
			t.Errorf("%s: %d warnings, want %d", when, n, began)
		}
		if n := strings.Count(log.String(), "[INFO]  old rows no longer stay in memory"); n != ended {
			t.Errorf("%s: %d ends, want %d", when, n, ended)
		}
		if n := strings.Count(log.String(), "\n"); n != began+ended {
			t.Errorf("%s: %d lines", when, n)
		}
		checks := conditionChecks(m.conditions.clone())
		if got := len(checks) == 1 && checks[0].Name == "memory" && !checks[0].OK; got != failing || !failing && len(checks) > 0 {
			t.Errorf("%s: checks %+v", when, checks)
		}
	}
	write("a")
	commit()
	expect("after the first copy", 0, 0, false)
	write("b")
	expect("during a large transaction", 1, 0, true)
	commit()
	expect("after it", 1, 0, true)
	write("c")
	expect("during another", 1, 0, true)
	tab.Rollback()
	expect("after a rollback", 1, 0, true)
	if err := os.Mkdir(folder, 0o700); err != nil {
		t.Fatal(err)
	}
	write("d")
	expect("once a file can be written", 1, 1, false)
	commit()
	if err := os.Remove(folder); err != nil {
		t.Fatal(err)
	}
	write("e")
	expect("without the folder again", 2, 1, true)
	if strings.Contains(log.String(), strings.Repeat("b", 10)) {
		t.Error("the log has the text of rows")
	}
}
