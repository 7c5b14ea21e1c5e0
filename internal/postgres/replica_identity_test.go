package postgres

import (
	"fmt"
	"strings"
	"testing"
)

// TestPublicationNeverBreaksWrites checks that the application's writes succeed, whether EnsurePublication has published the
// table or refused to publish it.
func TestPublicationNeverBreaksWrites(t *testing.T) {
	t.Parallel()
	conn, _ := database(t)
	version := majorVersion(conn.PgConn().ParameterStatus("server_version"))
	for i, c := range []struct {
		since           int
		columns, change string
		refused         string
	}{
		{13, "id int PRIMARY KEY DEFERRABLE, x int", "", "deferrable"},
		{13, "id int PRIMARY KEY, x int", "ALTER TABLE %s REPLICA IDENTITY NOTHING", "nothing"},
		{13, "id int PRIMARY KEY, x int NOT NULL UNIQUE", "ALTER TABLE %[1]s REPLICA IDENTITY USING INDEX %[1]s_x_key; ALTER TABLE %[1]s DROP CONSTRAINT %[1]s_x_key", "index is gone"},
		{13, "id int PRIMARY KEY, x int", "ALTER TABLE %s REPLICA IDENTITY FULL", ""},
		{13, "id int PRIMARY KEY DEFERRABLE, x int, g int GENERATED ALWAYS AS (id + 1) STORED", "ALTER TABLE %s REPLICA IDENTITY FULL", ""},
		{18, "id int PRIMARY KEY, x int, g int GENERATED ALWAYS AS (id + 1) VIRTUAL", "", ""},
		{18, "id int PRIMARY KEY, x int, g int GENERATED ALWAYS AS (id + 1) VIRTUAL", "ALTER TABLE %s REPLICA IDENTITY FULL", "virtual"},
		{18, "id int, x int, g int GENERATED ALWAYS AS (id + 1) STORED PRIMARY KEY", "", ""},
	} {
		if version < c.since {
			continue
		}
		name := fmt.Sprintf("t%d", i)
		// Make the change once before capture publishes the table, and once while capture publishes it.
		for _, before := range []bool{false, true} {
			if before && strings.Contains(c.columns, "DEFERRABLE") {
				continue // capture never publishes this table before the change
			}
			run(t, conn, "DROP TABLE IF EXISTS "+name, "CREATE TABLE "+name+" ("+c.columns+")", "INSERT INTO "+name+" VALUES (1, 1)")
			if before && c.change != "" {
				wantPublication(t, conn, name, "capture_"+name)
			}
			if c.change != "" {
				run(t, conn, strings.Split(fmt.Sprintf(c.change, name), "; ")...)
			}
			_, _, err := ensure(t, conn, name)
			if c.refused == "" && err != nil {
				t.Errorf("%s: %v", c.columns, err)
			} else if c.refused != "" {
				wantProblem(t, err, c.refused)
			}
			run(t, conn, "UPDATE "+name+" SET x = 2", "UPDATE "+name+" SET id = 3", "DELETE FROM "+name)
		}
	}
}

func TestPartitionsNeedTheirTablesIdentity(t *testing.T) {
	t.Parallel()
	conn, _ := database(t, "CREATE TABLE p (id int PRIMARY KEY, x int) PARTITION BY RANGE (id)",
		"CREATE TABLE p1 PARTITION OF p DEFAULT PARTITION BY RANGE (id)", "CREATE TABLE p2 (id int PRIMARY KEY, x int NOT NULL UNIQUE)",
		"ALTER TABLE p1 ATTACH PARTITION p2 DEFAULT")
	wantPublication(t, conn, "p", "capture_p")
	for change, word := range map[string]string{
		"ALTER TABLE p2 REPLICA IDENTITY NOTHING": "no usable", "ALTER TABLE p2 REPLICA IDENTITY USING INDEX p2_x_key": "another",
		"ALTER TABLE p2 SET UNLOGGED": "SET LOGGED", "ALTER TABLE p2 REPLICA IDENTITY FULL": "", "ALTER TABLE p2 REPLICA IDENTITY USING INDEX p2_pkey": "",
	} {
		run(t, conn, change)
		_, _, err := ensure(t, conn, "p")
		if word == "" && err != nil || word != "" && err == nil {
			t.Errorf("%s: %v", change, err)
		} else if word != "" {
			wantProblem(t, err, word)
		}
		run(t, conn, "ALTER TABLE p2 REPLICA IDENTITY DEFAULT", "ALTER TABLE p2 SET LOGGED")
	}
}
