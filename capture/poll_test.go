package capture

import (
	"errors"
	"strings"
	"testing"
	"time"

	"capture/internal/pgserver"
)

// TestPollOnStandby follows a standby, from which only reading is allowed.
func TestPollOnStandby(t *testing.T) {
	t.Parallel()
	s := pgserver.ForTest(t, pgserver.Options{})
	conn := connect(t, s.URL("postgres"))
	exec(t, conn, votes)
	standby, err := s.Standby(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(standby.Close)
	cfg := config(t, standby.URL("postgres"))
	cfg.Source, cfg.PollInterval = "auto", 20*time.Millisecond
	d := start(t, cfg)
	d.ready()
	for _, sql := range []string{
		"INSERT INTO votes (comment) VALUES ('a'), ('b')", "UPDATE votes SET comment = 'c'", "BEGIN; DELETE FROM votes; ROLLBACK",
		"ALTER TABLE votes ADD extra int DEFAULT 3", "TRUNCATE votes",
	} {
		exec(t, conn, sql)
		d.follows(conn, "votes", "vote_id")
	}
	if st := d.Status(); st.Source != "poll" || st.SourceNote == "" {
		t.Errorf("followed by %s (%s)", st.Source, st.SourceNote)
	}
}

// TestPollNeverGoesBack: the address leads to a standby that is behind what the file holds, as one that crashed may be for
// a while. The file stays as it is until the standby has caught up, and health says why.
func TestPollNeverGoesBack(t *testing.T) {
	t.Parallel()
	s := pgserver.ForTest(t, pgserver.Options{})
	conn := connect(t, s.URL("postgres"))
	exec(t, conn, votes)
	exec(t, conn, "INSERT INTO votes (comment) VALUES ('first')")
	standby, err := s.Standby(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(standby.Close)
	behind := connect(t, standby.URL("postgres"))
	exec(t, behind, "SELECT pg_wal_replay_pause()")
	eventually(t, "the standby has paused", func() error {
		if !one[bool](t, behind, "SELECT pg_is_wal_replay_paused()") {
			return errors.New("not yet")
		}
		return nil
	})
	exec(t, conn, "INSERT INTO votes (comment) VALUES ('second')")

	p := proxied(t, s)
	cfg := config(t, p.URL("postgres"))
	cfg.Source, cfg.PollInterval = "poll", 20*time.Millisecond
	d := start(t, cfg)
	d.ready()
	d.follows(conn, "votes", "vote_id")
	p.Target(standby.Addr())
	p.Cut()
	d.notReady("the standby has replayed WAL up to", "older than the file")
	if !strings.Contains(strings.Join(d.content(), ""), "second") {
		t.Error("the file went back to an older state")
	}
	exec(t, behind, "SELECT pg_wal_replay_resume()")
	d.ready()
	exec(t, conn, "INSERT INTO votes (comment) VALUES ('third')")
	d.follows(conn, "votes", "vote_id")
}
