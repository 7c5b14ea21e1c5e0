package snapshot

import (
	"math/rand/v2"
	"slices"
	"testing"
)

// TestSeenEqualsModel applies the same random changes to a value of type seen and to a slice of bool, and compares the two.
func TestSeenEqualsModel(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	for range 200 {
		n := r.IntN(300)
		s, want := newSeen(1, n), make([]bool, n)
		for range 400 {
			switch i := r.IntN(len(want) + 1); r.IntN(5) {
			case 0:
				s.insertRow(i)
				want = slices.Insert(want, i, true)
			case 1:
				if i < len(want) {
					s.deleteRow(i)
					want = slices.Delete(want, i, i+1)
				}
			case 2:
				wasSeen := r.IntN(2) == 0
				s.appendRow(wasSeen)
				want = append(want, wasSeen)
			case 3:
				if r.IntN(20) == 0 {
					next := s.splitAt(i)
					checkSeen(t, next, want[i:])
					checkSeen(t, s, want[:i])
					s.appendRows(next)
				}
			default:
				if i < len(want) {
					s.setRow(i)
					want[i] = true
				}
			}
			checkSeen(t, s, want)
		}
	}
}

func checkSeen(t *testing.T, s *seen, want []bool) {
	t.Helper()
	if s.rows != len(want) || len(s.bits) != (len(want)+63)/64 {
		t.Fatalf("%d rows in %d words, want %d rows", s.rows, len(s.bits), len(want))
	}
	count := 0
	for i, w := range want {
		if w {
			count++
		}
		if s.hasRow(i) != w {
			t.Fatalf("row %d of %d: %v, want %v", i, len(want), s.hasRow(i), w)
		}
	}
	if n := s.rows % 64; n > 0 && s.bits[len(s.bits)-1]>>n != 0 {
		t.Fatalf("bits after the last of %d rows: %b", s.rows, s.bits[len(s.bits)-1])
	}
	if s.count != count {
		t.Fatalf("count %d, want %d", s.count, count)
	}
}
