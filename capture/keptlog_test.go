package capture

import (
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/hashicorp/go-hclog"

	"capture/internal/pgserver"
)

// TestLogNamesKeptStates: when a state is kept, the log has the path that the state has at that moment, and the path that the
// compressed state will have.
func TestLogNamesKeptStates(t *testing.T) {
	t.Parallel()
	url := pgserver.Database(t)
	conn := connect(t, url)
	exec(t, conn, votes)
	exec(t, conn, "INSERT INTO votes (user_query) SELECT i FROM generate_series(1, 50) i")
	log := &keptLines{}
	cfg := config(t, url)
	cfg.Logger = hclog.New(&hclog.LoggerOptions{Output: log, JSONFormat: true})
	d := start(t, cfg)
	d.ready()
	d.stop()
	for _, step := range []struct{ message, change string }{
		{"the earlier run's state is kept", "INSERT INTO votes (user_query) VALUES ('one more')"},
		{"the table lost rows or values; the state before is kept", "UPDATE votes SET user_query = 'lost'"},
		{"the file was of another table, database or program; that state is kept", "ALTER TABLE votes RENAME TO old; CREATE TABLE votes (LIKE old INCLUDING ALL); INSERT INTO votes TABLE old"},
	} {
		exec(t, conn, step.change)
		d = startAt(t, cfg, d.path)
		d.ready()
		var line keptLine
		eventually(t, step.message, func() error {
			var ok bool
			if line, ok = log.find(step.message); !ok {
				return errors.New("the log does not have it")
			}
			return nil
		})
		if !line.existed {
			t.Errorf("%s: there was no %s", step.message, line.File)
		}
		if name := filepath.Base(line.Once); strings.HasPrefix(name, ".") || !strings.HasSuffix(name, ".json.gz") {
			t.Errorf("%s: the log names %s", step.message, line.Once)
		}
		eventually(t, "a state at "+line.Once, func() error {
			_, err := os.Stat(line.Once)
			return err
		})
		d.stop()
	}
}

// keptLine is a log line about a state that is kept.
type keptLine struct {
	Message string `json:"@message"`
	File    string
	Once    string `json:"file_once_compressed"`
	existed bool   // whether the file existed when the line was written
}

// keptLines receives log lines. It checks at once whether the files that the lines name exist.
type keptLines struct {
	mu    sync.Mutex
	lines []keptLine
}

func (k *keptLines) Write(b []byte) (int, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	var line keptLine
	if err := json.Unmarshal(b, &line); err == nil && line.Once != "" {
		_, err := os.Stat(line.File)
		line.existed = err == nil
		k.lines = append(k.lines, line)
	}
	return len(b), nil
}

func (k *keptLines) find(message string) (keptLine, bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	i := slices.IndexFunc(k.lines, func(l keptLine) bool { return l.Message == message })
	if i < 0 {
		return keptLine{}, false
	}
	return k.lines[i], true
}
