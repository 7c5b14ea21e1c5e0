package main

import (
	"fmt"
	"sync"
	"sync/atomic"
	"testing"

	"capture/internal/pgserver"
)

// A lossKind is a way in which a table loses rows or values.
type lossKind struct {
	name    string
	rows    int      // number of rows at the start
	large   bool     // whether the rows need more memory than capture may use, and the file is large enough to be patched
	prepare string   // statement that runs before capture starts
	steps   []string // statements that run one after the other; capture writes the file after each statement
	first   bool     // whether capture is killed at the first step instead of the last one

	away  bool                      // whether the loss happens while capture is stopped
	cut   bool                      // whether the loss happens while the connection is cut
	other func(t *testing.T) string // returns the URL of another database, which capture follows afterwards; nil if the database stays the same
	args  []string                  // flags of the daemon
}

// lossKinds returns all kinds of losses. Whatever the kind, capture must keep the content that the file had before the last
// step.
func lossKinds(t *testing.T) []lossKind {
	cluster := sync.OnceValue(func() *pgserver.Server { return pgserver.ForTest(t, pgserver.Options{}) })
	var databases atomic.Int32
	// Each of these statements alone deletes too few rows for a loss; both together are a loss.
	inSteps := []string{"DELETE FROM votes WHERE vote_id <= 16", "DELETE FROM votes WHERE vote_id <= 32"}
	return []lossKind{
		{name: "truncated", rows: 200, steps: []string{"TRUNCATE votes"}},
		{name: "most rows deleted", rows: 200, steps: []string{"DELETE FROM votes WHERE vote_id % 4 > 0"}},
		{name: "deleted in steps", rows: 200, steps: inSteps},
		{name: "deleted in steps, killed on the way", rows: 200, steps: inSteps, first: true},
		{name: "column overwritten", rows: 200, steps: []string{"UPDATE votes SET bot_response = 'lost' WHERE vote_id > 80"}},
		{name: "column dropped", rows: 200, steps: []string{"ALTER TABLE votes DROP COLUMN bot_response"}},
		{name: "table created again", rows: 200, steps: []string{"BEGIN; DROP TABLE votes; " + pgserver.VotesTable + "; COMMIT"}},
		{name: "identity index", rows: 200, steps: []string{"DELETE FROM votes WHERE vote_id > 20"}, prepare: `
			ALTER TABLE votes DROP CONSTRAINT votes_pkey; CREATE UNIQUE INDEX votes_id ON votes (vote_id); ALTER TABLE votes REPLICA IDENTITY USING INDEX votes_id`},
		{name: "rows in the spill file", rows: 1500, large: true, steps: []string{"DELETE FROM votes WHERE vote_id BETWEEN 300 AND 600"}, args: []string{"--memory=64MB"}},
		{name: "while the connection is cut", rows: 200, steps: []string{"DELETE FROM votes WHERE vote_id > 20"}, cut: true},
		{name: "while capture is stopped", rows: 200, steps: []string{"TRUNCATE votes"}, away: true},
		{name: "another database", rows: 200, away: true, other: func(t *testing.T) string { return votesDatabase(t, 0) }},
		{name: "another cluster", rows: 200, away: true, other: func(t *testing.T) string {
			name := fmt.Sprint("other", databases.Add(1))
			sql(t, cluster().URL("postgres"), "CREATE DATABASE "+name)
			url := cluster().URL(name)
			sql(t, url, pgserver.VotesTable)
			return url
		}},
	}
}

// suits reports whether this kind of loss can happen with the source. The source "snapshot" has no daemon: `capture
// snapshot` runs once before the loss and once after it. So there is no connection to cut during the loss, and no daemon to
// stop.
func (k *lossKind) suits(source string) bool {
	return source != "snapshot" || !k.cut && !(k.away && k.other == nil)
}

// lossSources are the ways in which capture gets the rows: the sources of a daemon, and `capture snapshot` without a daemon.
var lossSources = []string{"logical", "notify", "poll", "snapshot"}
