package capture

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/jackc/pgx/v5"

	"capture/capture/logical"
	"capture/capture/source"
	"capture/internal/pgserver"
)

// TestAutoPublishesOnlyWhatItFollows: capture runs as the table's owner, who may create the publication. While the owner may
// not replicate, and while all slots are in use, capture polls and creates no publication, because it could not use one. As
// soon as capture can create a slot, it creates the publication, logs that, and follows.
func TestAutoPublishesOnlyWhatItFollows(t *testing.T) {
	t.Parallel()
	s := pgserver.ForTest(t, pgserver.Options{Settings: map[string]string{"max_replication_slots": "1"}})
	url := s.URL("postgres")
	conn := connect(t, url)
	exec(t, conn, votes)
	cfg := asRole(t, conn, url, "capture_test_publishes")
	exec(t, conn, "ALTER TABLE votes OWNER TO capture_test_publishes; GRANT CREATE ON DATABASE postgres TO capture_test_publishes")
	cfg.Source, cfg.PollInterval, cfg.intervals.probe = "auto", 20*time.Millisecond, 20*time.Millisecond
	d := start(t, cfg)
	wantPolling := func(reason string) {
		t.Helper()
		d.waitFollowedBy("poll", reason)
		exec(t, conn, "INSERT INTO votes (comment) VALUES ($1)", reason)
		d.follows(conn, "votes", "vote_id")
		before := d.said("source still unavailable")
		eventually(t, "more probes", func() error {
			if n := d.said("source still unavailable") - before; n < 3 {
				return fmt.Errorf("%d", n)
			}
			return nil
		})
		if n := queryOne[int](t, conn, "SELECT count(*)::int FROM pg_publication"); n != 0 || d.said("publication created") != 0 {
			t.Errorf("%s: %d publications that nobody follows", reason, n)
		}
	}
	wantPolling("may not replicate")
	exec(t, conn, "SELECT pg_create_physical_replication_slot('taken')")
	exec(t, conn, "ALTER ROLE capture_test_publishes REPLICATION")
	if err := d.stop(); err != nil {
		t.Fatal(err)
	}
	d = start(t, cfg)
	wantPolling("all replication slots are in use")
	exec(t, conn, "SELECT pg_drop_replication_slot('taken')")
	d.waitFollowedBy("logical", "")
	exec(t, conn, "INSERT INTO votes (comment) VALUES ('followed')")
	d.follows(conn, "votes", "vote_id")
	if n := d.said("publication created"); n != 1 {
		t.Errorf("%d log lines that a publication was created, want one", n)
	}
}

// votesWithOpenTransaction creates the table of votes, and begins a write transaction in another table. The creation of a
// slot waits for this transaction. The returned function commits the transaction.
func votesWithOpenTransaction(t *testing.T, url string) (conn *pgx.Conn, commit func()) {
	t.Helper()
	conn, other := connect(t, url), connect(t, url)
	exec(t, conn, votes+"; CREATE TABLE other (id int)")
	exec(t, other, "BEGIN; INSERT INTO other VALUES (1)")
	return conn, func() {
		t.Helper()
		exec(t, other, "COMMIT")
	}
}

// TestPublicationIsCreatedDuringOpenTransaction: the slot waits for an open write transaction. capture nevertheless creates
// the publication. It reads the table while the slot waits, and follows the table once the transaction has ended.
func TestPublicationIsCreatedDuringOpenTransaction(t *testing.T) {
	t.Parallel()
	url := pgserver.ForTest(t, pgserver.Options{}).URL("postgres")
	conn, commit := votesWithOpenTransaction(t, url)
	d := start(t, config(t, url))
	eventually(t, "the publication", func() error {
		if n := queryOne[int](t, conn, "SELECT count(*)::int FROM pg_publication"); n == 0 {
			return errors.New("none")
		}
		return nil
	})
	commit()
	d.waitFollowedBy("logical", "")
	exec(t, conn, "INSERT INTO votes (comment) VALUES ('a')")
	d.follows(conn, "votes", "vote_id")
}

// TestNoSlotWithoutPublication: the table's owner may replicate, but may create no publication. capture tries again and again,
// and creates no slot, because a slot would wait for the open transaction. It follows once it may create the publication.
func TestNoSlotWithoutPublication(t *testing.T) {
	t.Parallel()
	url := pgserver.ForTest(t, pgserver.Options{}).URL("postgres")
	conn, commit := votesWithOpenTransaction(t, url)
	cfg := asRole(t, conn, url, "capture_test_no_create")
	exec(t, conn, "ALTER TABLE votes OWNER TO capture_test_no_create; ALTER ROLE capture_test_no_create REPLICATION")
	cfg.retry = 100 * time.Millisecond
	d := start(t, cfg)
	eventually(t, "some attempts", func() error {
		if n := queryOne[int](t, conn, "SELECT count(*)::int FROM pg_replication_slots"); n > 0 {
			t.Fatal("there is a slot")
		}
		if st := d.Status(); st.Attempts < 5 || !strings.Contains(st.Error, `GRANT CREATE ON DATABASE "postgres" TO "capture_test_no_create"`) {
			return fmt.Errorf("%d: %s", st.Attempts, st.Error)
		}
		return nil
	})
	commit()
	exec(t, conn, "GRANT CREATE ON DATABASE postgres TO capture_test_no_create")
	d.waitFollowedBy("logical", "")
	exec(t, conn, "INSERT INTO votes (comment) VALUES ('a')")
	d.follows(conn, "votes", "vote_id")
}

// TestProbeConnectsOnce: a probe tests whether a slot can be created, and an open transaction keeps the slot waiting. The
// probe then creates the publication without a second connection for replication.
func TestProbeConnectsOnce(t *testing.T) {
	t.Parallel()
	url := pgserver.ForTest(t, pgserver.Options{}).URL("postgres")
	conn, _ := votesWithOpenTransaction(t, url)
	cfg := config(t, url)
	var walSenders atomic.Int32
	cfg.Logger = hclog.NewNullLogger()
	dial := cfg.Database.DialFunc
	cfg.Database.DialFunc = func(ctx context.Context, network, addr string) (net.Conn, error) {
		c, err := dial(ctx, network, addr)
		return &startupConn{c, &walSenders}, err
	}
	if err := logical.Probe(t.Context(), cfg.env("logical", source.NewProgress("logical", nil))); err != nil {
		t.Fatal(err)
	}
	if n := walSenders.Load(); n != 1 {
		t.Errorf("%d connections for replication", n)
	}
	if n := queryOne[int](t, conn, "SELECT count(*)::int FROM pg_publication"); n != 1 {
		t.Errorf("%d publications", n)
	}
}

// startupConn counts startup messages that ask for replication.
type startupConn struct {
	net.Conn
	count *atomic.Int32
}

func (c *startupConn) Write(b []byte) (int, error) {
	if bytes.Contains(b, []byte("\x00replication\x00database\x00")) {
		c.count.Add(1)
	}
	return c.Conn.Write(b)
}
