package postgres

import (
	"context"
	"encoding/binary"
	"io"
	"net"
	"strconv"
	"testing"

	"github.com/jackc/pgx/v5"
)

// startPooler starts a proxy that forwards connections to the server at address. Like a pooler, the proxy gives clients a
// process ID that differs from the server's. startPooler returns the proxy's address.
func startPooler(t *testing.T, address string) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			client, err := l.Accept()
			if err != nil {
				return
			}
			server, err := net.Dial("tcp", address)
			if err != nil {
				client.Close()
				return
			}
			go func() { defer server.Close(); io.Copy(server, client) }()
			go func() { defer client.Close(); passMessages(client, server) }()
		}
	}()
	return l.Addr().String()
}

func passMessages(client io.Writer, server io.Reader) {
	for {
		head := make([]byte, 5)
		if _, err := io.ReadFull(server, head); err != nil {
			return
		}
		body := make([]byte, binary.BigEndian.Uint32(head[1:])-4)
		if _, err := io.ReadFull(server, body); err != nil {
			return
		}
		if head[0] == 'K' { // BackendKeyData
			binary.BigEndian.PutUint32(body, 1<<30)
		}
		if _, err := client.Write(append(head, body...)); err != nil {
			return
		}
	}
}

func TestPoolerSessionKeepsNoSettings(t *testing.T) {
	t.Parallel()
	conn, url := database(t, votesSQL, `INSERT INTO votes (comment) VALUES ('x')`)
	run(t, conn, "ALTER DATABASE "+QuoteIdentifier(currentDatabase(t, url))+" SET TimeZone = 'Asia/Kolkata'")
	cfg, err := pgx.ParseConfig(url)
	if err != nil {
		t.Fatal(err)
	}
	pooled := connectTo(t, "postgres://"+cfg.User+"@"+startPooler(t, net.JoinHostPort(cfg.Host, strconv.Itoa(int(cfg.Port))))+"/"+cfg.Database+"?sslmode=disable")
	if !Pooled(pooled) || Pooled(conn) {
		t.Errorf("pooled: %v, direct: %v", Pooled(pooled), Pooled(conn))
	}
	table := loadTable(t, pooled, "votes")
	zone := func(q Querier) (zone string, prepared int) {
		t.Helper()
		if err := q.QueryRow(testContext(t), "SELECT current_setting('TimeZone'), (SELECT count(*) FROM pg_prepared_statements)").Scan(&zone, &prepared); err != nil {
			t.Fatal(err)
		}
		return zone, prepared
	}
	tx, err := Begin(testContext(t), pooled, "READ ONLY")
	if err != nil {
		t.Fatal(err)
	}
	if got, _ := zone(tx); got != "UTC" {
		t.Errorf("within the transaction TimeZone is %s", got)
	}
	if same, err := LoadTable(testContext(t), tx, table.Name()); err != nil || same.Fingerprint != table.Fingerprint {
		t.Errorf("another fingerprint in the transaction, %v", err)
	}
	if err := tx.Commit(context.Background()); err != nil {
		t.Fatal(err)
	}
	if got, prepared := zone(pooled); got != "Asia/Kolkata" || prepared != 0 {
		t.Errorf("afterwards TimeZone is %s and %d statements are prepared", got, prepared)
	}
}
