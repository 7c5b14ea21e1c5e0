package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"
)

// votesTable is the application's table.
const votesTable = `CREATE TABLE votes (
	vote_id         serial PRIMARY KEY,
	user_query      text,
	bot_response    text,
	evaluation_json jsonb,
	feedback_tags   text[],
	comment         text,
	citations       jsonb,
	"timestamp"     timestamp DEFAULT CURRENT_TIMESTAMP
)`

// voter is the demo's application: it makes votes, and now and then edits or deletes one.
type voter struct {
	url string
	db  *pgx.Conn
	rng *rand.Rand
	ids []int // of the votes that stand in the table
}

// newVoter makes the database and the table with the votes of the last days in it.
func newVoter(ctx context.Context, admin, url string, seed uint64) (*voter, error) {
	db, err := connect(ctx, admin)
	if err != nil {
		return nil, err
	}
	defer db.Close(ctx)
	if _, err := db.Exec(ctx, "CREATE DATABASE "+demoDatabase); err != nil {
		return nil, err
	}
	v := &voter{url: url, rng: rand.New(rand.NewPCG(seed, 0))}
	if v.db, err = connect(ctx, url); err != nil {
		return nil, err
	}
	if _, err := v.db.Exec(ctx, votesTable); err != nil {
		v.close()
		return nil, err
	}
	for i := range demoVotes {
		age := time.Duration(demoVotes-i) * 97 * time.Minute
		if _, err := v.insert(ctx, age); err != nil {
			v.close()
			return nil, err
		}
	}
	return v, nil
}

func (v *voter) close() { v.db.Close(context.Background()) }

// run makes changes at a rate a second until ctx ends, which is no error, or the database fails.
func (v *voter) run(ctx context.Context, perSecond float64, changes chan<- change) error {
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
		// The statement under way is finished: a change that may or may not have been made could not be shown.
		c, err := v.change(context.WithoutCancel(ctx))
		switch {
		case errors.Is(err, pgx.ErrNoRows): // somebody else deleted that vote
			v.ids = slices.DeleteFunc(v.ids, func(id int) bool { return id == c.id })
		case err != nil:
			return fmt.Errorf("make a vote: %w", err)
		default:
			changes <- c
		}
		pause := min(v.rng.ExpFloat64(), 3) / perSecond
		next = next.Add(time.Duration(pause * float64(time.Second)))
		timer.Reset(time.Until(next))
	}
}

// change does one thing that users do. The table grows to a few hundred votes, and then stays about there.
func (v *voter) change(ctx context.Context) (change, error) {
	deletes := 0.08
	if len(v.ids) > 300 {
		deletes = 0.42
	}
	switch dice := v.rng.Float64(); {
	case len(v.ids) < 10 || dice < 0.84-deletes:
		return v.insert(ctx, 0)
	case dice < 1-deletes:
		return v.edit(ctx)
	default:
		return v.remove(ctx)
	}
}

func (v *voter) insert(ctx context.Context, age time.Duration) (change, error) {
	vote := newVote(v.rng)
	c := change{sign: '+', question: vote.question, thumb: vote.thumb()}
	err := v.db.QueryRow(ctx, `INSERT INTO votes AS v (user_query, bot_response, evaluation_json, feedback_tags, comment, citations, "timestamp")
		VALUES ($1, $2, $3, $4, $5, $6, localtimestamp - $7::interval) RETURNING vote_id, row_to_json(v)::text`,
		vote.question, vote.answer, vote.evaluation, vote.tags, vote.comment, vote.citations, age).Scan(&c.id, &c.row)
	v.ids = append(v.ids, c.id)
	return v.committed(c), err
}

// edit has a user think again: other tags, another comment.
func (v *voter) edit(ctx context.Context) (change, error) {
	c := change{sign: '~', id: v.ids[v.rng.IntN(len(v.ids))]}
	opinion := newOpinion(v.rng)
	c.thumb = opinion.thumb()
	err := v.db.QueryRow(ctx, `UPDATE votes v SET feedback_tags = $2, comment = $3, evaluation_json = evaluation_json || $4::jsonb
		WHERE vote_id = $1 RETURNING user_query, row_to_json(v)::text`,
		c.id, opinion.tags, opinion.comment, opinion.evaluation).Scan(&c.question, &c.row)
	return v.committed(c), err
}

// remove has a user take a vote back.
func (v *voter) remove(ctx context.Context) (change, error) {
	i := v.rng.IntN(len(v.ids))
	c := change{sign: '-', id: v.ids[i], thumb: "  "}
	v.ids = slices.Delete(v.ids, i, i+1)
	err := v.db.QueryRow(ctx, `DELETE FROM votes WHERE vote_id = $1 RETURNING user_query`, c.id).Scan(&c.question)
	return v.committed(c), err
}

// committed ends a change: each is a transaction of its own, which is over now.
func (v *voter) committed(c change) change {
	c.row = string(compact([]byte(c.row)))
	c.committed = time.Now()
	return c
}

// difference compares the file at path with the table, row by row, and returns the number of rows.
func (v *voter) difference(ctx context.Context, path string) (int, error) {
	content, err := os.ReadFile(path)
	if err != nil {
		return 0, err
	}
	file := fileRows(content)
	rows, err := v.db.Query(ctx, `SELECT vote_id, row_to_json(v)::text FROM votes v`)
	if err != nil {
		return 0, fmt.Errorf("read the table: %w", err)
	}
	var n, id int
	var row string
	var different error
	_, err = pgx.ForEachRow(rows, []any{&id, &row}, func() error {
		n++
		if got, ok := file[id]; !ok {
			different = fmt.Errorf("feedback.json lacks vote %d", id)
		} else if string(got) != string(compact([]byte(row))) {
			different = fmt.Errorf("vote %d in feedback.json differs from the table's", id)
		}
		return nil
	})
	if err == nil && n != len(file) {
		different = errors.Join(different, fmt.Errorf("feedback.json has %s, the table %s", rowsText(len(file)), rowsText(n)))
	}
	return n, errors.Join(err, different)
}
