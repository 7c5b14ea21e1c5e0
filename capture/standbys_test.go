package capture

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"capture/internal/pgserver"
)

// onDemand starts a server at wal_level = replica that enables logical decoding with its first slot, as PostgreSQL 19 does.
func onDemand(t *testing.T) *pgserver.Server {
	t.Helper()
	s := pgserver.ForTest(t, pgserver.Options{Settings: map[string]string{"wal_level": "replica"}})
	if s.VersionNum() < 190000 {
		t.Skip("before PostgreSQL 19, wal_level = replica allows no logical slot")
	}
	return s
}

// TestLogicalAtReplica: PostgreSQL 19 needs no setting for logical replication. The server disables logical decoding after
// capture has stopped.
func TestLogicalAtReplica(t *testing.T) {
	t.Parallel()
	s := onDemand(t)
	conn := connect(t, s.URL("postgres"))
	exec(t, conn, votes)
	exec(t, conn, "INSERT INTO votes (comment) VALUES ('before')")
	cfg := config(t, s.URL("postgres"))
	cfg.Source = "auto"
	d := start(t, cfg)
	d.waitFollowedBy("logical", "")
	exec(t, conn, "INSERT INTO votes (comment) VALUES ('a')")
	d.follows(conn, "votes", "vote_id")
	for range 3 { // in each round, the server disables and enables decoding again
		exec(t, conn, "SELECT pg_terminate_backend(pid) FROM pg_stat_replication")
		exec(t, conn, "UPDATE votes SET comment = comment || 'b'")
		d.follows(conn, "votes", "vote_id")
	}
	if err := d.stop(); err != nil {
		t.Fatal(err)
	}
	eventually(t, "logical decoding ends", func() error {
		if level := queryOne[string](t, conn, "SHOW effective_wal_level"); level != "replica" {
			return fmt.Errorf("effective_wal_level is %s", level)
		}
		return nil
	})
}

// TestStandbyAtReplica: if the server decodes only while it has a logical slot, dropping capture's slot may switch decoding
// off. The logical slots on a standby then become invalid. Therefore, --source auto does not start logical replication while a
// standby is connected. --source logical starts it nevertheless, and the status reports that the standby's slots become
// invalid.
func TestStandbyAtReplica(t *testing.T) {
	t.Parallel()
	s := onDemand(t)
	conn := connect(t, s.URL("postgres"))
	exec(t, conn, votes)
	cfg := asRole(t, conn, s.URL("postgres"), "capture_test_standby") // this role sees only few columns of the standby in pg_stat_replication
	exec(t, conn, "ALTER ROLE capture_test_standby REPLICATION")
	setUp(t, conn, "logical")
	cfg.Source, cfg.PollInterval, cfg.intervals.probe = "auto", 20*time.Millisecond, 50*time.Millisecond
	d := start(t, cfg)
	d.waitFollowedBy("logical", "")

	standby, err := s.Standby(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(standby.Close)
	eventually(t, "a condition about the standby", func() error {
		if st := d.Status(); st.Source != "logical" || !strings.Contains(fmt.Sprint(st.Checks), "become invalid") {
			return fmt.Errorf("%s: %+v", st.Source, st.Checks)
		}
		return nil
	})
	exec(t, conn, "SELECT pg_terminate_backend(pid) FROM pg_stat_replication WHERE application_name = 'capture'")
	d.waitFollowedBy("poll", "a standby is connected")
	exec(t, conn, "INSERT INTO votes (comment) VALUES ('polled')")
	d.follows(conn, "votes", "vote_id")
	standby.Close()
	d.waitFollowedBy("logical", "")
	exec(t, conn, "INSERT INTO votes (comment) VALUES ('streamed')")
	d.follows(conn, "votes", "vote_id")
	if err := d.stop(); err != nil {
		t.Fatal(err)
	}

	if standby, err = s.Standby(t.Context()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(standby.Close)
	cfg.Source = "logical"
	d = start(t, cfg)
	d.ready()
	if st := d.Status(); st.Source != "logical" || !strings.Contains(fmt.Sprint(st.Checks), "become invalid") {
		t.Errorf("%s: %+v", st.Source, st.Checks)
	}
}
