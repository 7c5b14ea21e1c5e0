package logical

import (
	"errors"
	"testing"

	"github.com/jackc/pgx/v5"

	"capture/capture/source"
	"capture/capture/sourcetest"
	"capture/capture/tablecopy"
	"capture/internal/pgserver"
	"capture/internal/postgres"
	"capture/snapshot"
)

// TestPlainReadDuringMigration reads the table while a migration rewrites it. The rewritten rows are not visible to a snapshot
// that was taken before the migration ended, so such a snapshot would show an empty table. The same is true for a table that the
// migration creates under the same name.
func TestPlainReadDuringMigration(t *testing.T) {
	t.Parallel()
	url := pgserver.Database(t)
	conn := sourcetest.Connect(t, url)
	conn.MustExec(sourcetest.Votes)
	conn.MustExec("INSERT INTO votes (user_query) SELECT 'question ' || i FROM generate_series(1, 20) i")
	for _, migration := range []string{
		"ALTER TABLE votes ALTER user_query TYPE text USING user_query || '!'",
		"CREATE TABLE new_votes (LIKE votes INCLUDING ALL); INSERT INTO new_votes SELECT * FROM votes; ALTER TABLE votes RENAME TO old_votes; ALTER TABLE new_votes RENAME TO votes",
	} {
		conn.MustExec("BEGIN")
		if _, err := conn.Exec(t.Context(), migration, pgx.QueryExecModeSimpleProtocol); err != nil {
			t.Fatal(err)
		}
		env, dst := newEnv(t, url), snapshot.NewTable()
		read := make(chan error, 1)
		go func() { read <- tablecopy.ReadTable(t.Context(), env, "logical", dst, nil) }()
		sourcetest.WaitFor(t, "the read waits for the migration", func() error {
			if len(read) > 0 {
				t.Fatalf("%s: the read did not wait: %v", migration, <-read)
			}
			var waiting int
			err := conn.QueryRow(t.Context(), "SELECT count(*) FROM pg_locks WHERE NOT granted AND pg_backend_pid() = ANY (pg_blocking_pids(pid))").Scan(&waiting)
			if err == nil && waiting == 0 {
				err = errors.New("nobody waits")
			}
			return err
		})
		conn.MustExec("COMMIT")
		if err := <-read; err != nil {
			t.Fatalf("%s: %v", migration, err)
		}
		conn.CheckRows(dst.View(), "votes", "vote_id")
	}
}

// TestImportAfterNameSwap swaps the names of two tables after a snapshot was exported. In the snapshot, the catalog has the old
// table under the name votes, but a statement finds the new table. If the new table was created after the snapshot, the catalog
// as of the snapshot does not show it. In each case, the import requests a resync.
func TestImportAfterNameSwap(t *testing.T) {
	t.Parallel()
	url := pgserver.Database(t)
	conn := sourcetest.Connect(t, url)
	conn.MustExec(sourcetest.Votes)
	const create = "CREATE TABLE new_votes (LIKE votes INCLUDING ALL)"
	for _, later := range []bool{false, true} {
		for _, name := range []postgres.Name{{Table: "votes"}, {Schema: "public", Table: "votes"}} {
			env := newEnv(t, url)
			env.Table = name
			exporter, reader := sourcetest.Connect(t, url), sourcetest.Connect(t, url)
			table, err := postgres.LoadTable(t.Context(), reader.Conn, name)
			if err != nil {
				t.Fatal(err)
			}
			if !later {
				conn.MustExec(create)
			}
			exporter.MustExec("BEGIN ISOLATION LEVEL REPEATABLE READ")
			var snapshotName string
			if err := exporter.QueryRow(t.Context(), "SELECT pg_export_snapshot()").Scan(&snapshotName); err != nil {
				t.Fatal(err)
			}
			if later {
				conn.MustExec(create)
			}
			_, err = conn.Exec(t.Context(), "BEGIN; ALTER TABLE votes RENAME TO old_votes; ALTER TABLE new_votes RENAME TO votes; COMMIT",
				pgx.QueryExecModeSimpleProtocol)
			if err != nil {
				t.Fatal(err)
			}
			err = tablecopy.ImportSnapshot(t.Context(), env, reader.Conn, table, snapshotName)
			if resync := (*source.ResyncError)(nil); !errors.As(err, &resync) {
				t.Errorf("%s, created after the snapshot: %v: %v", name, later, err)
			}
			reader.MustExec("ROLLBACK")
			exporter.MustExec("ROLLBACK")
			conn.MustExec("DROP TABLE old_votes CASCADE") // the new table votes uses its sequence
		}
	}
}
