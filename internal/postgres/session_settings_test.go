package postgres

import (
	"bytes"
	"context"
	"testing"

	"github.com/jackc/pgx/v5/pgconn"

	"capture/internal/pgserver"
)

func TestSessionSettingsOverrideTheDatabase(t *testing.T) {
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
	pooled.PgConn().CustomData()[pooledKey] = true // makes Begin pin the settings in the transaction, as it does for a connection through a pooler
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

func TestSQLASCIIDatabase(t *testing.T) {
	t.Parallel()
	url := pgserver.Database(t, "TEMPLATE template0 ENCODING 'SQL_ASCII' LOCALE 'C'")
	conn := connectTo(t, url)
	run(t, conn, "CREATE TABLE t (id int PRIMARY KEY, x text)", `INSERT INTO t VALUES (1, E'\xff')`)
	var x []byte
	if err := conn.QueryRow(testContext(t), "SELECT x FROM public.t").Scan(&x); err != nil || string(x) != "\xff" {
		t.Errorf("read %q, %v", x, err)
	}
	loadTable(t, conn, "t")
}
