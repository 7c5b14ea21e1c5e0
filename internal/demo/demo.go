// Package demo provides what capture demo shows: a temporary Postgres server with the votes table of a chat application, and
// the application's writes.
//
// [Start] starts the server and fills the table with some votes. [Demo.Run] inserts, updates and deletes votes at random and
// reports each change when it has reached feedback.json. [Demo.Compare] compares the file with the table. The package does
// not import the packages of capture that write the file: it reads the file as any other program would.
package demo

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"

	"github.com/jackc/pgx/v5"
	"golang.org/x/sync/errgroup"

	"capture/internal/pgserver"
)

const (
	database = "rag"
	history  = 40 // number of votes in the table before capture starts
)

// Demo is a temporary server with the votes table.
type Demo struct {
	server *pgserver.Server
	app    *application
}

// Start starts the server and fills the votes table. The same seed makes the same votes. The caller must call Close.
func Start(ctx context.Context, seed uint64) (*Demo, error) {
	server, err := pgserver.Start(ctx, pgserver.Options{})
	if err != nil {
		return nil, err
	}
	d := &Demo{server: server, app: &application{rng: rand.New(rand.NewPCG(seed, 0))}}
	if err := d.fillDatabase(ctx); err != nil {
		d.Close()
		return nil, fmt.Errorf("fill the demo's database: %w", err)
	}
	return d, nil
}

// URL returns the URL of the demo's database.
func (d *Demo) URL() string { return d.server.URL(database) }

// Close stops the server and removes its files.
func (d *Demo) Close() {
	if d.app.db != nil {
		_ = d.app.db.Close(context.Background())
	}
	d.server.Close()
}

func (d *Demo) fillDatabase(ctx context.Context) error {
	admin, err := connectUTC(ctx, d.server.URL("postgres"))
	if err != nil {
		return err
	}
	defer admin.Close(ctx)
	if _, err := admin.Exec(ctx, "CREATE DATABASE "+database); err != nil {
		return err
	}
	if d.app.db, err = connectUTC(ctx, d.URL()); err != nil {
		return err
	}
	if _, err := d.app.db.Exec(ctx, pgserver.VotesTable); err != nil {
		return err
	}
	return d.app.insertHistory(ctx, history)
}

// Run makes perSecond changes per second on average until ctx ends, and then returns nil. When the file at path contains a
// change, Run calls showChange.
func (d *Demo) Run(ctx context.Context, perSecond float64, path string, showChange func(Change, File)) error {
	changes := make(chan Change, 64)
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error {
		defer close(changes)
		return d.app.changeVotes(ctx, perSecond, changes)
	})
	group.Go(func() error {
		watch(path, changes, showChange)
		return nil
	})
	return group.Wait()
}

// Compare compares the file at path with the table, row by row, and returns the number of rows.
func (d *Demo) Compare(ctx context.Context, path string) (int, error) {
	content, err := os.ReadFile(path)
	if err != nil {
		return 0, err
	}
	file := fileRows(content)
	rows, err := d.app.db.Query(ctx, `SELECT vote_id, row_to_json(v)::text FROM votes v`)
	if err != nil {
		return 0, fmt.Errorf("read the votes table: %w", err)
	}
	var n, id int
	var row string
	var difference error
	_, err = pgx.ForEachRow(rows, []any{&id, &row}, func() error {
		n++
		if got, ok := file[id]; !ok {
			difference = fmt.Errorf("vote %d is missing in feedback.json", id)
		} else if string(got) != string(compactJSON([]byte(row))) {
			difference = fmt.Errorf("vote %d in feedback.json differs from the table", id)
		}
		return nil
	})
	if err == nil && n != len(file) {
		difference = errors.Join(difference, fmt.Errorf("feedback.json has %d rows, the table %d", len(file), n))
	}
	return n, errors.Join(err, difference)
}

// connectUTC opens a session in UTC, the time zone of the times in feedback.json.
func connectUTC(ctx context.Context, url string) (*pgx.Conn, error) {
	cfg, err := pgx.ParseConfig(url)
	if err != nil {
		return nil, err
	}
	cfg.RuntimeParams["timezone"] = "UTC"
	return pgx.ConnectConfig(ctx, cfg)
}
