package main

import (
	"fmt"
	"math/rand/v2"
	"os"
	"strconv"
	"testing"
	"time"
)

// TestLossesKilledAtEachStep loses rows in several ways with each source. Each round kills capture with SIGKILL at one
// system call. The call belongs either to the Write that brings the loss to the file, or to the compression of the state
// before the loss. The test checks that the file is whole after the kill. It then starts capture again. It checks that
// exactly the rows before the loss are kept, and that the file equals the table.
//
// By default, the test runs two random rounds for each source, and logs the seed. CAPTURE_TEST_SEED=N repeats the rounds of
// the seed N. CAPTURE_TEST_LOSSES=100 runs 100 random rounds, and CAPTURE_TEST_LOSSES=all runs every possible round.
func TestLossesKilledAtEachStep(t *testing.T) {
	if testing.Short() {
		t.Skip("kills many daemons")
	}
	t.Parallel()
	needStrace(t)
	kinds := lossKinds(t)
	rounds := os.Getenv("CAPTURE_TEST_LOSSES")
	if rounds == "all" {
		for _, kind := range kinds {
			for _, source := range lossSources {
				if !kind.suits(source) {
					continue
				}
				t.Run(kind.name+"/"+source, func(t *testing.T) {
					t.Parallel()
					killAtEachStep(t, kind, source)
				})
			}
		}
		return
	}
	n, err := 2*len(lossSources), error(nil)
	if rounds != "" {
		if n, err = strconv.Atoi(rounds); err != nil {
			t.Fatalf("CAPTURE_TEST_LOSSES is neither all nor a number: %v", err)
		}
	}
	seed := uint64(time.Now().UnixNano())
	if text := os.Getenv("CAPTURE_TEST_SEED"); text != "" {
		if seed, err = strconv.ParseUint(text, 10, 64); err != nil {
			t.Fatal(err)
		}
	}
	t.Logf("CAPTURE_TEST_SEED=%d", seed)
	r := rand.New(rand.NewPCG(seed, 19))
	ran, kills := 0, 0 // number of rounds that were not skipped, and of rounds in which capture was killed
	for i := range n {
		source := lossSources[i%len(lossSources)]
		kind := kinds[r.IntN(len(kinds))]
		for !kind.suits(source) || kind.large && r.IntN(4) > 0 { // a large table takes ten times as long, so skip three of four
			kind = kinds[r.IntN(len(kinds))]
		}
		step := drawStep(r, kind.large)
		t.Run(fmt.Sprintf("%s/%s/%s", source, kind.name, step), func(t *testing.T) {
			killed := (&lossRound{lossKind: kind, source: source, step: step, t: t}).run()
			t.Logf("killed at: %s", killed)
			if ran++; killed != "" {
				kills++
			}
		})
	}
	if ran >= 4 && kills == 0 { // probably, capture makes other system calls or names its files differently than killStep assumes
		t.Errorf("no kill in %d rounds", ran)
	}
}

// killAtEachStep runs a round without a kill, which records the system calls. For each recorded call, it then runs a round
// that kills capture at this call. It does so first for the calls of the Write, and then for the calls of the compression.
func killAtEachStep(t *testing.T, kind lossKind, source string) {
	round := func(step killStep) (r lossRound) {
		t.Run(step.String(), func(t *testing.T) {
			r = lossRound{lossKind: kind, source: source, step: step, t: t}
			t.Logf("killed at: %s", r.run())
		})
		return r
	}
	rounds, kills := 0, 0
	for _, compressing := range []bool{false, true} {
		made := round(killStep{compressing: compressing}).made
		for _, call := range killCalls {
			for n := 1; n <= made[call]; n++ {
				rounds++
				if round(killStep{call: call, n: n, compressing: compressing}).killed != "" {
					kills++
				}
			}
		}
	}
	if kills < 8 {
		t.Errorf("%d kills", kills)
	}
	t.Logf("%d kills in %d rounds", kills, rounds)
}
