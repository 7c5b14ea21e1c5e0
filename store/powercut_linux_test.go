package store_test

import (
	"bytes"
	"compress/gzip"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"capture/snapshot"
	"capture/store"
	"capture/store/manifest"
)

// A transcript is what the child has printed so far.
type transcript struct {
	begun     []string // SHA-256 of each version that the child began to write
	done      int      // number of versions for which Write has returned; the last of these versions must not be lost
	manifests []string // SHA-256 of each manifest that was durable, oldest first
	kept      []string // paths of compressed kept states, which must not be lost
	plain     []string // paths of uncompressed states before a loss, which must not be lost; capture may have compressed them since
	lossy     int      // number of the version that loses rows, counted from 1; 0 if no version has lost rows yet
	failed    string   // text of the last error; "" once a Write has succeeded
	foreign   []byte   // content of the file that existed before the child began; nil if there was no file

	seen *seen
}

// seen caches what the checks have found out about file contents, by the hash of the content.
type seen struct {
	sums     map[uint64]string // SHA-256s of contents without their padding
	complete map[uint64]bool   // contents that are complete compressed states
	valid    map[uint64]bool   // contents that are valid JSON
}

func newSeen() *seen {
	return &seen{sums: map[uint64]string{}, complete: map[uint64]bool{}, valid: map[uint64]bool{}}
}

// sum returns the SHA-256 of a version without padding. The child prints the SHA-256 of the View, which has no padding.
func (s *seen) sum(c *leftFile) string {
	if s.sums[c.hash] == "" {
		s.sums[c.hash] = digest(unpadded(bytes.Clone(c.data)))
	}
	return s.sums[c.hash]
}

// isValid reports whether the content is valid JSON.
func (s *seen) isValid(c *leftFile) bool {
	if !s.valid[c.hash] {
		s.valid[c.hash] = json.Valid(c.data)
	}
	return s.valid[c.hash]
}

// readLine adds a line to the transcript and returns its first word, if c is the call that printed this line. For any other
// call it returns "".
func (s *transcript) readLine(c *call) (word string) {
	if c.name != "write" || c.arg(0) != 1 {
		return ""
	}
	word, rest, _ := strings.Cut(strings.TrimSpace(string(c.text(1))), " ")
	switch word {
	case "begin":
		s.begun = append(s.begun, rest)
	case "done":
		sum, _, _ := strings.Cut(rest, " ")
		s.done, s.manifests, s.failed = len(s.begun), append(s.manifests, sum), ""
	case "kept":
		s.kept = append(s.kept, rest)
	case "loses":
		s.lossy = len(s.begun)
	case "plain":
		s.plain = append(s.plain, rest)
	case "failed":
		s.failed = rest
	}
	return word
}

// checkContent returns an error unless a power cut at this moment may leave the file with this content. The content is
// nil if there is no file.
func (s *transcript) checkContent(content *leftFile) error {
	if s.done == 0 {
		if content == nil && s.foreign == nil || s.foreign != nil && content.hasContent(s.foreign) {
			return nil
		}
	}
	if content == nil {
		return errors.New("there is no feedback.json")
	}
	sum := s.seen.sum(content)
	switch i := slices.Index(s.begun, sum); {
	case i < 0:
		return fmt.Errorf("feedback.json is none of the versions written: %d bytes, valid JSON: %v", len(content.data), json.Valid(content.data))
	case !slices.Contains(s.begun[max(s.done-1, 0):], sum):
		return fmt.Errorf("feedback.json is version %d, after version %d was durable", i+1, s.done)
	}
	return nil
}

// check returns an error if a reader of the files can see harm from the power cut. namesInOrder reports whether the changes
// of names survived in order, as with a journal: the first changes survived, and no later ones.
func (s *transcript) check(left diskState, path string, namesInOrder bool) error {
	content := left[path]
	if err := s.checkContent(content); err != nil {
		return err
	}
	manifest := left[manifest.Path(path)]
	if manifest != nil && !s.seen.isValid(manifest) {
		return fmt.Errorf("the manifest is not complete: %q", manifest.data)
	}
	if last := len(s.manifests) - 1; last >= 0 && (manifest == nil || slices.Contains(s.manifests[:last], digest(manifest.data))) {
		return errors.New("the manifest is gone, or older than the last durable one")
	}
	if namesInOrder && s.foreign != nil && !content.hasContent(s.foreign) &&
		!slices.ContainsFunc(slices.Collect(maps.Keys(left)), func(name string) bool {
			return strings.HasPrefix(name, path+".damaged-") && left[name].hasContent(s.foreign)
		}) {
		return errors.New("the damaged file is not kept")
	}
	for _, name := range s.kept {
		if left[name] == nil || left[strings.TrimSuffix(name, ".json.gz")+".manifest.json"] == nil {
			return fmt.Errorf("%s or its manifest is lost", filepath.Base(name))
		}
	}
	if s.lossy > 0 && slices.Index(s.begun, s.seen.sum(content)) >= s.lossy-1 && !s.hasLoss(left) {
		return errors.New("the rows are gone, and the state before is not kept")
	}
	for _, name := range s.plain {
		if left[name] == nil && left[name+".gz"] == nil || left[strings.TrimSuffix(name, ".json")+".manifest.json"] == nil {
			return fmt.Errorf("%s or its manifest is lost", filepath.Base(name))
		}
		if data := left[name]; data != nil && !slices.Contains(s.begun, s.seen.sum(data)) {
			return fmt.Errorf("%s is none of the versions written: %d bytes", filepath.Base(name), len(data.data))
		}
	}
	for name, data := range left {
		if err := s.seen.checkKept(name, data); err != nil {
			return fmt.Errorf("%s is not complete: %w", filepath.Base(name), err)
		}
	}
	return nil
}

// hasLoss reports whether the version before the loss is kept, with its manifest.
func (s *transcript) hasLoss(left diskState) bool {
	for name, data := range left {
		stem, ok := strings.CutSuffix(strings.TrimSuffix(name, ".gz"), "-loss.json")
		if !ok || left[stem+"-loss.manifest.json"] == nil {
			continue
		}
		if strings.HasSuffix(name, ".gz") {
			return true // checkKept checks the content of a compressed state
		}
		if s.seen.sum(data) == s.begun[s.lossy-2] {
			return true
		}
	}
	return false
}

// checkKept checks a file if its name is that of a manifest or a compressed kept state.
func (s *seen) checkKept(name string, c *leftFile) error {
	if strings.HasSuffix(name, ".manifest.json") && !s.isValid(c) {
		return errors.New("it is not JSON")
	}
	if !strings.HasSuffix(name, ".json.gz") || s.complete[c.hash] {
		return nil
	}
	r, err := gzip.NewReader(bytes.NewReader(c.data))
	if err == nil {
		_, err = io.Copy(io.Discard, r)
	}
	s.complete[c.hash] = err == nil
	return err
}

// checkByOpening puts the files that a power cut left into a folder and opens them, as a new process does. A complete file
// must count as intact, and the next Write must work.
func (s *transcript) checkByOpening(t *testing.T, left diskState, root, path string, namesInOrder bool) error {
	dir := memoryDir(t)
	defer os.RemoveAll(dir)
	for _, name := range slices.Sorted(maps.Keys(left)) {
		to := dir + strings.TrimPrefix(name, root)
		var err error
		if left[name] == nil {
			err = os.MkdirAll(to, 0o755)
		} else {
			err = os.WriteFile(to, left[name].data, 0o644)
		}
		if err != nil {
			return err
		}
	}
	content := left[path]
	path = dir + strings.TrimPrefix(path, root)
	f, err := store.Open(path, owner)
	if err != nil {
		return fmt.Errorf("can't be opened: %w", err)
	}
	defer f.Close()
	if m, ok := f.Existing(); namesInOrder && content != nil && slices.Contains(s.begun, s.seen.sum(content)) && (!ok || fits(m, content.data) != nil) {
		return fmt.Errorf("after the power cut the file is taken for damaged: %s", store.Warning(f))
	}
	next := votes(3, "next").View()
	if _, err := f.Write(next, store.ReasonStart); err != nil {
		return fmt.Errorf("can't be written: %w", err)
	}
	checkPair(t, path)
	if !bytes.Equal(read(t, path), contentOf(next)) {
		return errors.New("the next version is not what was written")
	}
	for _, name := range leftovers(t, path) {
		if strings.HasSuffix(name, ".tmp") {
			return fmt.Errorf("left over: %s", name)
		}
	}
	return nil
}

func contentOf(v *snapshot.View) []byte {
	var b bytes.Buffer
	v.WriteTo(&b)
	return b.Bytes()
}

// A replay holds the system calls of one traced child, and determines which power cuts are tried after these calls.
type replay struct {
	calls      []*call
	root       string
	path       string
	foreign    []byte // content of the file that was at path before the child began; nil if there was no file
	ignoreSync func(c *call, folder bool) bool
	random     int // number of random power cuts after each call
	open       bool
	from       *call // if not nil, run cuts no power before this call, because another replay covers the earlier calls
	r          *rand.Rand
	seen       *seen
}

// run cuts the power after each call. For each number k, it lets only the first k changes of names survive, and tries each
// pageLeft for all pages: the old content, the new content or zeros. It also tries some random outcomes. It returns the
// number of different cuts, and an error for the first cut that does harm.
func (p *replay) run(t *testing.T) (cuts int, err error) {
	d, s := newDevice(p.root), &transcript{foreign: p.foreign, seen: p.seen}
	d.ignoreSync = p.ignoreSync
	if p.foreign != nil {
		folder := d.inode()
		folder.folder = filepath.Dir(p.path)
		d.names[folder.folder], d.durable[folder.folder] = folder, folder
		d.addFile(p.path, slices.Clone(p.foreign))
	}
	type found struct {
		hash        uint64
		begun, done int // numbers of Writes
		ordered     bool
	}
	checked, opened := map[found]bool{}, map[found]bool{}
	look := func(after *call, l outcome, ordered bool) error {
		left, hash := d.cutPower(l)
		this := found{hash, len(s.begun), s.done, ordered}
		if checked[this] {
			return nil
		}
		checked[this] = true
		cuts++
		err := s.check(left, p.path, ordered)
		if this := (found{hash: hash, ordered: ordered}); err == nil && p.open && !opened[this] {
			opened[this] = true
			err = s.checkByOpening(t, left, p.root, p.path, ordered)
		}
		if err != nil {
			return fmt.Errorf("power cut after %s, leaving %s: %w; there are %s (STORE_TEST_SEED=%d repeats it)", after, l.what(), err, left, powerCutSeed())
		}
		return nil
	}
	begun := p.from == nil
	for _, c := range p.calls {
		begun = begun || c == p.from
		changed, err := d.apply(c)
		if err != nil {
			return cuts, err
		}
		if s.readLine(c) == "" && !changed || !begun {
			continue
		}
		random := p.random
		if d.safe() {
			random = 0
		}
		for k := range len(d.pending) + 1 {
			for _, l := range d.pageModes() {
				what := func() string { return fmt.Sprintf("%d of %d changes of names and %s", k, len(d.pending), l) }
				if err := look(c, outcome{what: what, names: namesInOrder(k), pages: l}, true); err != nil {
					return cuts, err
				}
			}
		}
		for range random {
			page := func() pageLeft { return pageLeft(p.r.IntN(3)) }
			k := p.r.IntN(len(d.pending) + 1)
			what := func() string {
				return fmt.Sprintf("%d of %d changes of names and pages at random", k, len(d.pending))
			}
			if err := look(c, outcome{what: what, names: namesInOrder(k), page: page}, true); err != nil {
				return cuts, err
			}
			what = func() string { return "names and pages at random" }
			if err := look(c, outcome{what: what, names: namesInAnyOrder(p.r), page: page}, false); err != nil {
				return cuts, err
			}
		}
	}
	return cuts, nil
}

// powerCutSeed returns the seed of the random cuts. STORE_TEST_SEED sets it.
var powerCutSeed = sync.OnceValue(func() uint64 {
	if n, err := strconv.ParseUint(os.Getenv("STORE_TEST_SEED"), 10, 64); err == nil {
		return n
	}
	return uint64(time.Now().UnixNano())
})

// TestPowerCut records the system calls of a real writer, and cuts the power after each of them. Any part of the unsynced
// data and names may survive. In each case, feedback.json must be complete. It must be the last version for which Write has
// returned, or a later version, and the next process must find it intact. STORE_TEST_CUTS sets the number of random cuts
// after each call.
func TestPowerCut(t *testing.T) {
	if testing.Short() {
		t.Skip("cuts the power after each system call")
	}
	needStrace(t)
	if withoutRaceDetector(t) {
		return
	}
	random := 1
	if n, err := strconv.Atoi(os.Getenv("STORE_TEST_CUTS")); err == nil {
		random = n
	}
	for name, c := range map[string]struct {
		rows    int
		foreign []byte
	}{
		"small":   {rows: 40},
		"large":   {rows: largeRows},
		"damaged": {rows: 20, foreign: []byte("[\n{\"vote_id\":1}")},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p, err := record(t, c.rows, allWrites, c.foreign)
			if err != nil {
				t.Fatal(err)
			}
			p.open, p.random = true, random
			cuts, err := p.run(t)
			if err != nil {
				t.Fatal(err)
			}
			t.Logf("%d calls, %d different power cuts", len(p.calls), cuts)
			if cuts < 50 {
				t.Errorf("only %d cuts", cuts)
			}
		})
	}
}

// TestEachSyncIsNeeded leaves out each fsync in turn. Each time, the replay must find that a power cut does harm. This shows
// that the replay works, and that no fsync is superfluous.
func TestEachSyncIsNeeded(t *testing.T) {
	if testing.Short() {
		t.Skip("cuts the power after each system call")
	}
	needStrace(t)
	if withoutRaceDetector(t) {
		return
	}
	for _, rows := range []int{40, largeRows} { // a file that is written whole, and a file that is patched
		t.Run(strconv.Itoa(rows), func(t *testing.T) {
			t.Parallel()
			p, err := record(t, rows, allWrites, nil)
			if err != nil {
				t.Fatal(err)
			}
			p.random = 5
			if _, err := p.run(t); err != nil {
				t.Fatal(err)
			}
			syncs := 0
			for _, c := range p.calls {
				if c.name != "fsync" && c.name != "fdatasync" {
					continue
				}
				syncs++
				p.ignoreSync, p.from = func(other *call, _ bool) bool { return other == c }, c
				_, err := p.run(t)
				if err == nil { // the five random outcomes of each cut may all be harmless by chance, so try more
					p.random = 60
					_, err = p.run(t)
					p.random = 5
				}
				if err == nil {
					t.Errorf("nothing is lost without fsync %d", syncs)
				}
			}
			if syncs < 20 {
				t.Errorf("the record has %d calls of fsync", syncs)
			}
		})
	}
}

// TestFailedSyncIsFinal checks that the replay finds a mistake of the writer: it repeats a failed fsync and trusts the
// second fsync. The kernel may have dropped the pages that were dirty at the failed fsync, so they are not durable even
// after a later fsync succeeds.
func TestFailedSyncIsFinal(t *testing.T) {
	needStrace(t)
	for _, refused := range []bool{false, true} {
		root := t.TempDir()
		p := &replay{root: root, path: filepath.Join(root, "feedback.json"), seen: newSeen()}
		options := []string{"-e", "inject=getcwd:error=EIO"} // no effect, because the child never calls getcwd
		if refused {
			options = []string{"-e", "inject=fsync:error=EIO:when=1"}
		}
		var err error
		if p.calls, err = traced(filepath.Join(t.TempDir(), "trace"), child("trusting", p.path), options...); err != nil {
			t.Fatal(err)
		}
		if _, err := p.run(t); (err != nil) != refused {
			t.Errorf("the first fsync fails: %v; found: %v", refused, err)
		}
	}
}
