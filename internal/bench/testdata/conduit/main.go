// Command conduit follows a table with the Postgres connector of Conduit, for BenchmarkStream. It drains a pgoutput slot,
// encodes every row as JSON, discards the JSON, and prints the number of rows and characters. It ends after ROWS rows.
//
//	conduit URL SLOT PUBLICATION LSN ROWS
package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log"
	"os"
	"strconv"

	"github.com/conduitio/conduit-connector-postgres/source/cpool"
	"github.com/conduitio/conduit-connector-postgres/source/logrepl"
)

// batch is the number of rows that are read and acknowledged at once.
const batch = 1000

func main() {
	if err := run(os.Args[1:]); err != nil {
		log.Fatal(err)
	}
}

func run(args []string) error {
	if len(args) != 5 {
		return errors.New("usage: conduit URL SLOT PUBLICATION LSN ROWS")
	}
	all, err := strconv.Atoi(args[4])
	if err != nil {
		return err
	}
	ctx := context.Background()
	pool, err := cpool.New(ctx, args[0])
	if err != nil {
		return err
	}
	changes, err := logrepl.NewCDCIterator(ctx, pool, logrepl.CDCConfig{
		SlotName: args[1], PublicationName: args[2], Tables: []string{"votes"}, TableKeys: map[string]string{"votes": "vote_id"}, BatchSize: batch,
	})
	if err != nil {
		return err
	}
	if err := changes.StartSubscriber(ctx); err != nil {
		return err
	}
	rows, characters := 0, 0
	for rows < all {
		records, err := changes.NextN(ctx, batch)
		if err != nil {
			return err
		}
		for _, r := range records {
			line, err := json.Marshal(r.Payload.After)
			if err != nil {
				return err
			}
			rows, characters = rows+1, characters+len(line)
		}
		if err := changes.Ack(ctx, records[len(records)-1].Position); err != nil {
			return err
		}
	}
	fmt.Println(rows, characters)
	return nil
}
