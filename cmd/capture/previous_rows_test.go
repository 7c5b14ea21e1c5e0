package main

import (
	"encoding/json"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"capture/capture"
	"capture/internal/busy"
	"capture/internal/faultproxy"
	"capture/internal/pgserver"
)

// TestRowsOfAnEarlierRun starts capture while the database is unreachable. capture serves the rows in the file until it
// connects. After that, it serves the rows of the table.
func TestRowsOfAnEarlierRun(t *testing.T) {
	if testing.Short() {
		t.Skip("waits for a reconnect")
	}
	t.Parallel()
	server := pgserver.Shared(t)
	url := votesDatabase(t, 2000) // about 300 kB of rows
	proxy, err := faultproxy.New(server.Addr())
	if err != nil {
		t.Fatal(err)
	}
	defer proxy.Close()
	url = strings.Replace(url, server.Addr(), proxy.Addr(), 1)
	first := start(t, url)
	first.ready()
	first.signal(syscall.SIGTERM)
	first.wait(stopTimeout)
	before, err := os.ReadFile(first.path)
	if err != nil {
		t.Fatal(err)
	}

	proxy.Refuse()
	d := startIn(t, first.dir, []string{"DATABASE_URL=" + url}, "run", "--listen=127.0.0.1:0")
	s := d.status(func(s capture.Status) bool { return s.Rows == 2000 })
	if s.Ready || s.File.UpToDate || s.State == "following" {
		t.Errorf("without a database: %+v", s)
	}
	look := func() (rows int, newest, shape string) {
		body, code := get(t, "http://"+d.address()+"/api/votes?limit=1")
		var page struct {
			Rows []struct {
				Key string
				Row json.RawMessage
			}
		}
		if err := json.Unmarshal(body, &page); err != nil || code != 200 || len(page.Rows) != 1 {
			t.Fatalf("%d %.200s: %v", code, body, err)
		}
		body, code = get(t, "http://"+d.address()+"/api/summary")
		var sum struct {
			Rows    int
			Columns []struct{ Name, Role string }
		}
		if err := json.Unmarshal(body, &sum); err != nil || code != 200 {
			t.Fatalf("%d %.200s: %v", code, body, err)
		}
		for _, c := range sum.Columns {
			shape += c.Name + " " + c.Role + ","
		}
		return sum.Rows, page.Rows[0].Key, shape
	}
	rows, newest, was := look()
	if rows != 2000 || newest != "2000" {
		t.Errorf("%d rows, the newest %s", rows, newest)
	}
	if now, err := os.ReadFile(d.path); err != nil || string(now) != string(before) {
		t.Errorf("the file was touched: %v", err)
	}

	sql(t, strings.Replace(url, proxy.Addr(), server.Addr(), 1), `INSERT INTO votes (user_query) VALUES ('after')`)
	if err := proxy.Accept(); err != nil {
		t.Fatal(err)
	}
	d.ready()
	deadline := time.Now().Add(busy.Limit(20 * time.Second))
	for {
		rows, newest, shape := look()
		if rows == 2001 && newest == "2001" {
			if shape != was {
				t.Errorf("the columns are %s, and were %s", shape, was)
			}
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("%d rows, the newest %s", rows, newest)
		}
		time.Sleep(10 * time.Millisecond)
	}
	d.signal(syscall.SIGTERM)
	if code := d.wait(stopTimeout); code != exitDone {
		t.Errorf("exit code %d", code)
	}
}
