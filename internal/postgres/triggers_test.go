package postgres

import (
	"slices"
	"sort"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"
)

// listener receives the notifications of a table's triggers.
type listener struct {
	t     *testing.T
	conn  *pgx.Conn
	table *Table
}

func listen(t *testing.T, url string, table *Table) *listener {
	conn := connectTo(t, url)
	run(t, conn, "LISTEN "+QuoteIdentifier(table.Channel()))
	return &listener{t, conn, table}
}

// receiveKeys returns the keys of all notifications since the previous call, sorted and without duplicates. The key "*" stands
// for a notification that asks for a read of the whole table. To find the end of the notifications, receiveKeys sends a
// notification of its own over the given connection, and returns when this notification arrives.
func (l *listener) receiveKeys(writer *pgx.Conn) []string {
	l.t.Helper()
	run(l.t, writer, "NOTIFY "+QuoteIdentifier(l.table.Channel())+", '[[\"end\"]]'")
	var all []string
	for {
		n, err := l.conn.WaitForNotification(testContext(l.t))
		if err != nil {
			l.t.Fatal(err)
		}
		if len(n.Payload) >= 8000 {
			l.t.Errorf("a payload of %d bytes", len(n.Payload))
		}
		keys, whole, err := ParseNotification(n.Payload)
		if err != nil {
			l.t.Fatal(err)
		}
		if whole {
			all = append(all, "*")
		}
		for _, k := range keys {
			if k[0] == "end" {
				sort.Strings(all)
				return slices.Compact(all)
			}
			all = append(all, strings.Join(k, "|"))
		}
	}
}

func (l *listener) want(writer *pgx.Conn, statement string, keys ...string) {
	l.t.Helper()
	run(l.t, writer, statement)
	if got := l.receiveKeys(writer); !slices.Equal(got, keys) {
		if len(got) > 10 {
			got = got[:10]
		}
		l.t.Errorf("%s: received %q, want %q", statement, got, keys)
	}
}

func TestTriggersNotifyChangedKeys(t *testing.T) {
	t.Parallel()
	conn, url := database(t, votesSQL)
	setup(t, conn, "votes", SetupOptions{Source: "notify"})
	table := loadTable(t, conn, "votes")
	if err := CheckTriggers(testContext(t), conn, table); err != nil {
		t.Error(err)
	}
	l := listen(t, url, table)
	l.want(conn, "INSERT INTO votes (comment) VALUES ('a'), ('b')", "1", "2")
	l.want(conn, "UPDATE votes SET comment = 'c' WHERE vote_id = 1", "1")
	l.want(conn, "UPDATE votes SET vote_id = 7 WHERE vote_id = 2", "2", "7")
	l.want(conn, "DELETE FROM votes WHERE vote_id > 100")
	l.want(conn, "DELETE FROM votes", "1", "7")
	l.want(conn, "INSERT INTO votes (vote_id) VALUES (9) ON CONFLICT (vote_id) DO UPDATE SET comment = 'x'", "9")
	l.want(conn, "BEGIN; INSERT INTO votes (vote_id) VALUES (10); SAVEPOINT s; INSERT INTO votes (vote_id) VALUES (11); ROLLBACK TO s; COMMIT", "10")
	l.want(conn, "SET session_replication_role = replica; DELETE FROM votes WHERE vote_id = 10; RESET session_replication_role", "10")
	l.want(conn, "TRUNCATE votes", "*")
	l.want(conn, "INSERT INTO votes (vote_id) SELECT generate_series(1, 501)", "*")
	run(t, conn, "UPDATE votes SET comment = 'x' WHERE vote_id <= 500")
	if got := l.receiveKeys(conn); len(got) != 500 {
		t.Errorf("received %d keys of 500", len(got))
	}
	// The application's INSERT must not fail although the trigger function is out of date and uses the old name of the key
	// column.
	l.want(conn, "ALTER TABLE votes RENAME vote_id TO id; INSERT INTO votes (id) VALUES (9999)", "*")
	if err := CheckTriggers(testContext(t), conn, loadTable(t, conn, "votes")); err == nil {
		t.Error("CheckTriggers accepts a function for another key")
	}
	setup(t, conn, "votes", SetupOptions{Source: "notify"})
	l.want(conn, "INSERT INTO votes (id) VALUES (10000)", "10000")
	teardown(t, conn, "votes", "")
	l.want(conn, "INSERT INTO votes (id) VALUES (10001)")
}

func TestTriggersOnOddKeys(t *testing.T) {
	t.Parallel()
	conn, url := database(t, `CREATE TABLE "Odd ""T""" ("a'\ $capture$" timestamptz, b text, c bool, PRIMARY KEY (c, "a'\ $capture$", b))`)
	setup(t, conn, `"Odd ""T"""`, SetupOptions{Source: "notify"})
	l := listen(t, url, loadTable(t, conn, `"Odd ""T"""`))
	run(t, conn, "SET DateStyle = 'German'; SET TimeZone = 'Asia/Kolkata'")
	l.want(conn, `INSERT INTO "Odd ""T""" VALUES ('2024-01-02 03:04:05Z', 'x"\y', true)`, `t|2024-01-02 03:04:05+00|x"\y`)
	l.want(conn, `INSERT INTO "Odd ""T""" VALUES ('2024-01-02 03:04:05Z', repeat('x', 7100), true)`, "*")
	run(t, conn, `INSERT INTO "Odd ""T""" SELECT '2024-01-02 03:04:05Z', repeat('y', 1000) || i, true FROM generate_series(1, 30) i`)
	if got := l.receiveKeys(conn); len(got) != 30 {
		t.Errorf("received %d keys of 30", len(got))
	}
}

func TestTriggersOfPartitions(t *testing.T) {
	t.Parallel()
	conn, url := database(t, "CREATE TABLE p (id int PRIMARY KEY, x int) PARTITION BY RANGE (id)",
		"CREATE TABLE p1 PARTITION OF p FOR VALUES FROM (0) TO (10)")
	setup(t, conn, "p", SetupOptions{Source: "notify"})
	run(t, conn, "CREATE TABLE p2 PARTITION OF p FOR VALUES FROM (10) TO (1000)")
	l := listen(t, url, loadTable(t, conn, "p"))
	l.want(conn, "INSERT INTO p VALUES (1), (11)", "1", "11")
	l.want(conn, "INSERT INTO p2 VALUES (12)", "12")
	l.want(conn, "UPDATE p SET id = 13 WHERE id = 1", "1", "13")
	l.want(conn, "SET session_replication_role = replica; DELETE FROM p2 WHERE id = 13; RESET session_replication_role", "13")
	run(t, conn, "BEGIN; INSERT INTO p SELECT generate_series(100, 900); COMMIT")
	if got := l.receiveKeys(conn); len(got) != 501 || got[0] != "*" {
		t.Errorf("received %d keys, want 500 and *", len(got))
	}
	l.want(conn, "INSERT INTO p VALUES (999)", "999")
	l.want(conn, "TRUNCATE p", "*")
	run(t, conn, "ALTER TABLE p2 DISABLE TRIGGER capture_rows")
	if err := CheckTriggers(testContext(t), conn, loadTable(t, conn, "p")); err == nil {
		t.Error("CheckTriggers accepts a trigger that is disabled on a partition")
	}
	setup(t, conn, "p", SetupOptions{Source: "notify"})
	teardown(t, conn, "p", "")
}

func TestCheckTriggersFindsDefects(t *testing.T) {
	t.Parallel()
	conn, _ := database(t, votesSQL)
	check := func() error { return CheckTriggers(testContext(t), conn, loadTable(t, conn, "votes")) }
	if check() == nil {
		t.Error("no error before setup")
	}
	for _, s := range []string{
		"ALTER TABLE votes DISABLE TRIGGER capture_update", "ALTER TABLE votes ENABLE TRIGGER capture_delete",
		"ALTER TABLE votes ENABLE REPLICA TRIGGER capture_insert", "DROP TRIGGER capture_truncate ON votes", "DROP FUNCTION capture_votes CASCADE",
		"ALTER TABLE votes RENAME TO votes_old; CREATE TABLE votes (LIKE votes_old INCLUDING ALL)",
	} {
		setup(t, conn, "votes", SetupOptions{Source: "notify"})
		if err := check(); err != nil {
			t.Fatal(err)
		}
		run(t, conn, s)
		if check() == nil {
			t.Errorf("no error after %s", s)
		}
	}
	run(t, conn, "DROP FUNCTION capture_votes CASCADE",
		"CREATE FUNCTION capture_votes() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END'")
	_, err := SetupSQL(testContext(t), conn, loadTable(t, conn, "votes"), SetupOptions{Source: "notify"})
	wantProblem(t, err, "capture's")
	teardown(t, conn, "votes", "")
	run(t, conn, "SELECT 'capture_votes()'::regprocedure") // fails if teardown dropped this function, which is not capture's
}
