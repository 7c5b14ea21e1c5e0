package store_test

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"capture/internal/busy"
	"capture/internal/filetest"
	"capture/internal/race"
	"capture/snapshot"
	"capture/snapshot/rowjson"
	"capture/store"
	"capture/store/manifest"
)

// children are functions for child processes. A test starts childProgram, which runs one of the functions. A test can kill
// the child, or give it another user, other mounts or other limits. Each function prints "ready" or an answer.
var children = map[string]func(args []string) error{
	"hold":  holdLock,
	"write": writeEndlessly,
	"crash": crashBetweenRenames,
	"lines": writeLinesEndlessly,
}

// childDir is a folder for the program without the race detector.
var childDir string

// childProgram returns the path of a program that has the tests and the children's functions, but not the race detector. Tests
// start children hundreds of times, often under strace, and the race detector takes half of a child's processor time. The
// children's code also runs in the test process itself, with the race detector. With -short, or if the test program itself has
// no race detector, childProgram returns the path of the test program.
var childProgram = sync.OnceValues(func() (string, error) {
	if testing.Short() || !race.Enabled {
		return os.Executable()
	}
	path := filepath.Join(childDir, "store.test")
	out, err := exec.Command("go", "test", "-c", "-vet=off", "-trimpath", "-ldflags=-s -w", "-o", path, ".").CombinedOutput()
	if err != nil {
		err = fmt.Errorf("build the program without the race detector: %w\n%s", err, out)
	}
	return path, err
})

// withoutRaceDetector runs the test t in a program without the race detector, and reports whether it did so. It is for a test
// with much work in one goroutine, in which the race detector finds nothing but takes most of the time.
func withoutRaceDetector(t *testing.T) bool {
	t.Helper()
	if testing.Short() || !race.Enabled {
		return false
	}
	program, err := childProgram()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), program, "-test.run=^"+t.Name()+"$", "-test.v", "-test.parallel="+flag.Lookup("test.parallel").Value.String())
	if out, err := cmd.CombinedOutput(); err != nil || !bytes.Contains(out, []byte("--- PASS: "+t.Name()+" ")) {
		t.Fatalf("%s: %v\n%s", cmd, err, out)
	}
	return true
}

func TestMain(m *testing.M) {
	if name := os.Getenv("STORE_TEST_CHILD"); name != "" {
		if err := children[name](os.Args[1:]); err != nil {
			fmt.Println("error:", err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	// With the race detector, garbage collection is slow. Less frequent collections save a tenth of the time of these tests.
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(400)
	}
	os.Exit(func() int {
		var err error
		if childDir, err = os.MkdirTemp("", "store-test-"); err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		defer os.RemoveAll(childDir)
		return m.Run()
	}())
}

func child(name string, args ...string) *exec.Cmd {
	program, err := childProgram()
	if err != nil {
		panic(err)
	}
	cmd := exec.Command(program, args...)
	cmd.Env = append(os.Environ(), "STORE_TEST_CHILD="+name)
	cmd.Stderr = os.Stderr
	return cmd
}

// started starts cmd, waits until it has printed a line, and returns this line.
func started(t *testing.T, cmd *exec.Cmd) string {
	t.Helper()
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { cmd.Process.Kill(); cmd.Wait() })
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		t.Fatalf("%s: %v", cmd, err)
	}
	go io.Copy(io.Discard, out)
	return strings.TrimSpace(line)
}

func key(id int) rowjson.Key { return binary.BigEndian.AppendUint64(nil, uint64(id)^1<<63) }

// votes returns a table of n rows that all have the given text.
func votes(n int, fill string) *snapshot.Table { return copied(n, fill, nil) }

// copied returns the same table as votes. If ahead is not nil, copied calls it after each hundred rows with the Parts so
// far, as a source does during a copy.
func copied(n int, fill string, ahead func([]snapshot.Part)) *snapshot.Table {
	t := snapshot.NewTable()
	t.Load(&rowjson.Shape{
		Schema: "public", Table: "votes", Key: []int{0},
		Columns: []rowjson.Column{
			{Name: "vote_id", TypeName: "integer", Type: rowjson.Type{Kind: rowjson.Number, OID: 23}, NotNull: true, Default: "nextval('votes_vote_id_seq'::regclass)"},
			{Name: "comment", TypeName: "text", Default: "'<none>'"},
		},
	}, snapshot.Origin{Source: "logical", Database: "app", SystemID: "7300000000000000001", ServerVersion: "15.1"})
	quoted := strconv.Quote(fill)
	for i := range n {
		putQuoted(t, i, quoted)
		if ahead != nil && i%100 == 99 {
			ahead(t.Partial())
		}
	}
	t.Commit(snapshot.Position{LSN: 0x16B3748, CommitTime: time.Date(2026, 11, 23, 16, 0, 0, 500_000_000, time.UTC)})
	return t
}

func put(t *snapshot.Table, id int, fill string) {
	putQuoted(t, id, strconv.Quote(fill))
}

func putQuoted(t *snapshot.Table, id int, quoted string) {
	t.Put(key(id), fmt.Appendf(nil, `{"vote_id":%d,"comment":%s}`, id, quoted))
}

func content(t testing.TB, v *snapshot.View) []byte {
	t.Helper()
	var b bytes.Buffer
	if _, err := v.WriteTo(&b); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

var owner = store.Owner{PID: os.Getpid(), Host: "here", Version: "1.2.3", Started: time.Date(2026, 11, 23, 8, 0, 0, 0, time.UTC)}

func open(t *testing.T, path string) *store.File {
	t.Helper()
	f, err := store.Open(path, owner)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return f
}

func write(t *testing.T, f *store.File, v *snapshot.View, reason manifest.Reason) store.Result {
	t.Helper()
	r, err := f.Write(v, reason)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func read(t *testing.T, path string) []byte {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

func digest(data []byte) string {
	sum := sha256.Sum256(data)
	return hex.EncodeToString(sum[:])
}

// fits returns an error unless m is the manifest of a file whose content is data.
func fits(m manifest.Manifest, data []byte) error {
	var sums []byte
	for block := range slices.Chunk(data, testBlockBytes) {
		sum := sha256.Sum256(block)
		sums = append(sums, sum[:]...)
	}
	switch {
	case m.Bytes != int64(len(data)):
		return fmt.Errorf("the manifest says %d bytes; the file has %d", m.Bytes, len(data))
	case m.SHA256 == "" && (m.Blocks == nil || m.Reason != store.ReasonChange):
		return fmt.Errorf("the manifest of a file of %d bytes, written for %s, has no SHA-256", m.Bytes, m.Reason)
	case m.SHA256 != "" && (m.SHA256 != digest(data) || m.Blocks != nil):
		return fmt.Errorf("the manifest says %s; the file is %s", m.SHA256, digest(data))
	case m.Blocks != nil && (m.Blocks.Bytes != testBlockBytes || m.Blocks.SHA256 != digest(sums)):
		return fmt.Errorf("the manifest says %+v of the blocks; they are %s", *m.Blocks, digest(sums))
	}
	return nil
}

// checkPair checks that the file at path and its manifest are complete and match. It returns the manifest.
func checkPair(t *testing.T, path string) manifest.Manifest {
	t.Helper()
	m, err := manifest.Read(path)
	if err != nil {
		t.Fatal(err)
	}
	data := read(t, path)
	if err := fits(m, data); err != nil {
		t.Fatal(err)
	}
	if rows := rowsOf(t, data); rows != m.Rows {
		t.Fatalf("the manifest says %d rows; the file has %d", m.Rows, rows)
	}
	return m
}

func rowsOf(t *testing.T, data []byte) int {
	t.Helper()
	lines, err := filetest.Lines(data)
	if err != nil {
		t.Fatal(err)
	}
	return len(lines)
}

// keptFile matches the names of kept states' files, but not of temporary files.
var keptFile = regexp.MustCompile(`^\.?feedback-\d{8}T\d{6}Z(-loss)?\.(json|json\.gz|manifest\.json)$`)

// leftovers returns the names in the folder of path, except those of the file, its manifest, its lock file and its kept
// states.
func leftovers(t *testing.T, path string) []string {
	t.Helper()
	entries, err := os.ReadDir(filepath.Dir(path))
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, e := range entries {
		switch e.Name() {
		case "feedback.json", "feedback.manifest.json", "feedback.json.lock":
		default:
			// While a reader has a file open, FUSE does not remove the file, but renames it to .fuse_hidden….
			if !keptFile.MatchString(e.Name()) && !strings.HasPrefix(e.Name(), ".fuse_hidden") {
				names = append(names, e.Name())
			}
		}
	}
	return names
}

// within waits until ok returns true. The test fails if this takes too long.
func within(t *testing.T, what string, ok func() bool) {
	t.Helper()
	deadline := time.Now().Add(busy.Limit(20 * time.Second))
	for !ok() {
		if time.Now().After(deadline) {
			t.Fatalf("never happened: %s", what)
		}
		time.Sleep(5 * time.Millisecond)
	}
}

// names returns the names in a folder, in order.
func names(t *testing.T, dir string) []string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var list []string
	for _, e := range entries {
		list = append(list, e.Name())
	}
	return list
}

// commit calls change, which changes the table, and commits the changes.
func commit(t *testing.T, tab *snapshot.Table, change func()) *snapshot.View {
	t.Helper()
	change()
	if err := tab.Commit(snapshot.Position{LSN: 1}); err != nil {
		t.Fatal(err)
	}
	return tab.View()
}
