// Command pgstream follows a table with the listener of pgstream, for BenchmarkStream. It drains a wal2json slot, encodes every
// event as JSON, discards the JSON, and prints the number of rows and characters. It ends after ROWS rows.
//
//	pgstream URL SLOT PUBLICATION LSN ROWS
package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log"
	"os"
	"strconv"

	"github.com/xataio/pgstream/pkg/wal"
	listener "github.com/xataio/pgstream/pkg/wal/listener/postgres"
	"github.com/xataio/pgstream/pkg/wal/replication"
	"github.com/xataio/pgstream/pkg/wal/replication/postgres"
)

// batch is the number of rows that are acknowledged at once.
const batch = 1000

func main() {
	if err := run(os.Args[1:]); err != nil {
		log.Fatal(err)
	}
}

var errDone = errors.New("received all rows")

func run(args []string) error {
	if len(args) != 5 {
		return errors.New("usage: pgstream URL SLOT PUBLICATION LSN ROWS")
	}
	all, err := strconv.Atoi(args[4])
	if err != nil {
		return err
	}
	ctx := context.Background()
	handler, err := postgres.NewHandler(ctx, postgres.Config{PostgresURL: args[0], ReplicationSlotName: args[1]})
	if err != nil {
		return err
	}
	acknowledge := func(at wal.CommitPosition) error {
		lsn, err := handler.GetLSNParser().FromString(string(at))
		if err != nil {
			return err
		}
		return handler.SyncLSN(ctx, replication.LSN(lsn))
	}
	rows, characters := 0, 0
	err = listener.New(handler, func(_ context.Context, e *wal.Event) error {
		if e.Data == nil {
			return acknowledge(e.CommitPosition)
		}
		line, err := json.Marshal(e.Data)
		if err != nil {
			return err
		}
		characters += len(line)
		if rows++; rows == all {
			return errDone
		}
		if rows%batch == 0 {
			return acknowledge(e.CommitPosition)
		}
		return nil
	}).Listen(ctx)
	if !errors.Is(err, errDone) {
		return fmt.Errorf("the stream ended early: %w", err)
	}
	fmt.Println(rows, characters)
	return nil
}
