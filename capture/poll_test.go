package capture

import (
	"testing"
	"time"

	"capture/internal/pgserver"
)

// TestPollOnStandby: a standby allows only reads, so --source auto chooses polling. The file then follows the standby's
// table.
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
