package capture

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/minio/minio-go/v7"
	"github.com/prometheus/client_golang/prometheus"

	"capture/internal/busy"
	"capture/internal/faultproxy"
	"capture/internal/filetest"
	"capture/internal/pgserver"
)

// table creates the table of votes with this number of rows.
func table(t testing.TB, conn *pgx.Conn, rows int) {
	t.Helper()
	exec(t, conn, votes)
	if rows > 0 {
		exec(t, conn, "INSERT INTO votes (user_query, bot_response) SELECT 'question ' || i, repeat(md5(i::text), 8) FROM generate_series(1, $1::int) i", rows)
	}
}

// proxied returns a proxy in front of a server.
func proxied(t testing.TB, s *pgserver.Server) *faultproxy.Proxy {
	t.Helper()
	return proxiedAddr(t, s.Addr())
}

// proxiedAddr returns a proxy in front of an address.
func proxiedAddr(t testing.TB, addr string) *faultproxy.Proxy {
	t.Helper()
	p, err := faultproxy.New(addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.Close)
	return p
}

// notReady waits until the daemon is not ready and its failing checks have these words.
func (d *daemon) notReady(words ...string) {
	d.t.Helper()
	eventually(d.t, "not ready", func() error {
		s := d.Status()
		if s.Ready {
			return fmt.Errorf("ready")
		}
		return failing(s.Checks, words...)
	})
}

// failing returns nil if the names and details of the failing checks contain all of the words, and otherwise an error. It
// ignores case.
func failing(checks []Check, words ...string) error {
	var text strings.Builder
	for _, c := range checks {
		if !c.OK {
			fmt.Fprintf(&text, "%s: %s\n", c.Name, c.Detail)
		}
	}
	for _, w := range words {
		if !strings.Contains(strings.ToLower(text.String()), strings.ToLower(w)) {
			return fmt.Errorf("%q is not in: %s", w, text.String())
		}
	}
	return nil
}

// waitStreamed calls the given functions, each of which must run one transaction that changes the table. Then it waits
// until the file has the newest state, without a forced flush. The source must be logical, because only the stream makes one
// state of each transaction. A forced flush takes more processor time, because it also reads the table's definition from the
// catalog.
func (d *daemon) waitStreamed(transactions ...func()) {
	d.t.Helper()
	before := d.table.View().Version()
	for _, run := range transactions {
		run()
	}
	eventually(d.t, "the transactions are in the file", func() error {
		if n := d.table.View().Version() - before; n < uint64(len(transactions)) {
			return fmt.Errorf("%d transactions of %d have been applied", n, len(transactions))
		}
		if f := d.Status().File; !f.UpToDate { // the transactions have been applied before this check, so UpToDate includes them
			return fmt.Errorf("the file is %+v", f)
		}
		return nil
	})
}

// wantWithin fails the test if f takes longer than the promised bound. On a busy machine, f may take longer.
func wantWithin(t testing.TB, bound time.Duration, what string, f func()) {
	t.Helper()
	start, limit := time.Now(), busy.Limit(bound)
	f()
	took := time.Since(start)
	if limit = max(limit, busy.Limit(bound)); took > limit {
		t.Errorf("%s took %s, more than %s", what, took, limit)
	}
}

// said returns the number of log lines with this message.
func (d *daemon) said(message string) int {
	return strings.Count(d.log.String(), fmt.Sprintf("%q:%q", "@message", message))
}

// startLoad writes votes over its own connections until the test stops it. Some transactions insert several rows, some
// change or delete rows. A writer pauses after each transaction, because other tests need the processors. The returned
// function ends the writers and returns the number of transactions whose commit was confirmed.
func startLoad(t testing.TB, url string, writers int) (stop func() int) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	var mu sync.Mutex
	committed := 0
	for w := range writers {
		wg.Go(func() {
			conn, err := pgx.Connect(ctx, url)
			if ctx.Err() != nil { // the load was stopped before this writer began
				return
			}
			if err != nil {
				t.Errorf("load: %v", err)
				return
			}
			defer conn.Close(context.Background())
			for i := 0; ctx.Err() == nil; i++ {
				time.Sleep(2 * time.Millisecond)
				sql := "INSERT INTO votes (user_query, comment) SELECT 'load', md5(i::text) FROM generate_series(1, 3) i"
				switch i % 4 {
				case 1:
					sql = fmt.Sprintf("UPDATE votes SET comment = comment || 'x' WHERE vote_id %% 97 = %d", (i+w)%97)
				case 3:
					sql = fmt.Sprintf("DELETE FROM votes WHERE user_query = 'load' AND vote_id %% 89 = %d", (i+w)%89)
				}
				if _, err := conn.Exec(context.Background(), sql); err != nil {
					if !strings.Contains(err.Error(), "deadlock") {
						return // the server went away; many tests stop it on purpose
					}
					continue
				}
				mu.Lock()
				committed++
				mu.Unlock()
			}
		})
	}
	return sync.OnceValue(func() int {
		cancel()
		wg.Wait()
		return committed
	})
}

// fileRows returns the rows of the file, and fails the test if the file is not complete.
func (d *daemon) fileRows() []string {
	d.t.Helper()
	b, err := os.ReadFile(d.path)
	if err != nil {
		d.t.Fatal(err)
	}
	rows, err := filetest.Rows(b)
	if err != nil {
		d.t.Fatal(err)
	}
	return rows
}

// queryOne returns the single value that a query returns.
func queryOne[T any](t testing.TB, conn *pgx.Conn, sql string, args ...any) (v T) {
	t.Helper()
	if err := conn.QueryRow(t.Context(), sql, args...).Scan(&v); err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
	return v
}

// replace overwrites an object in a bucket.
func replace(t testing.TB, client *minio.Client, bucket, name string, data []byte) {
	t.Helper()
	if _, err := client.PutObject(t.Context(), bucket, name, bytes.NewReader(data), int64(len(data)), minio.PutObjectOptions{}); err != nil {
		t.Fatal(err)
	}
}

// watchFile reads a file as any program would, until done is closed. It calls check with the rows of each version that it sees.
// It returns an error if a version is not complete, if check returns an error, or if the file disappears.
func watchFile(path string, done <-chan struct{}, check func(rows []string) error) error {
	var last os.FileInfo
	for pause := time.Millisecond; ; {
		select {
		case <-done:
			return nil
		case <-time.After(pause): // twice the duration of the last check, which leaves two thirds of the CPU time to others
		}
		began := time.Now()
		info, err := os.Stat(path)
		if last == nil && errors.Is(err, os.ErrNotExist) {
			continue
		}
		if err != nil {
			return err
		}
		if last != nil && os.SameFile(info, last) && info.Size() == last.Size() && info.ModTime().Equal(last.ModTime()) {
			continue
		}
		last = info
		b, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		rows, err := filetest.Rows(b)
		if err != nil {
			return err
		}
		if err := check(rows); err != nil {
			return err
		}
		pause = max(time.Millisecond, 2*time.Since(began))
	}
}

// counter returns the value of a counter without labels.
func counter(t testing.TB, registry *prometheus.Registry, name string) int64 {
	t.Helper()
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		if f.GetName() == name {
			return int64(f.GetMetric()[0].GetCounter().GetValue())
		}
	}
	t.Fatal("no " + name)
	return 0
}
