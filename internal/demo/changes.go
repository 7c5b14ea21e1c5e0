package demo

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"
)

// Operation is the kind of a change of a vote.
type Operation byte

// The value of each operation is the sign with which the demo shows it.
const (
	Insert Operation = '+'
	Update Operation = '~'
	Delete Operation = '-'
)

// Change is one committed change of the votes table.
type Change struct {
	Operation Operation
	ID        int    // vote_id
	Question  string // the vote's question
	Thumb     string // thumb up or down of the user's opinion; two spaces for a delete
	Committed time.Time

	row string // compact row_to_json of the new row; "" for a delete
}

// application is the demo's chat application, reduced to its writes.
type application struct {
	db  *pgx.Conn
	rng *rand.Rand
	ids []int // keys of the votes in the table
}

// insertHistory inserts n votes as if users had written a vote every 97 minutes until now.
func (a *application) insertHistory(ctx context.Context, n int) error {
	for i := range n {
		age := time.Duration(n-i) * 97 * time.Minute
		if _, err := a.insertVote(ctx, age); err != nil {
			return err
		}
	}
	return nil
}

// changeVotes makes perSecond changes per second on average until ctx ends, and then returns nil. If the database fails,
// changeVotes returns the error.
func (a *application) changeVotes(ctx context.Context, perSecond float64, changes chan<- Change) error {
	if perSecond == 0 {
		<-ctx.Done()
		return nil
	}
	timer := time.NewTimer(0)
	defer timer.Stop()
	next := time.Now()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-timer.C:
		}
		// The end of ctx does not cancel a running statement. Otherwise, the demo would not know whether the change was made.
		c, err := a.changeVote(context.WithoutCancel(ctx))
		switch {
		case errors.Is(err, pgx.ErrNoRows): // somebody else deleted this vote
			a.ids = slices.DeleteFunc(a.ids, func(id int) bool { return id == c.ID })
		case err != nil:
			return fmt.Errorf("change the votes table: %w", err)
		default:
			changes <- c
		}
		pause := min(a.rng.ExpFloat64(), 3) / perSecond
		next = next.Add(time.Duration(pause * float64(time.Second)))
		timer.Reset(time.Until(next))
	}
}

// changeVote makes one random change. The table grows to about 300 votes and then keeps that size.
func (a *application) changeVote(ctx context.Context) (Change, error) {
	deletes := 0.08
	if len(a.ids) > 300 {
		deletes = 0.42
	}
	switch dice := a.rng.Float64(); {
	case len(a.ids) < 10 || dice < 0.84-deletes:
		return a.insertVote(ctx, 0)
	case dice < 1-deletes:
		return a.updateVote(ctx)
	default:
		return a.deleteVote(ctx)
	}
}

func (a *application) insertVote(ctx context.Context, age time.Duration) (Change, error) {
	vote := newVote(a.rng)
	c := Change{Operation: Insert, Question: vote.question, Thumb: vote.thumb()}
	err := a.db.QueryRow(ctx, `INSERT INTO votes AS v (user_query, bot_response, evaluation_json, feedback_tags, comment, citations, "timestamp")
		VALUES ($1, $2, $3, $4, $5, $6, localtimestamp - $7::interval) RETURNING vote_id, row_to_json(v)::text`,
		vote.question, vote.answer, vote.evaluation, vote.tags, vote.comment, vote.citations, age).Scan(&c.ID, &c.row)
	if err == nil {
		a.ids = append(a.ids, c.ID)
	}
	return committed(c), err
}

// updateVote replaces the opinion of a random vote.
func (a *application) updateVote(ctx context.Context) (Change, error) {
	c := Change{Operation: Update, ID: a.ids[a.rng.IntN(len(a.ids))]}
	opinion := newOpinion(a.rng)
	c.Thumb = opinion.thumb()
	err := a.db.QueryRow(ctx, `UPDATE votes v SET feedback_tags = $2, comment = $3, evaluation_json = evaluation_json || $4::jsonb
		WHERE vote_id = $1 RETURNING user_query, row_to_json(v)::text`,
		c.ID, opinion.tags, opinion.comment, opinion.evaluation).Scan(&c.Question, &c.row)
	return committed(c), err
}

func (a *application) deleteVote(ctx context.Context) (Change, error) {
	i := a.rng.IntN(len(a.ids))
	c := Change{Operation: Delete, ID: a.ids[i], Thumb: "  "}
	a.ids = slices.Delete(a.ids, i, i+1)
	err := a.db.QueryRow(ctx, `DELETE FROM votes WHERE vote_id = $1 RETURNING user_query`, c.ID).Scan(&c.Question)
	return committed(c), err
}

// committed compacts the row of a change, and sets the time of the commit to the current time. The change is already
// committed, because each statement is a transaction of its own.
func committed(c Change) Change {
	c.row = string(compactJSON([]byte(c.row)))
	c.Committed = time.Now()
	return c
}
