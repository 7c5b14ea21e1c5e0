package capture

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"capture/internal/pgserver"
	"capture/snapshot"
	"capture/store"
)

// TestVerifyMends: what the regular comparison finds is said, counted and mended by a fresh copy.
func TestVerifyMends(t *testing.T) {
	url := pgserver.Database(t)
	conn := connect(t, url)
	exec(t, conn, votes)
	exec(t, conn, "INSERT INTO votes (user_query) SELECT generate_series(1, 10)")
	cfg := config(t, url)
	var differs atomic.Bool
	cfg.VerifyInterval = 20 * time.Millisecond
	cfg.Compare = func(ctx context.Context, _ *pgx.ConnConfig, state func(context.Context) (*snapshot.View, error)) (int64, []string, error) {
		v, err := state(ctx)
		if err != nil || v.Rows() == 10 && !differs.Load() {
			return 0, nil, err
		}
		differs.Store(false)
		return 1, []string{"7"}, nil
	}
	d := start(t, cfg)
	d.ready()
	// Damage the rows in memory, behind the daemon's back.
	differs.Store(true)
	eventually(t, "copied anew", func() error {
		if log := d.log.String(); strings.Count(log, `"@message":"copied"`) < 2 || !strings.Contains(log, "differs from the table") {
			return fmt.Errorf("not yet")
		}
		return nil
	})
	d.ready()
	d.equal(conn, "votes", "vote_id")
	eventually(t, "the difference is forgotten", func() error {
		for _, c := range d.Status().Checks {
			if c.Name == "difference" {
				return fmt.Errorf("%+v", c)
			}
		}
		return nil
	})
}

// TestGenerations: each regular write leaves a generation, as many as are asked for.
func TestGenerations(t *testing.T) {
	url := pgserver.Database(t)
	conn := connect(t, url)
	exec(t, conn, votes)
	cfg := config(t, url)
	cfg.FlushInterval, cfg.Generations = time.Second, store.Retention{Count: 2}
	d := start(t, cfg)
	d.ready()
	exec(t, conn, "INSERT INTO votes (user_query) VALUES ('kept')")
	eventually(t, "a generation", func() error {
		found, err := filepath.Glob(filepath.Join(filepath.Dir(d.path), "feedback-*.json.gz"))
		if err != nil || len(found) == 0 {
			return fmt.Errorf("%v, %v", found, err)
		}
		return nil
	})
	if _, err := os.Stat(d.path); err != nil {
		t.Fatal(err)
	}
}
