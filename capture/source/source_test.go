package source_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"

	"capture/capture/source"
	"capture/internal/postgres"
	"capture/snapshot/rowjson"
)

// TestProgressReport checks what a Progress reports before, during and after its phases.
func TestProgressReport(t *testing.T) {
	t.Parallel()
	changes := 0
	p := source.NewProgress("logical", func() { changes++ })
	p.SetBlocked("an open transaction")
	if r := p.Report(); r.Phase != source.Connecting || r.Source != "logical" || r.Blocked != "an open transaction" || p.HasFollowed() {
		t.Errorf("at the start: %+v", r)
	}
	p.SetBlocked("")
	p.SetCopying()
	p.SetServerLSN(500)
	p.SetAppliedLSN(100, 3*time.Second)
	if r := p.Report(); r.Phase != source.Copying || r.LagBytes != 0 || r.LagSeconds != 0 || !r.LastContact.IsZero() {
		t.Errorf("while copying: %+v", r)
	}
	p.RecordRead(source.TableRead{Took: time.Second, WholeBecause: "first copy"})
	reads := &postgres.ReadClock{}
	reads.Touch()
	p.SetFollowing(reads)
	p.SetRetainedWAL(7)
	p.RecordCommit(&source.TxnStats{Inserts: 2, Deletes: 1})
	r := p.Report()
	if !p.HasFollowed() || r.LagBytes != 400 || r.LagSeconds != 3 || r.RetainedWAL != 7 || r.LastContact.IsZero() || r.CopyTook != time.Second {
		t.Errorf("while following: %+v", r)
	}
	if want := (source.Counters{Transactions: 1, Inserts: 2, Deletes: 1, Copies: 1}); r.Counters != want {
		t.Errorf("counters %+v, want %+v", r.Counters, want)
	}
	p.SetWaitingSince(time.Now().Add(-time.Minute))
	if r := p.Report(); r.LagSeconds < 60 {
		t.Errorf("a change waits for a minute, and the lag is %v", r.LagSeconds)
	}
	if changes != 2 {
		t.Errorf("%d changes of the phase, want 2", changes)
	}
}

// TestConditions checks that SetCondition reports each text as new only once, and that later conditions do not change an
// earlier report.
func TestConditions(t *testing.T) {
	t.Parallel()
	p := source.NewProgress("notify", nil)
	if !p.SetCondition("checks", "fails") || p.SetCondition("checks", "fails") {
		t.Error("a condition must be news once")
	}
	r := p.Report()
	if !p.SetCondition("checks", "") || p.SetCondition("checks", "") || len(p.Report().Conditions) != 0 {
		t.Error("the end of a condition must be news once")
	}
	if r.Conditions["checks"] != "fails" {
		t.Errorf("the earlier report has %v", r.Conditions)
	}
}

// TestRounds checks what Barrier returns after a successful round, after a failed round, and after End.
func TestRounds(t *testing.T) {
	t.Parallel()
	r := source.NewRounds()
	barrier := func() <-chan error {
		done := make(chan error, 1)
		go func() { done <- r.Barrier(t.Context()) }()
		return done
	}
	done := barrier()
	(<-r.Requests()) <- nil
	if err := <-done; err != nil {
		t.Errorf("after a round: %v", err)
	}
	done = barrier()
	(<-r.Requests()) <- errors.New("broken")
	if err := <-done; !errors.Is(err, source.ErrNotFollowing) {
		t.Errorf("after a failed round: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := r.Barrier(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("after the end of the context: %v", err)
	}
	done = barrier()
	<-r.Requests()
	r.End()
	if err := <-done; !errors.Is(err, source.ErrNotFollowing) {
		t.Errorf("a round that did not end: %v", err)
	}
	if err := r.Barrier(t.Context()); !errors.Is(err, source.ErrNotFollowing) {
		t.Errorf("after the end: %v", err)
	}
}

// TestTxnLogger checks that each of the first 1000 commits gets its own log line. The commits after this burst share one
// line per second, which contains their sums and their first keys.
func TestTxnLogger(t *testing.T) {
	t.Parallel()
	var out strings.Builder
	log := hclog.New(&hclog.LoggerOptions{Output: &out, JSONFormat: true})
	shape := &rowjson.Shape{Key: []int{0}, Columns: []rowjson.Column{{Name: "id", Type: rowjson.Type{Kind: rowjson.Number, OID: 23}}}}
	encoder, err := rowjson.NewEncoder(shape, false)
	if err != nil {
		t.Fatal(err)
	}
	l := source.NewTxnLogger(log, shape)
	now := time.Now()
	commit := func(id int) {
		x := &source.TxnStats{Inserts: 1, CommitTime: now}
		key, err := encoder.AppendKey(nil, [][]byte{fmt.Append(nil, id)})
		if err != nil {
			t.Fatal(err)
		}
		x.AddKey(key)
		l.Add(x, now)
	}
	const burst = 1000
	for i := range burst {
		commit(i)
	}
	if n := strings.Count(out.String(), "captured"); n != burst || l.HasSummary() {
		t.Fatalf("%d lines for a burst of %d commits", n, burst)
	}
	out.Reset()
	for i := range 25 {
		commit(burst + i)
	}
	if out.Len() > 0 || !l.HasSummary() {
		t.Fatalf("beyond the burst: %s", out.String())
	}
	now = now.Add(time.Second)
	l.Refill(now)
	line := out.String()
	if strings.Count(line, "\n") != 1 || !strings.Contains(line, `"transactions":25`) || !strings.Contains(line, `"inserts":25`) || l.HasSummary() {
		t.Errorf("the summary is %s", line)
	}
	if !strings.Contains(line, `"keys":["1000","1001"`) || strings.Contains(line, "1010") {
		t.Errorf("the keys of the summary are not the first ten: %s", line)
	}
	commit(1)
	if n := strings.Count(out.String(), "\n"); n != 2 {
		t.Errorf("%d lines after the refill, want 2", n)
	}
}
