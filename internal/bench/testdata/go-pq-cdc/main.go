// Command go-pq-cdc follows a table with the package of the same name, for BenchmarkStream and BenchmarkReconnect. It drains a
// pgoutput slot, encodes every inserted or updated row as JSON, discards the JSON, and prints the number of rows and
// characters. It ends after ROWS rows, because the package does not report the LSN of a message.
//
//	go-pq-cdc URL SLOT PUBLICATION LSN ROWS
package main

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"log"
	"log/slog"
	"os"
	"strconv"

	cdc "github.com/Trendyol/go-pq-cdc"
	"github.com/Trendyol/go-pq-cdc/config"
	"github.com/Trendyol/go-pq-cdc/pq/message/format"
	"github.com/Trendyol/go-pq-cdc/pq/publication"
	"github.com/Trendyol/go-pq-cdc/pq/replication"
	"github.com/Trendyol/go-pq-cdc/pq/slot"
	"github.com/jackc/pgx/v5/pgconn"
)

// batch is the number of rows that are acknowledged at once. Acknowledging each row would be slower.
const batch = 1000

func main() {
	if err := run(os.Args[1:]); err != nil {
		log.Fatal(err)
	}
}

func run(args []string) error {
	if len(args) != 5 {
		return fmt.Errorf("usage: go-pq-cdc URL SLOT PUBLICATION LSN ROWS")
	}
	server, err := pgconn.ParseConfig(args[0])
	if err != nil {
		return err
	}
	all, err := strconv.Atoi(args[4])
	if err != nil {
		return err
	}
	out := os.Stdout
	os.Stdout = os.Stderr // the package prints its own messages to os.Stdout
	cfg := config.Config{ // go-pq-cdc refuses an empty password, even if the server asks for no password
		Host: server.Host, Port: int(server.Port), Username: server.User, Password: cmp.Or(server.Password, "none"), Database: server.Database,
		Publication: publication.Config{Name: args[2]},
		Slot:        slot.Config{Name: args[1], SlotActivityCheckerInterval: 3000},
		Metric:      config.MetricConfig{Port: 18099},
		Logger:      config.LoggerConfig{LogLevel: slog.LevelError},
	}
	rows, characters := 0, 0
	done := make(chan error, 1)
	connector, err := cdc.NewConnector(context.Background(), cfg, func(c *replication.ListenerContext) {
		var row map[string]any
		switch m := c.Message.(type) {
		case *format.Insert:
			row = m.Decoded
		case *format.Update:
			row = m.NewDecoded
		default:
			return
		}
		line, err := json.Marshal(row)
		if rows++; err == nil && rows%batch == 0 {
			err = c.Ack()
		}
		if characters += len(line); err != nil || rows == all {
			done <- err
		}
	})
	if err != nil {
		return err
	}
	go connector.Start(context.Background())
	if err := <-done; err != nil {
		return err
	}
	fmt.Fprintln(out, rows, characters)
	return nil
}
