package main

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"math/rand/v2"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"capture/capture"
	"capture/internal/faultproxy"
	"capture/internal/objectserver"
	"capture/internal/pgserver"
	"capture/snapshot/rowjson"
	"capture/store/manifest"
	"capture/store/remote"
)

// awaitCopy waits until the newest copy has the given number of rows, no copy is pending, and a copy has been read back.
func (d *daemon) awaitCopy(rows int) *capture.CopiesStatus {
	d.t.Helper()
	s := d.status(func(s capture.Status) bool {
		return s.Copies != nil && s.Copies.Rows == rows && s.Copies.Pending == nil && s.Copies.Proven != nil
	})
	return s.Copies
}

// TestRestoreOnAnotherMachine: after the loss of a machine, another machine restores the table from the URL of the copies
// into an empty database. Every restored row equals the lost one. Nothing that capture writes contains a secret.
func TestRestoreOnAnotherMachine(t *testing.T) {
	if testing.Short() {
		t.Skip("runs many commands")
	}
	t.Parallel()
	for _, kind := range objectserver.Kinds {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			b := objectserver.NewBucket(t, kind)
			env := objectserver.Environ(b.Env)
			url := votesDatabase(t, 1000)
			dir := t.TempDir()
			to := b.URL + "/app/votes"
			d := startIn(t, dir, append(env, "DATABASE_URL="+url, "CAPTURE_COPY_TO="+to), "run", "--listen=127.0.0.1:0", "--log-level=debug")
			d.awaitCopy(1000)
			metrics, _ := get(t, "http://"+d.address()+"/metrics")
			status := run(t, dir, nil, "status")
			// There can be two copies: on a slow machine, capture may read the table before it has a slot, and upload that state,
			// too.
			if !strings.Contains(status.stdout, "copies") || !regexp.MustCompile(`capture_remote_copies_total [12]\n`).Match(metrics) {
				t.Errorf("status says %s", status.stdout)
			}
			logs, err := os.ReadFile(filepath.Join(dir, "logs/usage/usage.log"))
			if err != nil {
				t.Fatal(err)
			}
			noSecrets(t, b, "the daemon", d.stderr.String()+string(metrics)+status.stdout+string(logs))
			d.signal(syscall.SIGKILL)
			<-d.done
			if err := os.RemoveAll(dir); err != nil {
				t.Fatal(err)
			}

			other, empty := t.TempDir(), pgserver.Database(t)
			env = append(env, "DATABASE_URL="+empty)
			restored := run(t, other, env, "restore", "--create", "--yes", to)
			if restored.code != exitDone || !strings.Contains(restored.stdout, "the file matches its manifest") {
				t.Fatalf("restore: %+v", restored)
			}
			if table(t, empty) != table(t, url) {
				t.Error("the restored rows differ")
			}
			verified := run(t, other, env, "verify", to)
			if verified.code != exitDone || !strings.Contains(verified.stdout, "the same in the file") {
				t.Errorf("verify: %+v", verified)
			}
			listed := run(t, other, append(env, "CAPTURE_COPY_TO="+to), "history", "--json")
			var h history
			if err := json.Unmarshal([]byte(listed.stdout), &h); err != nil || len(h.States) == 0 || len(h.States) > 2 || h.States[0].Rows != 1000 || h.States[0].SHA256 == "" {
				t.Fatalf("history: %+v", listed)
			}
			// The URL of a state selects this state.
			named := run(t, other, env, "verify", h.States[0].Where)
			if named.code != exitDone {
				t.Errorf("verify of a state: %+v", named)
			}
			dropped := run(t, other, env, "history", "--copy-to", to, "--drop", "all", "--yes")
			if gone := run(t, other, env, "restore", to); dropped.code != exitDone || gone.code != exitFailed || !strings.Contains(gone.stderr, "there are no copies") {
				t.Errorf("drop: %+v, then restore: %+v", dropped, gone)
			}
			for _, r := range []result{restored, verified, listed, named, dropped} {
				noSecrets(t, b, "a command", r.stdout+r.stderr)
			}
		})
	}
}

// noSecrets fails the test if a text contains one of the bucket's secrets.
func noSecrets(t *testing.T, b *objectserver.Bucket, what, text string) {
	t.Helper()
	for _, secret := range b.Secrets {
		if strings.Contains(text, secret) {
			t.Errorf("%s has shown a secret of %d bytes", what, len(secret))
		}
	}
}

// TestKilledWhileUploading: if capture is killed during an upload, the unfinished upload does not count as a state. The next
// run uploads the whole state.
func TestKilledWhileUploading(t *testing.T) {
	if testing.Short() {
		t.Skip("uploads large copies slowly")
	}
	t.Parallel()
	for _, kind := range objectserver.Kinds {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			b := objectserver.NewBucket(t, kind)
			p, err := faultproxy.New(b.Addr)
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(p.Close)
			url := votesDatabase(t, 100)
			// Each of the 100 votes has 96 kB of hashes as base64, which hardly compress. Together, the votes exceed one part
			// of an upload.
			sql(t, url, "UPDATE votes SET comment = (SELECT encode(string_agg(sha512((vote_id * 2000 + i)::text::bytea), ''), 'base64') FROM generate_series(1, 1500) i)")
			env := append(objectserver.Environ(b.Through(p.Addr())), "DATABASE_URL="+url, "CAPTURE_COPY_TO="+b.URL)
			startPlain := func() *daemon {
				t.Helper()
				cmd := prepare(context.Background(), t.TempDir(), env, "run", "--listen=127.0.0.1:0")
				cmd.Path = plain // this binary has no race detector, which would make compression ten times slower
				return startCommand(t, cmd)
			}
			p.Throttle(2<<20, 0) // the upload takes about five seconds
			d := startPlain()
			d.ready()
			eventually(t, "an upload in parts", func() bool { return p.Links() > 0 })
			time.Sleep(rand.N(5 * time.Second)) // the kill comes at a random moment of the upload; the test must pass whatever the moment
			d.signal(syscall.SIGKILL)
			<-d.done
			p.Throttle(0, 0)
			startPlain().awaitCopy(100)
			if got := runPlain(t, t.TempDir(), env, "verify", b.URL); got.code != exitDone {
				t.Errorf("verify: %+v", got)
			}
		})
	}
}

// TestRestoreBeforeLoss: if the newest copy was made after a loss of rows, restore prints a note with the time of the state
// before the loss. With this time, --at selects the state before the loss.
func TestRestoreBeforeLoss(t *testing.T) {
	if testing.Short() {
		t.Skip("waits for two intervals of writes")
	}
	t.Parallel()
	url := votesDatabase(t, 500)
	dir := t.TempDir()
	to := "file://" + filepath.Join(dir, "copies")
	if err := os.Mkdir(filepath.Join(dir, "copies"), 0o700); err != nil {
		t.Fatal(err)
	}
	d := startIn(t, dir, []string{"DATABASE_URL=" + url, "CAPTURE_COPY_TO=" + to}, "run", "--listen=127.0.0.1:0", "--flush-interval=2s")
	d.awaitCopy(500)
	before := table(t, url)
	time.Sleep(time.Second) // --at and the names of states have a resolution of one second
	sql(t, url, "DELETE FROM votes WHERE vote_id > 3")
	d.awaitCopy(3)
	d.signal(syscall.SIGTERM)
	d.wait(stopTimeout)

	empty := pgserver.Database(t)
	env := []string{"DATABASE_URL=" + empty}
	note := run(t, t.TempDir(), env, "restore", "--create", "--yes", "--dry-run", to)
	_, at, found := strings.Cut(note.stderr, "The state before it has 500 rows: --at ")
	if note.code != exitDone || !found {
		t.Fatalf("restore: %+v", note)
	}
	at, command, found := strings.Cut(at, ". To keep later rows, too, restore this state, and then run: capture ")
	restored := run(t, t.TempDir(), env, "restore", "--create", "--yes", to, "--at", at)
	if restored.code != exitDone || !found || table(t, empty) != before {
		t.Errorf("restore --at %s: %+v", at, restored)
	}
	sql(t, empty, "DELETE FROM votes WHERE vote_id > 3")
	if restored := run(t, t.TempDir(), env, strings.Fields(command)...); restored.code != exitDone || table(t, empty) != before {
		t.Errorf("capture %s: %+v", command, restored)
	}
	listed := runPlain(t, t.TempDir(), env, "history", "--copy-to", to)
	if listed.code != exitDone || !strings.Contains(listed.stdout, "bring the rows back: capture restore --on-conflict skip "+to+"/") ||
		!strings.Contains(listed.stdout, "capture history --ack --copy-to "+to) {
		t.Errorf("history: %+v", listed)
	}
	if got := runPlain(t, t.TempDir(), env, "history", "--copy-to", to, "--ack"); got.code != exitDone || !strings.Contains(got.stdout, "acknowledged") {
		t.Errorf("history --ack: %+v", got)
	}
	if got := runPlain(t, t.TempDir(), env, "verify", to); strings.Contains(got.stderr, "follows a loss") {
		t.Errorf("verify after --ack: %+v", got)
	}
}

// TestNewestCopyIsBeforeLoss: a machine can be lost after it has uploaded the state before a loss, but before it has
// uploaded a state without the lost rows. The newest copy then still contains the rows, so the command must print no note
// about this loss. It still prints a note about an earlier loss.
func TestNewestCopyIsBeforeLoss(t *testing.T) {
	t.Parallel()
	const cluster = "7400000000000000001"
	root := t.TempDir()
	folder := filepath.Join(root, cluster)
	to := "file://" + root
	const ordinary, beforeLoss = "feedback-20261123T160000Z-0000000000000100-1", "feedback-20261123T160000Z-0000000000000100-1-loss"
	copyState(t, folder, cluster)
	link := func(from, to string) {
		t.Helper()
		for _, suffix := range []string{".json.gz", ".manifest.json"} {
			if err := os.Link(filepath.Join(folder, from+suffix), filepath.Join(folder, to+suffix)); err != nil {
				t.Fatal(err)
			}
		}
	}
	noNote := func(what string) {
		t.Helper()
		if got := runPlain(t, t.TempDir(), nil, "verify", to); got.code != exitDone || strings.Contains(got.stderr, "follows a loss") || !strings.Contains(got.stderr, "reading the state of 2026-11-23 16:0") {
			t.Errorf("%s: %+v", what, got)
		}
	}
	link(ordinary, beforeLoss)
	noNote("an ordinary copy equals the state before the loss")
	link(ordinary, "feedback-20261123T160010Z-0000000000000110-1")
	noNote("a later copy equals the state before the loss")
	for _, stem := range []string{ordinary, "feedback-20261123T160010Z-0000000000000110-1"} {
		for _, suffix := range []string{".json.gz", ".manifest.json"} {
			if err := os.Remove(filepath.Join(folder, stem+suffix)); err != nil {
				t.Fatal(err)
			}
		}
	}
	noNote("the newest copy is the state before the loss")

	const earlier = "feedback-20261122T160000Z-0000000000000090-7-loss"
	content, err := os.ReadFile(filepath.Join(folder, beforeLoss+".manifest.json"))
	if err != nil {
		t.Fatal(err)
	}
	text := strings.NewReplacer(`"rows":1`, `"rows":7`, sha256Hex("[\n{\"vote_id\":1}\n]\n"), sha256Hex("seven rows")).Replace(string(content))
	for suffix, content := range map[string]string{".json.gz": "", ".manifest.json": text} {
		if err := os.WriteFile(filepath.Join(folder, earlier+suffix), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	got := runPlain(t, t.TempDir(), nil, "verify", to)
	if got.code != exitDone || strings.Count(got.stderr, "follows a loss") != 1 {
		t.Errorf("an earlier loss: %+v", got)
	}
	wantAll(t, got.stderr, "The state before it has 7 rows: --at 2026-11-22T16:00:00Z. ")
}

// TestCopyBeforeLossIsDamaged: restore refuses the state before a loss if the copy of this state is damaged. Commands must
// then not print a restore command or a value of --at for this state. They refer to the documentation instead.
func TestCopyBeforeLossIsDamaged(t *testing.T) {
	t.Parallel()
	dir, env := t.TempDir(), []string{"CAPTURE_COPY_TO=file://" + t.TempDir()}
	to := strings.TrimPrefix(env[0], "CAPTURE_COPY_TO=")
	l, err := remote.Open(to, remote.Environ)
	if err != nil {
		t.Fatal(err)
	}
	now := time.Now()
	upload := func(age time.Duration, lsn, data string, rows int, sum [sha256.Size]byte, kept *manifest.Kept) remote.State {
		t.Helper()
		m := manifest.Manifest{
			Format: 1, Table: manifest.TableName{Schema: "public", Name: "votes"}, Columns: []rowjson.Column{{Name: "id", TypeName: "integer"}}, Key: []string{"id"},
			LSN: lsn, SystemID: "7300000000000000001", Database: "app", Rows: rows, Bytes: int64(len(data)), SHA256: hex.EncodeToString(sum[:]), Kept: kept,
		}
		s, _, err := l.Folder(m.SystemID).Upload(t.Context(), remote.Source{Manifest: m, Time: now.Add(-age), Data: strings.NewReader(data)})
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	loss := &manifest.Loss{Found: now.Add(-time.Minute), RowsBefore: 1, RowsNotCompared: 1}
	before := upload(time.Hour, "0/100", "[\n{\"id\":2}\n]\n", 1, sha256.Sum256([]byte("[\n{\"id\":1}\n]\n")), &manifest.Kept{Loss: loss, Damaged: "a bit"})
	upload(time.Minute, "0/200", "[\n]\n", 0, sha256.Sum256([]byte("[\n]\n")), nil)

	hint := before.URL + ` is damaged, and capture restore refuses it; see "When it refuses" in docs/recovery.md`
	wantAll(t, runPlain(t, dir, env, "history").stdout, "bring the rows back: "+hint+"\n")
	got := runPlain(t, dir, nil, "verify", to)
	wantAll(t, got.stderr, "The state before it has 1 row: "+hint+"\n")
	if got.code != exitDone || strings.Contains(got.stderr, "--at") {
		t.Errorf("verify of the newest copy: %+v", got)
	}
	if got := runPlain(t, dir, nil, "verify", before.URL); got.code != exitFailed {
		t.Errorf("verify of the damaged copy: %+v", got)
	}
	manifestPath := strings.TrimSuffix(strings.TrimPrefix(before.URL, "file://"), ".json.gz") + ".manifest.json"
	if err := os.Truncate(manifestPath, 10); err != nil {
		t.Fatal(err)
	}
	wantAll(t, runPlain(t, dir, nil, "verify", to).stderr, "The state before it has 1 row: "+hint+"\n")
}

// TestSeveralClusters: if there are copies of several clusters, the command lists the clusters, and the user must name one
// of them or a time.
func TestSeveralClusters(t *testing.T) {
	t.Parallel()
	root := t.TempDir()
	for _, cluster := range []string{"7400000000000000001", "7400000000000000002"} {
		copyState(t, filepath.Join(root, cluster), cluster)
	}
	to := "file://" + root
	got := runPlain(t, t.TempDir(), nil, "verify", to)
	if got.code != exitUsage || !strings.Contains(got.stderr, to+"/7400000000000000001: 1 copy") || !strings.Contains(got.stderr, to+"/7400000000000000002: 1 copy") {
		t.Errorf("verify: %+v", got)
	}
	if got := runPlain(t, t.TempDir(), nil, "verify", to+"/7400000000000000002"); got.code != exitDone {
		t.Errorf("verify of one: %+v", got)
	}
	if got := runPlain(t, t.TempDir(), nil, "verify", to, "--at", "2026-11-26"); got.code != exitDone {
		t.Errorf("verify --at: %+v", got)
	}
	if got := runPlain(t, t.TempDir(), nil, "verify", to+"/1/feedback-20261126T120000Z-0000000000000001-1.json.gz", "--at", "2026-11-26"); got.code != exitUsage {
		t.Errorf("verify with the URL of a state and --at: %+v", got)
	}
	if got := runPlain(t, t.TempDir(), nil, "verify", to, "--at", "2020-01-01"); got.code != exitFailed || !strings.Contains(got.stderr, "the oldest is from") {
		t.Errorf("verify --at, too old: %+v", got)
	}
}

// TestCopyWithoutTemporaryFolder checks that a command that cannot download a copy names the variable TMPDIR in its error.
func TestCopyWithoutTemporaryFolder(t *testing.T) {
	t.Parallel()
	root := t.TempDir()
	copyState(t, filepath.Join(root, "7400000000000000001"), "7400000000000000001")
	missing := filepath.Join(root, "missing")
	got := runPlain(t, t.TempDir(), []string{"TMPDIR=" + missing}, "verify", "file://"+root)
	if got.code != exitFailed || !strings.Contains(got.stderr, "set TMPDIR to a folder") || !strings.Contains(got.stderr, "it is "+missing+" now") {
		t.Errorf("%+v", got)
	}
}

// TestHistoryOfSeveralClusters: the list of the copies of two clusters begins with the newest copy of both.
func TestHistoryOfSeveralClusters(t *testing.T) {
	t.Parallel()
	root := t.TempDir()
	for hour, cluster := range map[string]string{"15": "7400000000000000001", "16": "7400000000000000002", "17": "7400000000000000001"} {
		dir := filepath.Join(root, cluster)
		copyState(t, dir, cluster)
		for _, ext := range []string{".json.gz", ".manifest.json"} {
			name := "feedback-20261123T160000Z-0000000000000100-1" + ext
			if err := os.Rename(filepath.Join(dir, name), filepath.Join(dir, strings.Replace(name, "T16", "T"+hour, 1))); err != nil {
				t.Fatal(err)
			}
		}
	}
	got := runPlain(t, t.TempDir(), nil, "history", "--copy-to", "file://"+root).stdout
	last := 0
	for _, hour := range []string{"17", "16", "15"} {
		at := strings.Index(got, "feedback-20261123T"+hour)
		if at < last {
			t.Errorf("the copy of %s:00 is missing, or not in order:\n%s", hour, got)
		}
		last = at
	}
}

// copyState puts a state with one row into a folder, with the names and contents that capture would give it.
func copyState(t *testing.T, dir, cluster string) {
	t.Helper()
	if err := os.MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	const stem = "feedback-20261123T160000Z-0000000000000100-1"
	data := gzipped(t, "[\n{\"vote_id\":1}\n]\n")
	manifest := `{"format":1,"table":{"schema":"public","name":"votes"},"columns":[{"name":"vote_id","type":"integer"}],"key":["vote_id"],"rows":1,"bytes":18,
		"sha256":"` + sha256Hex("[\n{\"vote_id\":1}\n]\n") + `","system_id":"` + cluster + `","reason":"change","written_by":"capture test","written_at":"2026-11-23T16:00:00.000000Z"}`
	for name, content := range map[string]string{stem + ".json.gz": data, stem + ".manifest.json": manifest} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

func TestBadCopyTo(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		env, args []string
		want      string
	}{
		{nil, []string{"--copy-to", "gs://bucket/x"}, `--copy-to: "gs://bucket/x" is none of these; it accepts azblob://CONTAINER/PREFIX`},
		{[]string{"CAPTURE_COPY_TO=s3://B"}, nil, `CAPTURE_COPY_TO (--copy-to): "s3://B" does not name a bucket`},
		{nil, []string{"--copy-to", "azblob://container/x"}, "AZURE_STORAGE_CONNECTION_STRING"},
		{nil, []string{"--copy-to", "azblob://container/x?sv=2024&sig=topsecret1"}, "(hidden)"},
		{nil, []string{"--copy-to", "s3://key:topsecret1@bucket"}, "(hidden)"},
	} {
		got := runPlain(t, t.TempDir(), append(c.env, "DATABASE_URL=postgres://localhost/none"), append([]string{"run"}, c.args...)...)
		if got.code != exitUsage || !strings.Contains(got.stderr, c.want) || strings.Contains(got.stderr, "topsecret1") {
			t.Errorf("%v %v: %+v", c.env, c.args, got)
		}
	}
	for _, command := range []string{"verify", "restore"} {
		for _, url := range []string{
			"https://user:topsecret1@host/x", "https://account.blob.core.windows.net/container/x?sig=topsecret1", "S3://key:topsecret1@bucket",
			"azblob://container/feedback-20261126T120000Z-0000000000000100-5.json.gz?sig=topsecret1",
		} {
			got := runPlain(t, t.TempDir(), []string{"DATABASE_URL=postgres://localhost/none"}, command, url)
			if got.code != exitUsage || !strings.Contains(got.stderr, "azblob://CONTAINER/PREFIX") || strings.Contains(got.stderr, "topsecret1") {
				t.Errorf("%s %s: %+v", command, url, got)
			}
		}
	}
}
