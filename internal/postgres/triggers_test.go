package postgres

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"sort"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"
)

// listener hears what a table's triggers say.
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

// heard is the keys of all notifications since the last call, in order, "*" among them for a whole read.
func (l *listener) heard(writer *pgx.Conn) []string {
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
	if got := l.heard(writer); !slices.Equal(got, keys) {
		if len(got) > 10 {
			got = got[:10]
		}
		l.t.Errorf("%s: heard %q, want %q", statement, got, keys)
	}
}

// setup applies what SetupSQL says for the source and checks that nothing is left to do.
func setup(t *testing.T, conn *pgx.Conn, name string, o SetupOptions) []string {
	t.Helper()
	table := loadTable(t, conn, name)
	statements, err := SetupSQL(testContext(t), conn, table, o)
	if err != nil {
		t.Fatal(err)
	}
	if err := ApplyStatements(testContext(t), conn, statements); err != nil {
		t.Fatal(err)
	}
	if again, err := SetupSQL(testContext(t), conn, table, o); err != nil || len(again) > 0 {
		t.Errorf("a second setup would run %q, %v", again, err)
	}
	return statements
}

func teardown(t *testing.T, conn *pgx.Conn, name, role string) {
	t.Helper()
	n, err := ParseName(name)
	if err != nil {
		t.Fatal(err)
	}
	statements, err := TeardownSQL(testContext(t), conn, n, role)
	if err != nil {
		t.Fatal(err)
	}
	if err := ApplyStatements(testContext(t), conn, statements); err != nil {
		t.Fatal(err)
	}
	if again, err := TeardownSQL(testContext(t), conn, n, role); err != nil || len(again) > 0 {
		t.Errorf("a second teardown would run %q, %v", again, err)
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
	if got := l.heard(conn); len(got) != 500 {
		t.Errorf("heard %d keys of 500", len(got))
	}
	// A key that the function does not know of must not fail the statement.
	l.want(conn, "ALTER TABLE votes RENAME vote_id TO id; INSERT INTO votes (id) VALUES (9999)", "*")
	if err := CheckTriggers(testContext(t), conn, loadTable(t, conn, "votes")); err == nil {
		t.Error("CheckTriggers is content with a function for another key")
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
	if got := l.heard(conn); len(got) != 30 {
		t.Errorf("heard %d keys of 30", len(got))
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
	if got := l.heard(conn); len(got) != 501 || got[0] != "*" {
		t.Errorf("heard %d keys, want 500 and *", len(got))
	}
	l.want(conn, "INSERT INTO p VALUES (999)", "999")
	l.want(conn, "TRUNCATE p", "*")
	run(t, conn, "ALTER TABLE p2 DISABLE TRIGGER capture_rows")
	if err := CheckTriggers(testContext(t), conn, loadTable(t, conn, "p")); err == nil {
		t.Error("CheckTriggers is content with a trigger that is disabled on a partition")
	}
	setup(t, conn, "p", SetupOptions{Source: "notify"})
	teardown(t, conn, "p", "")
}

func TestCheckTriggersFindsWhatIsWrong(t *testing.T) {
	t.Parallel()
	conn, _ := database(t, votesSQL)
	check := func() error { return CheckTriggers(testContext(t), conn, loadTable(t, conn, "votes")) }
	if check() == nil {
		t.Error("content before setup")
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
			t.Errorf("content after %s", s)
		}
	}
	run(t, conn, "DROP FUNCTION capture_votes CASCADE",
		"CREATE FUNCTION capture_votes() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END'")
	_, err := SetupSQL(testContext(t), conn, loadTable(t, conn, "votes"), SetupOptions{Source: "notify"})
	wantProblem(t, err, "capture's")
	if teardown(t, conn, "votes", ""); err != nil {
		run(t, conn, "SELECT 'capture_votes()'::regprocedure") // somebody else's stays
	}
}

func TestRowsByKeyQuery(t *testing.T) {
	t.Parallel()
	conn, _ := database(t, `CREATE DOMAIN d AS text`,
		`CREATE TABLE t (k1 numeric(10,2), g d, x text, b bytea, bp char(4), "from" timestamptz, PRIMARY KEY (g, k1, b, bp, "from"))`,
		`INSERT INTO t SELECT i + 0.5, 'g"' || i, 'x' || i, '\x01', 'a', '2024-01-01Z' FROM generate_series(1, 10) i`)
	table := loadTable(t, conn, "t")
	at := []string{"2024-01-01 00:00:00+00", "2024-01-01 00:00:00+00", "2024-01-01 00:00:00+00"}
	res := conn.PgConn().ExecParams(context.Background(), table.RowsByKeyQuery(), [][]byte{array(`g"2`, `g"7`, `g"99`), array("2.50", "7.50", "1.00"),
		array(`\x01`, `\x01`, `\x01`), array("a   ", "a   ", "a   "), array(at...)}, nil, nil, []int16{1}).Read()
	if res.Err != nil {
		t.Fatal(res.Err)
	}
	var got []string
	for _, row := range res.Rows {
		got = append(got, string(row[0])+string(row[2]))
	}
	sort.Strings(got)
	if fmt.Sprint(got) != "[2.50x2 7.50x7]" {
		t.Errorf("read %q", got)
	}
}

// array is a Postgres text array in text form.
func array(elements ...string) []byte {
	parts := make([]string, len(elements))
	for i, e := range elements {
		b, _ := json.Marshal(e) // quotes and backslashes are escaped in the same way
		parts[i] = string(b)
	}
	return []byte("{" + strings.Join(parts, ",") + "}")
}
