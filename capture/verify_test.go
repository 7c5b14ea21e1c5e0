package capture

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/prometheus/client_golang/prometheus"

	"capture/internal/pgserver"
	"capture/internal/postgres"
	"capture/internal/verify"
	"capture/snapshot"
)

// TestDifferencesAreRepaired: if the regular comparison finds a difference, capture logs it and copies the table again. The
// next comparison finds no difference and ends the condition "difference".
func TestDifferencesAreRepaired(t *testing.T) {
	t.Parallel()
	url := pgserver.Database(t)
	conn := connect(t, url)
	exec(t, conn, votes)
	exec(t, conn, "INSERT INTO votes (user_query) SELECT generate_series(1, 10)")
	cfg := config(t, url)
	registry := prometheus.NewRegistry()
	cfg.Registry = registry
	var differs atomic.Bool
	cfg.VerifyInterval = 20 * time.Millisecond
	cfg.Compare = func(ctx context.Context, _ *pgx.ConnConfig, _ int64, state func(context.Context) (*snapshot.View, error)) (int64, []string, error) {
		v, err := state(ctx)
		if err != nil || v.Rows() == 10 && !differs.Load() {
			return 0, nil, err
		}
		differs.Store(false)
		return 1, []string{"7"}, nil
	}
	d := start(t, cfg)
	d.ready()
	differs.Store(true)
	eventually(t, "a new copy", func() error {
		if log := d.log.String(); strings.Count(log, `"@message":"copied"`) < 2 || !strings.Contains(log, "rows differ from the table") {
			return fmt.Errorf("not yet")
		}
		return nil
	})
	d.ready()
	d.flushAndCompare(conn, "votes", "vote_id")
	eventually(t, "the condition ends", func() error {
		for _, c := range d.Status().Checks {
			if c.Name == "difference" {
				return fmt.Errorf("%+v", c)
			}
		}
		return nil
	})
	if n := counter(t, registry, "capture_differences_total"); n != 1 {
		t.Errorf("%d differences are counted, want 1", n)
	}
}

// TestComparisonUsesRotatedPassword: the password and the password file change while the source follows over its open
// connections. The next comparison opens new connections, and succeeds with the new password.
func TestComparisonUsesRotatedPassword(t *testing.T) {
	t.Parallel()
	s := pgserver.ForTest(t, pgserver.Options{Settings: map[string]string{"password_encryption": "scram-sha-256"}})
	conn := connect(t, s.URL("postgres"))
	table(t, conn, 10)
	exec(t, conn, "CREATE ROLE follower LOGIN REPLICATION PASSWORD 'first'; GRANT SELECT ON votes TO follower; CREATE PUBLICATION capture_votes FOR TABLE votes")
	if err := s.WriteFile("pg_hba.conf", []byte("host all postgres all trust\nhost all follower all scram-sha-256\n")); err != nil {
		t.Fatal(err)
	}
	if err := s.Reload(t.Context(), nil); err != nil {
		t.Fatal(err)
	}
	passfile := filepath.Join(t.TempDir(), "pgpass")
	write := func(password string) {
		t.Helper()
		if err := os.WriteFile(passfile, []byte("*:*:*:follower:"+password+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("first")
	url := strings.Replace(s.URL("postgres"), "postgres@", "follower@", 1)
	url += map[bool]string{true: "&", false: "?"}[strings.Contains(url, "?")] + "passfile=" + passfile
	cfg := config(t, url)
	cfg.ReloadDatabase = func() (*pgx.ConnConfig, error) { return postgres.ParseConfig(url) }
	cfg.VerifyInterval = 50 * time.Millisecond
	var compared atomic.Int64
	cfg.Compare = func(ctx context.Context, database *pgx.ConnConfig, _ int64, newestView func(context.Context) (*snapshot.View, error)) (int64, []string, error) {
		found, err := verify.Compare(ctx, verify.Comparison{Database: database, Table: cfg.Table, Live: true,
			State: func(ctx context.Context, _ *postgres.Table) (iter.Seq2[snapshot.Row, error], error) {
				v, err := newestView(ctx)
				if err != nil {
					return nil, err
				}
				return v.From(nil), nil
			}})
		if err == nil && found.Empty() && found.TableRows == 10 {
			compared.Add(1)
		}
		return 0, nil, err
	}
	d := start(t, cfg)
	d.ready()
	succeeds := func(what string) {
		t.Helper()
		before := compared.Load()
		eventually(t, what, func() error {
			if compared.Load() == before {
				return errors.New(d.log.String())
			}
			return nil
		})
	}
	succeeds("a comparison with the first password")
	since := d.Status().Checks[0].Detail
	exec(t, conn, "ALTER ROLE follower PASSWORD 'second'")
	eventually(t, "a comparison fails with the first password", func() error {
		if d.said("cannot compare the rows with the table") == 0 {
			return errors.New("it does not")
		}
		return nil
	})
	write("second")
	succeeds("a comparison with the second password")
	if now := d.Status().Checks[0].Detail; now != since {
		t.Errorf("the source was restarted: %q, before %q", now, since)
	}
}
