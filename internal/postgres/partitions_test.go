package postgres

import (
	"slices"
	"testing"

	"github.com/jackc/pgx/v5"
)

const partitionedSQL = `CREATE TABLE votes (vote_id int, comment text DEFAULT 'none', PRIMARY KEY (vote_id)) PARTITION BY RANGE (vote_id);
	CREATE TABLE votes_1 PARTITION OF votes FOR VALUES FROM (0) TO (10);
	CREATE TABLE votes_2 PARTITION OF votes FOR VALUES FROM (10) TO (20) PARTITION BY LIST (vote_id);
	CREATE TABLE votes_2a PARTITION OF votes_2 FOR VALUES IN (10, 11);
	CREATE TABLE plain (id int PRIMARY KEY);
	CREATE TABLE heir () INHERITS (plain)`

// TestTreeHasPartitions checks that TreeSQL returns the table and the relations that pg_partition_tree returns. A table that
// inherits from an ordinary table is not a partition, so TreeSQL must omit it.
func TestTreeHasPartitions(t *testing.T) {
	t.Parallel()
	conn, _ := database(t, partitionedSQL)
	for _, table := range []string{"votes", "votes_2", "votes_1", "plain"} {
		list := func(from string) []string {
			rows, err := conn.Query(testContext(t), "SELECT x.oid::pg_catalog.regclass::text FROM "+from+" x(oid) ORDER BY 1")
			if err != nil {
				t.Fatal(err)
			}
			names, err := pgx.CollectRows(rows, pgx.RowTo[string])
			if err != nil {
				t.Fatal(err)
			}
			return names
		}
		oid := "'public." + table + "'::pg_catalog.regclass"
		got, want := list(TreeSQL(oid)), list("(SELECT "+oid+" UNION SELECT relid FROM pg_catalog.pg_partition_tree("+oid+"))")
		if !slices.Equal(got, want) {
			t.Errorf("%s: %v, pg_partition_tree returns %v", table, got, want)
		}
	}
}

// TestCatalogQueriesLockNothing checks that the queries of the regular checks leave no lock on the table or its partitions
// until the transaction ends. With such a lock, a statement of the application that locks the table and then its partitions
// could fail with a deadlock.
func TestCatalogQueriesLockNothing(t *testing.T) {
	t.Parallel()
	conn, _ := database(t, partitionedSQL)
	setup(t, conn, "votes", SetupOptions{Source: "notify"})
	table := loadTable(t, conn, "votes")
	ctx := testContext(t)
	tx, err := Begin(ctx, conn, "READ ONLY")
	if err != nil {
		t.Fatal(err)
	}
	defer Rollback(ctx, tx)
	for name, f := range map[string]func() error{
		"LoadTable":   func() error { _, err := LoadTable(ctx, tx, table.Name()); return err },
		"LoadMoment":  func() error { _, err := LoadMoment(ctx, conn, table); return err },
		"LoadStorage": func() error { _, _, err := LoadStorage(ctx, tx, table); return err },
		"CompareCatalog": func() error {
			_, _, err := CompareCatalog(ctx, conn, table.Name(), table, "capture_votes", "", new(Moment))
			return err
		},
		"CheckTriggers":    func() error { return CheckTriggers(ctx, tx, table) },
		"findHarmful":      func() error { _, err := findHarmful(ctx, tx, "capture_votes"); return err },
		"findPublications": func() error { _, err := findPublications(ctx, conn, table, "capture_votes"); return err },
		"TableFingerprint": func() error { _, err := TableFingerprint(ctx, conn, table.Name()); return err },
	} {
		if err := f(); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		rows, err := tx.Query(ctx, `SELECT c.relname || ' ' || l.mode FROM pg_catalog.pg_locks l JOIN pg_catalog.pg_class c ON c.oid = l.relation
			WHERE l.pid = pg_catalog.pg_backend_pid() AND l.locktype = 'relation' AND c.relnamespace = 'public'::regnamespace`)
		if err != nil {
			t.Fatal(err)
		}
		if locks, err := pgx.CollectRows(rows, pgx.RowTo[string]); err != nil || len(locks) > 0 {
			t.Errorf("after %s the transaction holds %v, %v", name, locks, err)
		}
	}
}
