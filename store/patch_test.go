package store_test

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"capture/internal/race"
	"capture/snapshot"
	"capture/store"
	"capture/store/manifest"
)

// With these small limits, the files of the tests count as large. They have about twenty parts and many blocks, and hashing a
// file takes several steps.
const (
	testPatchFrom    = 64 << 10
	testBlockBytes   = 4 << 10
	testHashPerWrite = 100 << 10
)

func init() {
	children["patch"] = patchEndlessly
	store.SetPatchFrom(testPatchFrom)
	store.SetBlockBytes(testBlockBytes)
	store.SetHashPerWrite(testHashPerWrite)
}

// unpadded returns the file without the padding of its regions.
func unpadded(data []byte) []byte {
	lines := bytes.SplitAfter(data, []byte("\n"))
	for i, l := range lines {
		for _, end := range []string{"},\n", "}\n"} {
			if row, ok := bytes.CutSuffix(l, []byte(end)); ok {
				lines[i] = append(bytes.TrimRight(row, " "), end...)
				break
			}
		}
	}
	return bytes.Join(lines, nil)
}

// row returns a row whose text is the string fill, repeated n times.
func row(id, n int, fill string) []byte {
	return fmt.Appendf(nil, `{"vote_id":%d,"comment":"%s"}`, id, strings.Repeat(fill, n))
}

// randomWriter changes a table at random, in the ways in which applications change tables.
type randomWriter struct {
	r    *rand.Rand
	tab  *snapshot.Table
	rows int // key of the next row that is appended, divided by 2; odd keys are for rows that are inserted in between
}

func (d *randomWriter) put(id int) {
	d.tab.Put(key(id), row(id, 2000+d.r.IntN(6000), string(rune('a'+d.r.IntN(26)))))
}

func (d *randomWriter) some(n int, do func(id int)) {
	for range n {
		do(2 * d.r.IntN(d.rows))
	}
}

func (d *randomWriter) run(n int, do func(id int)) {
	from := d.r.IntN(d.rows)
	for id := from; id < min(from+n, d.rows); id++ {
		do(2 * id)
	}
}

func (d *randomWriter) remove(id int) { d.tab.Delete(key(id)) }

func (d *randomWriter) change() {
	switch d.r.IntN(12) {
	case 0, 1, 2, 3:
		for range 1 + d.r.IntN(20) {
			d.put(2 * d.rows)
			d.rows++
		}
	case 4, 5, 6:
		d.some(1+d.r.IntN(3), d.put)
	case 7:
		d.some(1+d.r.IntN(30), func(id int) { d.put(id + 1) })
	case 8:
		d.run(d.r.IntN(60), d.remove)
	case 9:
		d.some(1+d.r.IntN(10), d.remove)
	case 10:
		for id := 2 * d.rows; id > 2*(d.rows-d.r.IntN(20)) && id >= 0; id-- { // delete rows at the end
			d.remove(id)
		}
	case 11:
		d.run(d.r.IntN(60), d.put)
	}
}

// TestPatch changes a table at random, and compares each version of the file with the View and with its manifest.
func TestPatch(t *testing.T) {
	t.Parallel()
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	dir := t.TempDir()
	can := store.CanPatch(t, dir)
	path := filepath.Join(dir, "feedback.json")
	f := open(t, path)
	d := &randomWriter{r: rand.New(rand.NewPCG(seed, 1)), tab: votes(0, ""), rows: 1}
	for range 250 {
		d.put(2 * d.rows)
		d.rows++
	}
	patched, partial, completed, rounds := 0, 0, 0, 100
	if race.Enabled {
		rounds = 50
	}
	for round := range rounds {
		for range d.r.IntN(3) {
			d.change()
		}
		if round == rounds/2 {
			d.tab.Truncate()
			d.rows = 1
		}
		d.tab.Commit(snapshot.Position{LSN: 1})
		view := d.tab.View()
		reason := store.ReasonChange
		if d.r.IntN(8) == 0 {
			reason = store.ReasonForced
		}
		written := write(t, f, view, reason)
		m, err := manifest.Read(path)
		if err != nil {
			t.Fatal(err)
		}
		data := read(t, path)
		if err := fits(m, data); err != nil || m.Rows != view.Rows() {
			t.Fatalf("round %d: the manifest %+v is not that of %d bytes: %v", round, m, len(data), err)
		}
		if m.SHA256 == "" {
			partial++
		}
		for range d.r.IntN(12) {
			r, more, err := f.Idle(t.Context(), view)
			if err != nil || r.Warning != "" {
				t.Fatal(err, r.Warning)
			}
			if on, err := manifest.Read(path); err != nil || on.SHA256 != r.Manifest.SHA256 {
				t.Fatalf("round %d: Idle returns a manifest with %q, and on disk it has %q (%v)", round, r.Manifest.SHA256, on.SHA256, err)
			} else if err := fits(on, data); err != nil && on.SHA256 != m.SHA256 {
				t.Fatalf("round %d: the manifest after Idle: %v", round, err)
			}
			if m.SHA256 == "" && r.Manifest.SHA256 != "" {
				completed++
				m = r.Manifest
			}
			if !more {
				break
			}
		}
		checkPair(t, path)
		if !bytes.Equal(read(t, path), data) {
			t.Fatalf("round %d: Idle changed the file", round)
		}
		if got := unpadded(data); !bytes.Equal(got, content(t, view)) {
			t.Fatalf("round %d: the file is not the view", round)
		}
		if int64(len(data)) > view.Bytes()*5/4+testPatchFrom {
			t.Fatalf("round %d: %d bytes for rows of %d", round, len(data), view.Bytes())
		}
		if written.BytesWritten < int64(len(data))/2 {
			patched++
		}
	}
	if can && patched < rounds/4 {
		t.Errorf("%d of %d versions were patched", patched, rounds)
	}
	if can && (partial < rounds/8 || completed < rounds/16) {
		t.Errorf("%d of %d manifests were partial, %d completed", partial, rounds, completed)
	}
	t.Logf("%d of %d versions were patched, %d manifests were partial, %d completed", patched, rounds, partial, completed)
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	if names := leftovers(t, path); names != nil {
		t.Errorf("left over: %v", names)
	}
}

// TestRowGrows checks that a Write changes only a small part of the file if a row grows for the first time.
func TestRowGrows(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	can := store.CanPatch(t, dir)
	for _, ahead := range []bool{false, true} {
		f := open(t, filepath.Join(dir, fmt.Sprint(ahead), "feedback.json"))
		tab := copied(3000, strings.Repeat("x", 1000), func(parts []snapshot.Part) {
			if ahead {
				f.WriteAhead(t.Context(), parts)
			}
		})
		write(t, f, tab.View(), store.ReasonStart)
		for i, id := range []int{7, 99, 201} { // the first change makes the shadow file
			tab.Put(key(id), row(id, 1100, "y"))
			tab.Commit(snapshot.Position{LSN: 2})
			n := write(t, f, tab.View(), store.ReasonChange).BytesWritten
			if can && i > 0 && n > tab.View().Bytes()/10 {
				t.Errorf("a row that grew: %d bytes written of %d (written ahead: %v)", n, tab.View().Bytes(), ahead)
			}
		}
	}
}

// stamped is a table of about twenty parts. Each commit writes the commit's number into the first row, the last row and some
// rows in between. Therefore stampOf can detect a file that mixes two versions.
type stamped struct {
	tab *snapshot.Table
	n   int
}

const stampedRows = 200

func newStamped() *stamped {
	s := &stamped{tab: votes(0, "")}
	for i := range stampedRows {
		s.tab.Put(key(i), row(i, 6000, "x"))
	}
	s.next()
	return s
}

func (s *stamped) next() *snapshot.View {
	s.n++
	for _, i := range []int{0, 1, stampedRows / 3, stampedRows / 2, stampedRows - 1} {
		s.tab.Put(key(i), fmt.Appendf(nil, `{"vote_id":%d,"comment":"%010d %s"}`, i, s.n, strings.Repeat("y", 5000+s.n*37%1000)))
	}
	s.tab.Commit(snapshot.Position{LSN: 1})
	return s.tab.View()
}

// stampOf returns the number of the commit that the rows of a stamped file show. It returns an error if they show two commits.
func stampOf(data []byte) (string, error) {
	if !bytes.HasPrefix(data, []byte("[\n{")) || !bytes.HasSuffix(data, []byte("}\n]\n")) {
		return "", fmt.Errorf("%d bytes, not a whole file", len(data))
	}
	var stamp string
	for _, i := range []int{0, 1, stampedRows / 3, stampedRows / 2, stampedRows - 1} {
		_, rest, ok := bytes.Cut(data, fmt.Appendf(nil, `{"vote_id":%d,"comment":"`, i))
		if !ok || len(rest) < 10 {
			return "", fmt.Errorf("row %d is missing", i)
		}
		if this := string(rest[:10]); stamp == "" {
			stamp = this
		} else if this != stamp {
			return "", fmt.Errorf("one file shows commits %s and %s", stamp, this)
		}
	}
	if rows := bytes.Count(data, []byte("\n")); rows != stampedRows+2 {
		return "", fmt.Errorf("%d lines", rows)
	}
	return stamp, nil
}

// patchEndlessly writes versions of a stamped file as fast as it can.
func patchEndlessly(args []string) error {
	f, err := store.Open(args[0], owner)
	if err != nil {
		return err
	}
	s := newStamped()
	for i := 0; ; i++ {
		if _, err := f.Write(s.next(), store.ReasonChange); err != nil {
			return err
		}
		if i == 3 {
			fmt.Println("ready")
		}
	}
}

// TestPatchKill kills a writer that patches the file, again and again, while a fast and a slow reader check each version
// that they catch.
func TestPatchKill(t *testing.T) {
	if testing.Short() {
		t.Skip("kills 15 writers")
	}
	t.Parallel()
	path := filepath.Join(t.TempDir(), "feedback.json")
	first := open(t, path)
	write(t, first, newStamped().next(), store.ReasonStart)
	first.Close()
	killWriters(t, "patch", path, 15, func(data []byte) error {
		_, err := stampOf(data)
		return err
	}, 0, 50*time.Microsecond)
}

// TestShadowIsOpened opens the shadow file while it is patched. The kernel makes the opener wait, and sends SIGIO to the
// writer. The signal must not end the writer.
func TestShadowIsOpened(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	can := store.CanPatch(t, dir)
	path := filepath.Join(dir, "feedback.json")
	f := open(t, path)
	s := newStamped()
	stop := make(chan struct{})
	var others sync.WaitGroup
	others.Go(func() {
		for {
			select {
			case <-stop:
				return
			default:
			}
			if file, err := os.Open(path + ".tmp"); err == nil {
				file.Close()
			}
			time.Sleep(time.Millisecond) // if the shadow file were always open, it would never be patched
		}
	})
	patched := 0
	within(t, "some versions are patched", func() bool {
		n := write(t, f, s.next(), store.ReasonChange).BytesWritten
		checkPair(t, path)
		if _, err := stampOf(read(t, path)); err != nil {
			t.Fatal(err)
		}
		if n < 1<<19 {
			patched++
		}
		return patched >= 5 || !can && s.n > 20
	})
	close(stop)
	others.Wait()
}
