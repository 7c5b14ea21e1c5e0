package store_test

import (
	"bytes"
	"compress/gzip"
	"encoding/json"
	"errors"
	"fmt"
	"hash/maphash"
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
)

// A story is what the child has said so far.
type story struct {
	begun     []string // the SHA-256 of each version it began to write
	done      int      // how many of them, and all before, must not be lost; 0 for none
	manifests []string // the SHA-256 of the manifest of each that is done
	kept      []string // generations, which must not be lost
	failed    string   // the words of the last failure; "" once a write is done
	foreign   []byte   // what was there before; nil for nothing

	sums map[uint64]string // of contents seen already
}

// sum is the SHA-256 of a version. A large file has spaces between its rows, which the writer's words do not know of.
func (s *story) sum(content []byte) string {
	h := maphash.Bytes(hashSeed, content)
	if len(s.sums[h]) != 64 {
		s.sums[h] = digest(unpadded(bytes.Clone(content)))
	}
	return s.sums[h]
}

// hear takes a line that the child wrote. It says whether it was one.
func (s *story) hear(c *call) (word string) {
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
	case "failed":
		s.failed = rest
	}
	return word
}

// allows says whether the file may have this content, nil for none.
func (s *story) allows(content []byte, there bool) error {
	if s.done == 0 {
		if !there && s.foreign == nil || there && s.foreign != nil && bytes.Equal(content, s.foreign) {
			return nil
		}
	}
	if !there {
		return errors.New("there is no feedback.json")
	}
	sum := s.sum(content)
	switch i := slices.Index(s.begun, sum); {
	case i < 0:
		return fmt.Errorf("feedback.json is none of the versions written: %d bytes, valid JSON: %v", len(content), json.Valid(content))
	case !slices.Contains(s.begun[max(s.done-1, 0):], sum):
		return fmt.Errorf("feedback.json is version %d, after version %d was safe", i+1, s.done)
	}
	return nil
}

// judge looks at what is left as any reader would.
func (s *story) judge(left remains, path string, inOrder bool) error {
	content, there := left[path]
	if err := s.allows(content, there); err != nil {
		return err
	}
	manifest, there := left[store.ManifestPath(path)]
	if there && !json.Valid(manifest) {
		return fmt.Errorf("the manifest is not whole: %q", manifest)
	}
	if last := len(s.manifests) - 1; last >= 0 && (!there || slices.Contains(s.manifests[:last], digest(manifest))) {
		return errors.New("the manifest is older than the last that was safe, or gone")
	}
	if inOrder && s.foreign != nil && !bytes.Equal(content, s.foreign) &&
		!slices.ContainsFunc(slices.Collect(maps.Keys(left)), func(name string) bool {
			return strings.HasPrefix(name, path+".damaged-") && bytes.Equal(left[name], s.foreign)
		}) {
		return errors.New("the damaged file is not kept aside")
	}
	for _, name := range s.kept {
		if left[name] == nil || left[strings.TrimSuffix(name, ".json.gz")+".manifest.json"] == nil {
			return fmt.Errorf("%s or its manifest is lost", filepath.Base(name))
		}
	}
	for name, data := range left {
		if err := s.wholeGeneration(name, data); err != nil {
			return fmt.Errorf("%s is not whole: %w", filepath.Base(name), err)
		}
	}
	return nil
}

// wholeGeneration looks at a file that may be one of a generation's.
func (s *story) wholeGeneration(name string, data []byte) error {
	if strings.HasSuffix(name, ".manifest.json") && !json.Valid(data) {
		return errors.New("it is no JSON")
	}
	h := maphash.Bytes(hashSeed, data)
	if !strings.HasSuffix(name, ".json.gz") || s.sums[h] != "" {
		return nil
	}
	r, err := gzip.NewReader(bytes.NewReader(data))
	if err == nil {
		_, err = io.Copy(io.Discard, r)
	}
	if err == nil {
		s.sums[h] = "a whole generation"
	}
	return err
}

// judgeByOpening puts what is left into a folder, and has a new process' File make of it what it can: it takes a whole file
// for one, and writes the next.
func (s *story) judgeByOpening(t *testing.T, left remains, root, path string, inOrder bool) error {
	dir := t.TempDir()
	defer os.RemoveAll(dir)
	for _, name := range slices.Sorted(maps.Keys(left)) {
		to := dir + strings.TrimPrefix(name, root)
		var err error
		if left[name] == nil {
			err = os.MkdirAll(to, 0o755)
		} else {
			err = os.WriteFile(to, left[name], 0o644)
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
	if m, ok := f.Existing(); inOrder && slices.Contains(s.begun, s.sum(content)) && (!ok || fits(m, content) != nil) {
		return fmt.Errorf("a power cut is taken for damage: %s", store.Warning(f))
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
		if strings.HasSuffix(name, ".tmp") && !strings.HasPrefix(name, "feedback-") { // a generation's goes with the next
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

// A replay is the calls of one traced child, and how they are looked at.
type replay struct {
	calls   []*call
	root    string
	path    string
	foreign []byte // what was at path before
	loose   func(c *call, folder bool) bool
	random  int // cuts drawn at random, at each point
	open    bool
	r       *rand.Rand
	sums    map[uint64]string // of the contents that were seen
}

// run cuts the power after each call, in all the ways that inOrder knows and in some at random, and returns the first cut
// that is not survived; else how many different ones there were.
func (p *replay) run(t *testing.T) (cuts int, err error) {
	d, s := newDevice(p.root), &story{foreign: p.foreign, sums: p.sums}
	d.loose = p.loose
	if p.foreign != nil {
		folder := d.inode()
		folder.folder = filepath.Dir(p.path)
		d.names[folder.folder], d.durable[folder.folder] = folder, folder
		d.holds(p.path, slices.Clone(p.foreign))
	}
	seen := map[uint64]bool{}
	look := func(after *call, l leaving, ordered bool) error {
		left := d.cut(l)
		sum := left.sum(s.done, len(s.begun), ordered)
		if seen[sum] {
			return nil
		}
		seen[sum] = true
		cuts++
		err := s.judge(left, p.path, ordered)
		if err == nil && p.open {
			err = s.judgeByOpening(t, left, p.root, p.path, ordered)
		}
		if err != nil {
			return fmt.Errorf("power cut after %s, leaving %s: %w; there are %s (STORE_TEST_SEED=%d draws the same again)", after, l.what, err, left, cutSeed())
		}
		return nil
	}
	always := func(l pageLeft) func() pageLeft { return func() pageLeft { return l } }
	for _, c := range p.calls {
		changed, err := d.apply(c)
		if err != nil {
			return cuts, err
		}
		if s.hear(c) == "" && !changed {
			continue
		}
		random := p.random
		if d.safe() {
			random = 0
		}
		for k := range len(d.pending) + 1 {
			for _, l := range d.pageModes() {
				what := fmt.Sprintf("%d of %d changes of names and %s", k, len(d.pending), l)
				if err := look(c, leaving{what, inOrder(k), always(l)}, true); err != nil {
					return cuts, err
				}
			}
		}
		for range random {
			page := func() pageLeft { return pageLeft(p.r.IntN(3)) }
			k := p.r.IntN(len(d.pending) + 1)
			what := fmt.Sprintf("%d of %d changes of names and pages at random", k, len(d.pending))
			if err := look(c, leaving{what, inOrder(k), page}, true); err != nil {
				return cuts, err
			}
			if err := look(c, leaving{"names and pages at random", inAnyOrder(p.r), page}, false); err != nil {
				return cuts, err
			}
		}
	}
	return cuts, nil
}

// cutSeed is what the cuts are drawn from. STORE_TEST_SEED sets it.
var cutSeed = sync.OnceValue(func() uint64 {
	if n, err := strconv.ParseUint(os.Getenv("STORE_TEST_SEED"), 10, 64); err == nil {
		return n
	}
	return uint64(time.Now().UnixNano())
})

// TestPowerCut records the calls of a real writer, and cuts the power after each of them: whatever of the data and names
// that were not synced is there or not, feedback.json is whole, the newest version that Write has called safe or one after
// it, and the next process takes it for what it is. STORE_TEST_CUTS is how many cuts are drawn at random at each point.
func TestPowerCut(t *testing.T) {
	if !traceable(t) {
		return
	}
	random := 3
	if n, err := strconv.Atoi(os.Getenv("STORE_TEST_CUTS")); err == nil {
		random = n
	}
	for name, c := range map[string]struct {
		rows    int
		foreign []byte
	}{
		"small":   {rows: 40},
		"large":   {rows: 4000},
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

// TestEachSyncIsNeeded leaves each fsync out of the record in turn: each time, a power cut must do harm that is found. So
// the replay sees what it is there to see, and no fsync is wasted.
func TestEachSyncIsNeeded(t *testing.T) {
	if !traceable(t) {
		return
	}
	for _, rows := range []int{40, 2500} { // a small file, and one that is patched
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
				p.loose = func(other *call, _ bool) bool { return other == c }
				if _, err := p.run(t); err == nil {
					t.Errorf("fsync %d can be left out, and nothing is lost", syncs)
				}
			}
			if syncs < 20 {
				t.Errorf("the record has %d calls of fsync", syncs)
			}
		})
	}
}

// TestFailedSyncIsFinal: what was dirty at an fsync that failed is not safe after one that works, since the kernel may have
// thrown it away. The replay must see that in a writer that trusts it.
func TestFailedSyncIsFinal(t *testing.T) {
	if !traceable(t) {
		return
	}
	for _, refused := range []bool{false, true} {
		root := t.TempDir()
		p := &replay{root: root, path: filepath.Join(root, "feedback.json"), sums: map[uint64]string{}}
		options := []string{"-e", "inject=getcwd:error=EIO"} // which nobody calls
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
