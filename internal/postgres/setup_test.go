package postgres

import (
	"bytes"
	"context"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"capture/internal/pgserver"
)

func TestSetupRoleIsEnoughForLogical(t *testing.T) {
	t.Parallel()
	conn, url := database(t, "CREATE SCHEMA app", strings.Replace(votesSQL, "votes", "app.votes", 1),
		"DROP ROLE IF EXISTS capture_test_least", "DROP ROLE IF EXISTS capture_test_owner", "CREATE ROLE capture_test_owner",
		"ALTER TABLE app.votes OWNER TO capture_test_owner")
	run(t, conn, "REVOKE CONNECT ON DATABASE "+QuoteIdentifier(currentDatabase(t, url))+" FROM public")
	t.Cleanup(func() { run(t, conn, "DROP OWNED BY capture_test_owner CASCADE", "DROP ROLE capture_test_owner") })
	statements := setup(t, conn, "app.votes", SetupOptions{Source: "auto", Role: "capture_test_least"})
	if all := strings.Join(statements, "; "); !strings.Contains(all, `CREATE PUBLICATION "capture_app__votes"`) || strings.Contains(all, "TRIGGER") {
		t.Errorf("ran %s", all)
	}
	cfg, err := ParseConfig(url)
	if err != nil {
		t.Fatal(err)
	}
	cfg.User = "capture_test_least"
	least, err := Connect(testContext(t), cfg)
	if err != nil {
		t.Fatal(err)
	}
	wantPublication(t, least, "app.votes", "capture_app__votes")
	repl, err := ConnectReplication(testContext(t), cfg)
	if err != nil {
		t.Fatal(err)
	}
	if err := repl.Exec(testContext(t), "CREATE_REPLICATION_SLOT capture_test_least TEMPORARY LOGICAL pgoutput").Close(); err != nil {
		t.Error(err)
	}
	if _, err := least.Exec(testContext(t), "DELETE FROM app.votes"); SQLState(err) != insufficientPrivilege {
		t.Errorf("the role may delete: %v", err)
	}
	repl.Close(context.Background())
	least.Close(context.Background())
	teardown(t, conn, "app.votes", "capture_test_least")
}

func currentDatabase(t *testing.T, url string) string {
	cfg, err := pgx.ParseConfig(url)
	if err != nil {
		t.Fatal(err)
	}
	return cfg.Database
}

func TestSetupTakesNotifyWhereLogicalWouldDoHarm(t *testing.T) {
	t.Parallel()
	conn, _ := database(t, "CREATE TABLE t (id int PRIMARY KEY DEFERRABLE)")
	if _, err := SetupSQL(testContext(t), conn, loadTable(t, conn, "t"), SetupOptions{Source: "logical"}); err == nil {
		t.Error("set up for logical")
	}
	setup(t, conn, "t", SetupOptions{Source: "auto"})
	if err := CheckTriggers(testContext(t), conn, loadTable(t, conn, "t")); err != nil {
		t.Error(err)
	}
	run(t, conn, "DROP TABLE t")
	teardown(t, conn, "t", "")
}

// TestApplyDoesNotHoldUpTheApplication: while a writer's transaction keeps the table locked, setup does not make
// others wait behind it for long, and gets through once it ends.
func TestApplyDoesNotHoldUpTheApplication(t *testing.T) {
	t.Parallel()
	conn, url := database(t, votesSQL)
	statements, err := SetupSQL(testContext(t), conn, loadTable(t, conn, "votes"), SetupOptions{Source: "notify"})
	if err != nil {
		t.Fatal(err)
	}
	writer := connectTo(t, url)
	run(t, writer, "BEGIN", "INSERT INTO votes (comment) VALUES ('open')")
	applied := make(chan error)
	go func() { applied <- ApplyStatements(context.Background(), conn, statements) }()
	other := connectTo(t, url)
	run(t, other, "SET lock_timeout = '20s'", "INSERT INTO votes (comment) VALUES ('other')")
	run(t, writer, "COMMIT")
	if err := <-applied; err != nil {
		t.Error(err)
	}
}

func TestSessionsPrintTheSameWhateverTheRoleSays(t *testing.T) {
	t.Parallel()
	conn, url := database(t)
	db := QuoteIdentifier(currentDatabase(t, url))
	for _, s := range []string{"DateStyle = 'German, DMY'", "IntervalStyle = 'iso_8601'", "TimeZone = 'Asia/Kolkata'", "bytea_output = 'escape'",
		"extra_float_digits = 0", "statement_timeout = 50", "client_encoding = 'LATIN1'", "default_transaction_isolation = 'serializable'", "idle_in_transaction_session_timeout = 50"} {
		run(t, conn, "ALTER DATABASE "+db+" SET "+s)
	}
	const query = "SELECT timestamptz '2024-05-06 07:08:09.5Z', interval '1 mon 2 days', '\\x00ff'::bytea, 0.1::float8 + 0.2, current_setting('statement_timeout')"
	const want = `2024-05-06 07:08:09.5+00 1 mon 2 days \x00ff 0.30000000000000004 0`
	cfg, err := ParseConfig(url)
	if err != nil {
		t.Fatal(err)
	}
	repl, err := ConnectReplication(testContext(t), cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer repl.Close(context.Background())
	plain := connectTo(t, url)
	pooled := connectTo(t, url)
	pooled.PgConn().CustomData()[pooledKey] = true // Begin sets the transaction up as behind a pooler
	run(t, pooled, "RESET ALL")
	tx, err := Begin(testContext(t), pooled, "ISOLATION LEVEL REPEATABLE READ READ ONLY")
	if err != nil {
		t.Fatal(err)
	}
	defer tx.Rollback(context.Background())
	for name, pg := range map[string]*pgconn.PgConn{"replication": repl, "plain": plain.PgConn(), "pooled": pooled.PgConn()} {
		results, err := pg.Exec(testContext(t), query).ReadAll()
		if err != nil {
			t.Fatal(err)
		}
		got := string(bytes.Join(results[0].Rows[0], []byte(" ")))
		if encoding := pg.ParameterStatus("client_encoding"); got != want || encoding != "UTF8" {
			t.Errorf("%s: got %s in %s, want %s in UTF8", name, got, encoding, want)
		}
	}
}

func TestSQLASCII(t *testing.T) {
	t.Parallel()
	url := pgserver.Database(t, "TEMPLATE template0 ENCODING 'SQL_ASCII' LOCALE 'C'")
	conn := connectTo(t, url)
	run(t, conn, "CREATE TABLE t (id int PRIMARY KEY, x text)", `INSERT INTO t VALUES (1, E'\xff')`)
	var x []byte
	if err := conn.QueryRow(testContext(t), "SELECT x FROM t").Scan(&x); err != nil || string(x) != "\xff" {
		t.Errorf("read %q, %v", x, err)
	}
	loadTable(t, conn, "t")
}
