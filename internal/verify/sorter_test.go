package verify

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"
)

func TestSorterInMemoryAndInRuns(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	r := rand.New(rand.NewPCG(seed, 0))
	// The keys of the map are limits in bytes, and its values are key counts. With a low limit, the memory holds only a few
	// keys, so the sorter writes many runs, each of which needs a buffer. The test therefore adds fewer keys at a low limit.
	for limit, keys := range map[int]int{1: 50, 100: 100, 10_000: 3000, 1 << 30: 3000} {
		s := &sorter{limit: limit}
		defer s.close()
		var want [][]byte
		for i := range keys {
			key := fmt.Appendf(nil, "%d/%d", r.IntN(1_000_000), i)
			key = append(key, bytes.Repeat([]byte{0xff}, r.IntN(300))...)
			want = append(want, key)
			if err := s.addEntry(key, testHash(key)); err != nil {
				t.Fatal(err)
			}
		}
		if n := len(s.runs); (limit < 1<<30 && n < 40) || (limit == 1<<30 && n > 0) {
			t.Errorf("limit %d: %d runs", limit, n)
		}
		slices.SortFunc(want, bytes.Compare)
		next, err := s.readSorted()
		if err != nil {
			t.Fatal(err)
		}
		for i := 0; ; i++ {
			key, hash, ok, err := next()
			if err != nil {
				t.Fatal(err)
			}
			if !ok {
				if i != len(want) {
					t.Fatalf("limit %d: %d keys of %d", limit, i, len(want))
				}
				break
			}
			if !bytes.Equal(key, want[i]) || hash != testHash(key) {
				t.Fatalf("limit %d: key %d is %q, not %q", limit, i, key, want[i])
			}
		}
	}
	next, err := (&sorter{limit: 1}).readSorted()
	if err != nil {
		t.Fatal(err)
	}
	if _, _, ok, err := next(); ok || err != nil {
		t.Fatalf("an empty sorter gave %v, %v", ok, err)
	}
}

// TestSorterWithoutTemporaryFile checks that the error names the folder for temporary files and the variable that selects
// another folder. At first, the first sorted run cannot be written. Then, only the last sorted run cannot be written.
func TestSorterWithoutTemporaryFile(t *testing.T) {
	missing := t.TempDir() + "/missing"
	t.Setenv("TMPDIR", missing)
	s := &sorter{limit: 1}
	err := s.addEntry([]byte("a"), 1)
	if err == nil {
		err = s.addEntry([]byte("b"), 1)
	}
	if err == nil || !strings.Contains(err.Error(), "set TMPDIR to a folder") || !strings.Contains(err.Error(), missing+" now") {
		t.Errorf("the error is %v", err)
	}

	folder := t.TempDir()
	t.Setenv("TMPDIR", folder)
	full := &sorter{limit: 1}
	for _, key := range []string{"a", "b"} {
		if err := full.addEntry([]byte(key), 1); err != nil {
			t.Fatal(err)
		}
	}
	full.close() // every write fails from now on
	if _, err := full.readSorted(); err == nil || !strings.Contains(err.Error(), "set TMPDIR to a folder") {
		t.Errorf("the error is %v", err)
	}
}

func testHash(key []byte) uint64 {
	h := uint64(14695981039346656037)
	for _, c := range key {
		h = h*31 + uint64(c)
	}
	return h + binary.BigEndian.Uint64(append(make([]byte, 8), key[:1]...)[1:])
}
