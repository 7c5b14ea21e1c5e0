package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"capture/capture"
	"capture/internal/pgserver"
	"capture/internal/postgres"
)

func TestSetupAndTeardown(t *testing.T) {
	t.Parallel()
	for source, object := range map[string]string{"logical": "PUBLICATION", "notify": "TRIGGER"} {
		t.Run(source, func(t *testing.T) {
			t.Parallel()
			url := votesDatabase(t, 3)
			role := "capture_" + source
			env := []string{"DATABASE_URL=" + url, "CAPTURE_SOURCE=" + source}
			dir := t.TempDir()
			must := func(args ...string) string {
				t.Helper()
				got := run(t, dir, env, args...)
				if got.code != exitDone {
					t.Fatalf("capture %s: %+v", strings.Join(args, " "), got)
				}
				return got.stdout
			}
			printed := must("setup", "--role="+role, "--print")
			if !strings.Contains(printed, "CREATE "+object) || !strings.Contains(printed, "CREATE ROLE "+`"`+role) {
				t.Errorf("it prints:\n%s", printed)
			}
			if again := must("setup", "--role="+role, "--print"); again != printed {
				t.Errorf("after --print it prints something else:\n%s", again)
			}
			if done := must("setup", "--role="+role); done != printed {
				t.Errorf("it ran\n%s, but had printed\n%s", done, printed)
			}
			if again := must("setup", "--role="+role); again != "-- nothing to do\n" {
				t.Errorf("the second time it ran:\n%s", again)
			}
			if source == "logical" { // checks that capture can follow the table as this role
				d := start(t, strings.Replace(url, "postgres@", role+"@", 1), "--source="+source)
				d.status(func(s capture.Status) bool { return s.Ready && s.Source == source })
				wantEqual(t, d.path, url)
				d.signal(syscall.SIGTERM)
				d.wait(stopTimeout)
			}

			if gone := must("teardown", "--role="+role); !strings.Contains(gone, "DROP "+object) || !strings.Contains(gone, "DROP ROLE") {
				t.Errorf("teardown ran:\n%s", gone)
			}
			if again := must("teardown", "--role="+role); again != "-- nothing to do\n" {
				t.Errorf("the second teardown ran:\n%s", again)
			}
		})
	}
	t.Run("refused", func(t *testing.T) {
		t.Parallel()
		env := []string{"DATABASE_URL=" + votesDatabase(t, 0)}
		if got := run(t, t.TempDir(), env, "setup", "--source=poll"); got.code != exitUsage || !strings.Contains(got.stderr, "--source") {
			t.Errorf("poll: %+v", got)
		}
		if got := run(t, t.TempDir(), env, "setup", "--table=missing"); got.code != exitFailed || !strings.Contains(got.stderr, "missing") {
			t.Errorf("no table: %+v", got)
		}
	})
}

// TestFailedSetupTalksOfNoRole checks the messages of setup and teardown if the user may not create or drop roles: the error
// says who can run the command, and there is no advice about the role.
func TestFailedSetupTalksOfNoRole(t *testing.T) {
	t.Parallel()
	url := votesDatabase(t, 0)
	const role = "capture_test_creates_none"
	sql(t, url, "DROP ROLE IF EXISTS "+role+"; CREATE ROLE "+role+" LOGIN; ALTER TABLE votes OWNER TO "+role)
	defer sql(t, url, "DROP OWNED BY "+role+"; DROP ROLE "+role)
	env := []string{"DATABASE_URL=" + strings.Replace(url, "postgres@", role+"@", 1)}
	got := run(t, t.TempDir(), env, "setup", "--role=capture_test_uncreated")
	if got.code != exitFailed || got.stdout != "" || !strings.Contains(got.stderr, "CREATE ROLE") || !strings.Contains(got.stderr, "run the command as a superuser") || !strings.Contains(got.stderr, "prints with --print") || strings.Contains(got.stderr, "password") || strings.Contains(got.stderr, "pg_hba.conf") {
		t.Errorf("%+v", got)
	}
	if got = run(t, t.TempDir(), env, "setup", "--role=capture_test_uncreated", "--print"); got.code != exitDone || !strings.Contains(got.stderr, "password") || !strings.Contains(got.stderr, "\nhost \"") {
		t.Errorf("printed: %+v", got) // the advice must contain a host line: the server has no TLS, so a hostssl line would admit nobody
	}

	admin := []string{"DATABASE_URL=" + url}
	if got = run(t, t.TempDir(), admin, "setup", "--role=capture_test_uncreated"); got.code != exitDone {
		t.Fatalf("as a superuser: %+v", got)
	}
	if got = run(t, t.TempDir(), env, "setup", "--role=capture_test_uncreated"); got.code != exitDone || got.stdout != "-- nothing to do\n" || got.stderr != "" {
		t.Errorf("as the owner, after a complete setup: %+v", got)
	}
	sql(t, url, "ALTER ROLE capture_test_uncreated NOREPLICATION")
	if got = run(t, t.TempDir(), env, "setup", "--role=capture_test_uncreated"); got.code != exitDone || got.stdout != "" ||
		!strings.Contains(got.stderr, "you may not run the statements that are still missing") || !strings.HasSuffix(got.stderr, "\nALTER ROLE \"capture_test_uncreated\" REPLICATION;\n") {
		t.Errorf("as the owner, while the role may not replicate: %+v", got)
	}
	sql(t, url, "ALTER ROLE capture_test_uncreated REPLICATION") // otherwise teardown leaves the publication alone
	if got = run(t, t.TempDir(), env, "teardown", "--role=capture_test_uncreated"); got.code != exitFailed || !strings.Contains(got.stderr, "run the command as a superuser") {
		t.Errorf("teardown: %+v", got)
	}
	if got = run(t, t.TempDir(), admin, "teardown", "--role=capture_test_uncreated"); got.code != exitDone {
		t.Errorf("teardown as a superuser: %+v", got)
	}
}

func TestDoctor(t *testing.T) {
	t.Parallel()
	url := votesDatabase(t, 3)
	dir := t.TempDir()
	got := run(t, dir, []string{"DATABASE_URL=" + url}, "doctor")
	if got.code != exitDone || got.stderr != "" || !strings.Contains(got.stdout, "✓ connection") || !strings.Contains(got.stdout, "auto uses: logical\n") {
		t.Errorf("%+v", got)
	}
	if entries, err := os.ReadDir(dir); err != nil || len(entries) != 0 {
		t.Errorf("it left %v behind (%v)", entries, err)
	}

	got = run(t, dir, []string{"DATABASE_URL=" + url}, "doctor", "--json")
	var d postgres.Diagnosis
	if err := json.Unmarshal([]byte(got.stdout), &d); err != nil || got.code != exitDone || d.Source != "logical" || len(d.Findings) < 8 {
		t.Errorf("%+v: %v", got, err)
	}

	got = run(t, dir, []string{"DATABASE_URL=" + url, "CAPTURE_TABLE=missing"}, "doctor")
	if got.code != exitFailed || !strings.Contains(got.stdout, "✗") || !strings.Contains(got.stdout, "missing") || strings.Contains(got.stdout, "auto uses") {
		t.Errorf("without the table: %+v", got)
	}
	got = run(t, dir, []string{"DATABASE_URL=postgres://nobody@127.0.0.1:1/none"}, "doctor")
	if got.code != exitFailed || !strings.Contains(got.stdout, "✗ connection") {
		t.Errorf("without a server: %+v", got)
	}

	minimal := pgserver.ForTest(t, pgserver.Options{Settings: map[string]string{"wal_level": "minimal", "max_wal_senders": "0"}})
	sql(t, minimal.URL("postgres"), pgserver.VotesTable)
	env := []string{"DATABASE_URL=" + minimal.URL("postgres")}
	got = run(t, dir, env, "doctor")
	if got.code != exitDone || !strings.Contains(got.stdout, "wal_level") || !strings.Contains(got.stdout, "→") || strings.Contains(got.stdout, "uses: logical") {
		t.Errorf("with wal_level=minimal: %+v", got)
	}
	if !strings.Contains(got.stdout, "uses: poll\n") || !strings.Contains(got.stdout, "one of two is enough: logical replication") {
		t.Errorf("the last line of doctor without logical and triggers: %+v", got)
	}
	// Triggers slow the application's commits down, so setup does not create them unless --source notify is given.
	for _, args := range [][]string{{"setup"}, {"setup", "--role=capture_unasked"}} {
		got = run(t, dir, env, args...)
		if got.code != exitFailed || got.stdout != "" || !strings.Contains(got.stderr, "wal_level is minimal") || !strings.Contains(got.stderr, "--source notify") {
			t.Errorf("%v: %+v", args, got)
		}
	}
	// --print prints the SQL for logical replication although wal_level is minimal: the administrator who runs this SQL can
	// also set wal_level.
	got = run(t, dir, env, "setup", "--print", "--role=capture_unasked")
	if got.code != exitDone || !strings.HasPrefix(got.stdout, "-- wal_level is minimal") || !strings.Contains(got.stdout, "\nCREATE ROLE") || !strings.Contains(got.stdout, "\nCREATE PUBLICATION") {
		t.Errorf("printed at wal_level=minimal: %+v", got)
	}
	for _, line := range strings.Split(strings.TrimSpace(got.stdout), "\n") {
		if !strings.HasPrefix(line, "-- ") && !strings.HasSuffix(line, ";") {
			t.Errorf("psql would not take this line: %s", line)
		}
	}
	if got = run(t, dir, env, "setup", "--source=notify"); got.code != exitDone || !strings.Contains(got.stdout, "CREATE TRIGGER") {
		t.Errorf("asked for triggers: %+v", got)
	}
	if got = run(t, dir, env, "doctor"); !strings.Contains(got.stdout, "uses: notify\n") || strings.Contains(got.stdout, "one of two") {
		t.Errorf("with triggers: %+v", got)
	}
}

func TestExistingFolder(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	if got := existingFolder(filepath.Join(dir, "not", "yet", "feedback.json")); got != dir {
		t.Errorf("%s, want %s", got, dir)
	}
	if freeSpace(filepath.Join(dir, "not", "yet", "feedback.json")) <= 0 || availableMemory() <= 0 {
		t.Error("free space or memory is unknown")
	}
}
