package postgres

import (
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
)

// TestLockHoldsNothingWhileItWaits checks that Lock holds no lock while it waits. A second session locks one partition for
// longer than Lock waits, and meanwhile locks the other tables again and again. If Lock held one of their locks while it
// waited, the second session would soon fail with a deadlock, because its deadlock_timeout is short.
func TestLockHoldsNothingWhileItWaits(t *testing.T) {
	if testing.Short() {
		t.Skip("waits for the lock's timeout")
	}
	t.Parallel()
	for name, lock := range map[string]func(conn *pgx.Conn, table *Table) error{
		"Lock": func(conn *pgx.Conn, table *Table) error {
			tx, err := Begin(t.Context(), conn, "READ ONLY")
			if err != nil {
				return err
			}
			defer Rollback(t.Context(), tx)
			return table.Lock(t.Context(), tx)
		},
		"checkValues": func(conn *pgx.Conn, table *Table) error {
			d := doctor{conn: conn, table: table}
			d.checkValues(t.Context())
			return &Problem{Summary: d.Findings[0].Found, Reason: d.Findings[0].Reason}
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			conn, url := database(t, partitionedSQL)
			table, other := loadTable(t, conn, "votes"), connectTo(t, url)
			run(t, other, "SET deadlock_timeout = '1ms'", "BEGIN", "LOCK TABLE votes_2a")
			ended := make(chan error, 1)
			go func() { ended <- lock(conn, table) }()
			for len(ended) == 0 {
				run(t, other, "SAVEPOINT s", "LOCK TABLE votes_2, votes_1, votes", "ROLLBACK TO SAVEPOINT s", "RELEASE SAVEPOINT s")
				time.Sleep(20 * time.Millisecond)
			}
			reason := "another session holds a lock on the table"
			if p, ok := Explain(<-ended).(*Problem); !ok || p.Reason != reason {
				t.Errorf("it ended with %+v, want the reason %q", p, reason)
			}
		})
	}
}

// TestLockTakesNoSnapshot checks that Lock takes no snapshot: the transaction sees a row that was committed after Lock. The
// test also checks that after Lock, waits for locks have no limit, and the server ends the session if this process freezes
// for two minutes.
func TestLockTakesNoSnapshot(t *testing.T) {
	t.Parallel()
	conn, url := database(t, partitionedSQL, "CREATE TABLE single (id int PRIMARY KEY)")
	other := connectTo(t, url)
	for _, name := range []string{"votes", "single"} {
		table := loadTable(t, conn, name)
		tx, err := Begin(t.Context(), conn, "ISOLATION LEVEL REPEATABLE READ READ ONLY")
		if err != nil {
			t.Fatal(err)
		}
		if err := table.Lock(t.Context(), tx); err != nil {
			t.Fatal(err)
		}
		run(t, other, "INSERT INTO "+name+" VALUES (1)")
		var rows int
		var lockTimeout, idleTimeout string
		err = tx.QueryRow(t.Context(), "SELECT (SELECT count(*) FROM "+table.FromClause()+`), current_setting('lock_timeout'),
			current_setting('idle_in_transaction_session_timeout')`).Scan(&rows, &lockTimeout, &idleTimeout)
		if err != nil || rows != 1 || lockTimeout != "0" || idleTimeout != "2min" {
			t.Errorf("%s: %d rows, lock_timeout %s, idle_in_transaction_session_timeout %s, %v", name, rows, lockTimeout, idleTimeout, err)
		}
		Rollback(t.Context(), tx)
	}
}
