package demo

import (
	"encoding/json"
	"math/rand/v2"
	"strings"
	"testing"
)

// TestNewVote checks that the same seed makes the same votes, and that their JSON is valid.
func TestNewVote(t *testing.T) {
	t.Parallel()
	a, b := rand.New(rand.NewPCG(7, 0)), rand.New(rand.NewPCG(7, 0))
	for range 200 {
		v, w := newVote(a), newVote(b)
		if v.question != w.question || v.answer != w.answer || v.citations != w.citations || v.evaluation != w.evaluation {
			t.Fatalf("the same seed made %+v and %+v", v, w)
		}
		if !json.Valid([]byte(v.citations)) || !json.Valid([]byte(v.evaluation)) || len(v.tags) == 0 {
			t.Errorf("invalid vote: %+v", v)
		}
		if strings.Contains(v.question+v.answer, "%s") {
			t.Errorf("no service in %q: %q", v.question, v.answer)
		}
	}
}
