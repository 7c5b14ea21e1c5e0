package main

import (
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/jackc/pgx/v5/pgproto3"
	"golang.org/x/sys/unix"

	"capture/capture"
	"capture/internal/foreign"
)

// hostileName has characters that a terminal interprets, that change the direction of writing, or that nobody sees.
const hostileName = "\u202e\u009b31m\u200d\u2066\u061c\ufeff\U000e0041"

// hostileServer starts a server that answers every connection with an error message of 24 kB. The message contains invalid
// UTF-8 and escape sequences that clear a terminal. hostileServer returns the URL of a database on this server.
func hostileServer(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	text := "\x1b[2J\x1b]0;owned\a\xff\xfe" + hostileName + strings.Repeat("x\r\n\x1b[31m", 3000)
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer conn.Close()
				server := pgproto3.NewBackend(conn, conn)
				if _, err := server.ReceiveStartupMessage(); err != nil {
					return
				}
				server.Send(&pgproto3.ErrorResponse{Severity: "FATAL", SeverityUnlocalized: "FATAL", Code: "57P03", Message: text, Detail: text, Hint: text, Where: text})
				_ = server.Flush()
			}()
		}
	}()
	return fmt.Sprintf("postgres://u@%s/app?sslmode=disable", l.Addr())
}

// wantHarmless fails the test if a text is not UTF-8, contains a character that a terminal would interpret, or has more
// than maxBytes bytes.
func wantHarmless(t *testing.T, what, text string, maxBytes int) {
	t.Helper()
	if len(text) > maxBytes {
		t.Errorf("%s: %d bytes: %.300q", what, len(text), text)
	}
	if !utf8.ValidString(text) {
		t.Errorf("%s is not UTF-8: %.300q", what, text)
	}
	for _, r := range text {
		if r < ' ' && r != '\n' && r != '\t' || r == 0x7f || r >= 0x80 && strings.ContainsRune(hostileName, r) {
			t.Errorf("%s has the character %U: %.300q", what, r, text)
			return
		}
	}
}

func TestErrorsOfHostileServerAreHarmless(t *testing.T) {
	t.Parallel()
	url, dir := hostileServer(t), t.TempDir()
	path := filepath.Join(dir, "feedback.json")
	if err := os.WriteFile(path, []byte("[{\"vote_id\":1}]\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, args := range [][]string{{"restore", path}, {"verify", path}, {"doctor"}, {"doctor", "--json"}, {"snapshot"}, {"setup"}, {"setup", "--print"}, {"teardown", "--print"}} {
		got := run(t, dir, []string{"DATABASE_URL=" + url}, args...)
		if got.code == exitDone {
			t.Errorf("%v: %+v", args, got)
		}
		wantHarmless(t, args[0]+"'s stderr", got.stderr, 2500)
		wantHarmless(t, args[0]+"'s stdout", got.stdout, 5000)
	}
	d := start(t, url)
	d.status(func(s capture.Status) bool { return s.Error != "" })
	body, _ := get(t, "http://"+d.address()+"/readyz")
	wantHarmless(t, "/readyz", string(body), 6000)
	got := run(t, d.dir, nil, "status")
	wantHarmless(t, "status", got.stdout+got.stderr, 6000)
	for _, line := range strings.Split(d.stderr.String(), "\n") {
		wantHarmless(t, "a line of the log", line, 3000)
	}
}

// plantLock puts a lock file beside the file at path, and locks it. host and listen are the values that an attacker
// would write into the lock file.
func plantLock(t *testing.T, path, host, listen string) *os.File {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	lock, err := os.OpenFile(path+".lock", os.O_RDWR|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { lock.Close() })
	if _, err := fmt.Fprintf(lock, `{"pid":7,"host":"%s","listen":"%s"}`, host, listen); err != nil {
		t.Fatal(err)
	}
	if err := unix.Flock(int(lock.Fd()), unix.LOCK_EX); err != nil {
		t.Fatal(err)
	}
	return lock
}

// TestAnswersOfHostilePeerAreHarmless checks that the commands print harmless text if another program listens at the
// daemon's address and sends hostile answers.
func TestAnswersOfHostilePeerAreHarmless(t *testing.T) {
	t.Parallel()
	evil := `\u001b[2J` + hostileName + strings.Repeat("x", 200_000)
	peer := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.WriteHeader(http.StatusServiceUnavailable)
		fmt.Fprintf(w, `{"error":"%s","state":"%[1]s","version":"%[1]s","host":"%[1]s","table":"%[1]s","source":"%[1]s","checks":[{"name":"%[1]s","detail":"\u001b[2J"}]}`, evil[:len(evil)-190_000])
	}))
	defer peer.Close()
	dir := t.TempDir()
	plantLock(t, filepath.Join(dir, "data/fallback/feedback.json"), hostname(), peer.Listener.Addr().String())
	for _, command := range []string{"status", "snapshot", "status --json", "snapshot --json"} {
		got := run(t, dir, nil, strings.Fields(command)...)
		if got.code != exitFailed {
			t.Errorf("%s: %+v", command, got)
		}
		wantHarmless(t, command, got.stdout+got.stderr, 100_000)
	}
}

// TestHostileNamesAreHarmless checks what the commands print if the names of the table and of the file's folder are hostile. The
// JSON must still contain the hostile name, either unchanged or in the escaped form of messages.
func TestHostileNamesAreHarmless(t *testing.T) {
	t.Parallel()
	url, dir := votesDatabase(t, 3), filepath.Join(t.TempDir(), "a"+hostileName)
	path := filepath.Join(dir, "feedback.json")
	sql(t, url, `ALTER TABLE votes RENAME TO "`+hostileName+`"`)
	env := []string{"DATABASE_URL=" + url, `CAPTURE_TABLE="` + hostileName + `"`, "CAPTURE_OUTPUT=" + path}
	for _, command := range []string{"snapshot", "doctor", "verify", "history", "restore --dry-run --on-conflict=skip"} {
		for _, flag := range []string{"", " --json"} {
			got := runPlain(t, filepath.Dir(dir), env, strings.Fields(command+flag)...)
			if got.code != exitDone {
				t.Errorf("%s%s: %+v", command, flag, got)
			}
			wantHarmless(t, command+flag, got.stdout+got.stderr, 10_000)
			var v any
			if err := json.Unmarshal([]byte(got.stdout), &v); flag != "" && (err != nil || !strings.Contains(fmt.Sprint(v), hostileName) && !strings.Contains(fmt.Sprint(v), foreign.Text(hostileName))) {
				t.Errorf("%s%s prints %s: %v", command, flag, got.stdout, err)
			}
		}
		if command == "snapshot" {
			keepState(t, dir, "20261123T160000Z", nil)
		}
	}
}

// TestMessagesOfTriggersAreNotShown checks what capture shows if a trigger refuses a row: the SQLSTATE and the line in the
// trigger's function, but not the trigger's message. The message may contain the text of a row.
func TestMessagesOfTriggersAreNotShown(t *testing.T) {
	if testing.Short() {
		t.Skip("runs many restores")
	}
	t.Parallel()
	url, dir := exported(t, 3)
	sql(t, url, "TRUNCATE votes", `CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
		RAISE EXCEPTION 'SECRET %', E'\x1b[2J' || NEW.user_query USING ERRCODE = TG_ARGV[0], DETAIL = 'SECRET', HINT = 'SECRET', COLUMN = 'SECRET ' || NEW.user_query,
			CONSTRAINT = 'SECRET', DATATYPE = 'SECRET', TABLE = 'SECRET'; END $$`)
	ways := []string{"", "--dry-run", "--on-conflict=skip --dry-run"}
	// For the first four SQLSTATEs, capture has its own messages, which contain fields of the server's error. So the test
	// restores in all ways with each of these SQLSTATEs. capture treats all other SQLSTATEs alike, so the test restores in only
	// one way with each of them.
	for i, state := range []string{"23505", "42501", "23502", "23514", "P0001", "22023", "57014", "28000", "XX000"} {
		sql(t, url, "DROP TRIGGER IF EXISTS refuse ON votes", "CREATE TRIGGER refuse BEFORE INSERT ON votes FOR EACH ROW EXECUTE FUNCTION refuse('"+state+"')")
		tried := ways
		if i >= 4 {
			tried = ways[i%len(ways):][:1]
		}
		for _, args := range tried {
			got := runPlain(t, dir, []string{"DATABASE_URL=" + url}, append([]string{"restore"}, strings.Fields(args)...)...)
			if got.code != exitFailed || strings.Contains(got.stderr, "SECRET") || strings.Contains(got.stderr, "Question") || !strings.Contains(got.stderr, "refuse() line") || !strings.Contains(got.stderr, state) {
				t.Errorf("SQLSTATE %s, %s: %+v", state, args, got)
			}
			wantHarmless(t, "restore", got.stderr, 1500)
		}
	}
}
