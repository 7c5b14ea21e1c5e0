package web

import (
	"cmp"
	"context"
	"io"
	"math"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/jackc/pgx/v5"
	"github.com/prometheus/client_golang/prometheus"

	"capture/capture"
	"capture/internal/postgres"
	"capture/store"
)

const createVotes = `CREATE TABLE votes (
	vote_id         serial PRIMARY KEY,
	user_query      text,
	bot_response    text,
	evaluation_json jsonb,
	feedback_tags   text[],
	comment         text,
	citations       jsonb,
	"timestamp"     timestamp DEFAULT CURRENT_TIMESTAMP
)`

// live is a complete capture that follows a real table: the daemon, the file and the server.
type live struct {
	t    *testing.T
	host string
	path string // path of feedback.json
	db   *pgx.Conn
	log  *lockedBuffer
}

// runLive creates a table in the database, and runs capture on it until the test ends.
func runLive(t *testing.T, database, create, table string, change func(*Config)) *live {
	t.Helper()
	l := &live{t: t, log: &lockedBuffer{}}
	var err error
	if l.db, err = pgx.Connect(t.Context(), database); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.db.Close(context.Background()) })
	l.exec("SET TimeZone = 'UTC'")
	l.exec(create)

	path := filepath.Join(t.TempDir(), "feedback.json")
	file, err := store.Open(path, store.Owner{PID: os.Getpid()})
	if err != nil {
		t.Fatal(err)
	}
	db, err := postgres.ParseConfig(database)
	if err != nil {
		t.Fatal(err)
	}
	logger := hclog.New(&hclog.LoggerOptions{Output: l.log, JSONFormat: true})
	reg := prometheus.NewRegistry()
	daemonConfig := capture.DefaultConfig()
	daemonConfig.Database, daemonConfig.Table, daemonConfig.FlushDelay = db, postgres.Name{Table: table}, 10*time.Millisecond
	daemonConfig.Version, daemonConfig.Logger, daemonConfig.Registry = "test", logger, reg
	d, err := capture.New(daemonConfig, file)
	if err != nil {
		t.Fatal(err)
	}
	cfg := Config{View: d.View, Status: d.Status, Flush: d.Snapshot, Path: path, Registry: reg, Logger: logger, Version: "test"}
	if change != nil {
		change(&cfg)
	}
	server, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l.host, l.path = listener.Addr().String(), path
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 2)
	go func() { ended <- d.Run(ctx) }()
	go func() { ended <- server.Run(ctx, listener) }()
	t.Cleanup(func() {
		cancel()
		for range 2 {
			if err := <-ended; err != nil {
				t.Errorf("stop: %v", err)
			}
		}
		file.Close()
		if t.Failed() {
			t.Logf("log:\n%s", l.log)
		}
	})
	return l
}

func (l *live) exec(sql string, args ...any) {
	l.t.Helper()
	if _, err := l.db.Exec(l.t.Context(), sql, args...); err != nil {
		l.t.Fatalf("%s: %v", sql, err)
	}
}

func (l *live) url() string { return "http://" + l.host + "/" }

// waitReady waits until feedback.json follows the table.
func (l *live) waitReady() {
	l.t.Helper()
	for deadline := time.Now().Add(patience); ; time.Sleep(10 * time.Millisecond) {
		resp, err := http.Get(l.url() + "readyz")
		if err != nil {
			l.t.Fatal(err)
		}
		resp.Body.Close()
		if resp.StatusCode == 200 {
			return
		}
		if time.Now().After(deadline) {
			l.t.Fatal("never ready")
		}
	}
}

const markdownAnswer = "To reset your password:\n\n1. Open **Settings → Security**.\n2. Choose *Reset password*.\n3. Follow the link in the e-mail; " +
	"it is valid for `30 minutes`.\n\n> Locked out entirely? Ask the service desk.\n\n```sh\nid reset --user me@example.org\n```\n\n" +
	"| Plan | Self-service |\n|---|---|\n| Free | yes |\n| Team | if the admin allows it |\n\nSee [the handbook](https://docs.example.org/password)."

// insertVotes inserts votes of the last ninety days, varied enough for a screenshot.
func (l *live) insertVotes(n int) {
	l.t.Helper()
	questions := []string{"How do I reset my password?", "What is the notice period for suppliers?", "Which form do I need for travel costs?",
		"Can I carry over holidays into next year?", "Where do I find the network plan of building C?", "Who approves purchases above 5,000 €?",
		"How long are backups kept?", "Is the canteen open on Fridays?", "What does error 0x80070005 mean?", "Summarize the new data protection policy"}
	answers := []string{markdownAnswer, "The notice period is **three months** to the end of a quarter, unless the contract says otherwise [1].",
		"Use form *R-17*. Attach the receipts, and hand it in within 30 days.", "Up to five days, until the end of March.",
		"Backups are kept for 35 days; monthly ones for two years."}
	good := []string{"Looks Good / Accurate & Clear"}
	tags := [][]string{good, good, good, good, good, good, {"Incorrect"},
		{"Incomplete"}, {"Citation missing", "Incomplete"}, {"Too long"}, {}}
	comments := []any{nil, nil, nil, "Exactly what I needed, thanks!", "The form has been R-18 since May.", "Half of the answer is about another product.",
		"Link leads nowhere."}
	r := rand.New(rand.NewPCG(1, 2))
	pick := func(n int) int { return r.IntN(n) }
	// Some days have more votes than others, and the newest vote has the current time.
	ages := make([]time.Duration, n)
	for i := range ages[1:] {
		week := 7 * 24 * time.Hour
		ages[i] = time.Duration(13*math.Pow(r.Float64(), 1.5))*week + time.Duration((r.Float64()+r.Float64())/2*float64(week))
		ages[i] = min(ages[i], 90*24*time.Hour)
	}
	slices.SortFunc(ages, func(a, b time.Duration) int { return cmp.Compare(b, a) })
	rows := make([][]any, n)
	for i, age := range ages {
		rows[i] = []any{questions[pick(len(questions))], answers[pick(len(answers))],
			map[string]any{"faithfulness": float64(pick(100)) / 100, "relevance": float64(pick(100)) / 100,
				"checks": []any{map[string]any{"name": "grounded", "passed": pick(5) > 0}, map[string]any{"name": "language", "passed": true}}},
			tags[pick(len(tags))], comments[pick(len(comments))],
			[]any{map[string]any{"title": "Employee handbook, chapter 4", "url": "https://docs.example.org/handbook#4", "page": 12},
				map[string]any{"title": "Service desk: passwords", "url": "https://desk.example.org/kb/17"}},
			time.Now().UTC().Add(-age).Truncate(time.Second)}
	}
	_, err := l.db.CopyFrom(l.t.Context(), pgx.Identifier{"votes"},
		[]string{"user_query", "bot_response", "evaluation_json", "feedback_tags", "comment", "citations", "timestamp"}, pgx.CopyFromRows(rows))
	if err != nil {
		l.t.Fatal(err)
	}
}

func getBody(t *testing.T, method, url string) (int, string) {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), method, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, string(body)
}
