package main

import (
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"capture/internal/verify"
)

func TestVerifyCommand(t *testing.T) {
	t.Parallel()
	url, dir := exported(t, 20)
	path := filepath.Join(dir, "data/fallback/feedback.json")
	env := []string{"DATABASE_URL=" + url}
	got := run(t, dir, nil, "verify")
	if got.code != exitDone || got.stderr != "" || !strings.Contains(got.stdout, "20 rows") || strings.Contains(got.stdout, "public.votes") {
		t.Errorf("the file alone: %+v", got)
	}
	got = run(t, dir, nil, "verify", "--table=archive.votes")
	if got.code != exitDone || !strings.Contains(got.stdout, "no database is given, so it was not compared with table archive.votes") {
		t.Errorf("a table and no database: %+v", got)
	}
	got = run(t, dir, env, "verify")
	if got.code != exitDone || got.stderr != "" || !strings.Contains(got.stdout, "public.votes: 20 rows, the same in the file") {
		t.Errorf("with the database: %+v", got)
	}
	sql(t, url, "DELETE FROM votes WHERE vote_id = 4", "UPDATE votes SET comment = 'changed' WHERE vote_id = 5", "INSERT INTO votes (comment) VALUES ('new')")
	got = run(t, dir, env, "verify", path)
	for _, want := range []string{"missing in the file  21", "extra in the file    4", "different            5 in comment"} {
		if !strings.Contains(got.stdout, want) {
			t.Errorf("stdout lacks %q: %+v", want, got)
		}
	}
	if got.code != exitFailed || got.stderr != "" {
		t.Errorf("with differences: %+v", got)
	}
	got = run(t, dir, env, "verify", "--json")
	var report verify.Report
	if err := json.Unmarshal([]byte(got.stdout), &report); err != nil || got.code != exitFailed || report.OK || report.Difference.Missing.Rows != 1 {
		t.Errorf("as JSON: %+v, %v", got, err)
	}
	if err := os.Truncate(path, 100); err != nil {
		t.Fatal(err)
	}
	if got := run(t, dir, nil, "verify"); got.code != exitFailed || !strings.Contains(got.stdout, "manifest") {
		t.Errorf("cut short: %+v", got)
	}
	if got := run(t, dir, []string{"PGHOST=127.0.0.1", "PGPORT=1"}, "verify"); got.code != exitFailed || !strings.Contains(got.stderr, "127.0.0.1:1") {
		t.Errorf("with a database that is away: %+v", got)
	}
}

// TestVerifyBesideDaemon checks that verify finds no difference between a healthy table and its file, even while a daemon
// runs and other sessions write.
func TestVerifyBesideDaemon(t *testing.T) {
	if testing.Short() {
		t.Skip("verifies beside a writer for seconds")
	}
	t.Parallel()
	url := votesDatabase(t, 500)
	d := start(t, url, "--flush-delay=1s")
	d.ready()
	ctx, stop := context.WithCancel(t.Context())
	var writer sync.WaitGroup
	writer.Go(func() {
		conn, err := pgx.Connect(ctx, url)
		if err != nil {
			t.Error(err)
			return
		}
		defer conn.Close(context.WithoutCancel(ctx))
		for ctx.Err() == nil {
			_, _ = conn.Exec(ctx, "UPDATE votes SET comment = clock_timestamp()::text WHERE vote_id = 7")
			_, _ = conn.Exec(ctx, "INSERT INTO votes (comment) VALUES ('more')")
			time.Sleep(time.Millisecond) // leaves processor time to the daemon and to verify; a verification still sees a hundred changes
		}
	})
	for range 5 {
		if got := run(t, d.dir, []string{"DATABASE_URL=" + url}, "verify"); got.code != exitDone {
			t.Errorf("%+v", got)
		}
	}
	stop()
	writer.Wait()
}
