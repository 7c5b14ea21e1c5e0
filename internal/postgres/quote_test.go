package postgres

import (
	"context"
	"fmt"
	"strings"
	"testing"

	"github.com/jackc/pglogrepl"
	"github.com/jackc/pgx/v5/pgproto3"
)

// hostile contains names to quote. Most of them would end an SQL string or identifier too early, or be misread, if they were
// quoted carelessly.
var hostile = []string{
	"votes", `a"b`, `"; DROP TABLE votes; --`, `a'b`, `'; DROP TABLE votes; --`, `\`, `a\'b`, `\'; DROP TABLE votes; --`,
	`E'\047`, "$capture$", "{channel}", "new\nline", " ", "größe", "%I %s", "--", "/*",
}

func TestQuotedNamesReadBack(t *testing.T) {
	t.Parallel()
	conn, _ := database(t, votesSQL)
	for _, conforming := range []string{"on", "off"} {
		if _, err := conn.Exec(testContext(t), "SET standard_conforming_strings = "+conforming); err != nil {
			continue // PostgreSQL 19 allows only the value "on"
		}
		for _, name := range hostile {
			// Use the simple protocol, which accepts several statements: if a quote ends too early, the text after it runs.
			results, err := conn.PgConn().Exec(testContext(t), "SELECT"+QuoteLiteral(name)+" AS "+QuoteIdentifier(name)).ReadAll()
			if err != nil || len(results) != 1 {
				t.Errorf("%q, standard_conforming_strings %s: %d results, %v", name, conforming, len(results), err)
				continue
			}
			if got, column := string(results[0].Rows[0][0]), results[0].FieldDescriptions[0].Name; got != name || column != name {
				t.Errorf("%q, standard_conforming_strings %s: read back as %q AS %q", name, conforming, got, column)
			}
		}
	}
	run(t, conn, "SELECT count(*) FROM votes")
	if got := QuoteLiteral("a\x00'b"); got != "'a''b'" {
		t.Errorf("with a NUL byte: %s", got)
	}
	if got := QuoteIdentifier("a\x00\"b"); got != `"a""b"` {
		t.Errorf("with a NUL byte: %s", got)
	}
}

// TestReplicationCommandsTakeHostileNames streams from publications with hostile names, each with a table of its own. If the
// server misreads a name, it streams from another publication, and the insert into the table of the named publication does not
// arrive.
func TestReplicationCommandsTakeHostileNames(t *testing.T) {
	t.Parallel()
	conn, url := database(t)
	var publications []string
	for i, name := range hostile {
		run(t, conn, fmt.Sprintf("CREATE TABLE t%d (id int PRIMARY KEY)", i),
			fmt.Sprintf("CREATE PUBLICATION %s FOR TABLE t%d", QuoteIdentifier(name), i))
		publications = append(publications, QuoteIdentifier(name))
	}
	cfg, err := ParseConfig(url)
	if err != nil {
		t.Fatal(err)
	}
	pg, err := ConnectReplication(testContext(t), cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer pg.Close(context.Background())
	slot := currentDatabase(t, url)
	if err := pg.Exec(testContext(t), "CREATE_REPLICATION_SLOT "+QuoteIdentifier(slot)+" TEMPORARY LOGICAL pgoutput").Close(); err != nil {
		t.Fatal(err)
	}
	for i := range hostile {
		run(t, conn, fmt.Sprintf("INSERT INTO t%d VALUES (1)", i))
	}
	args := []string{"proto_version '1'", "publication_names " + QuoteReplicationString(strings.Join(publications, ", "))}
	if err := pglogrepl.StartReplication(testContext(t), pg, slot, 0, pglogrepl.StartReplicationOptions{PluginArgs: args}); err != nil {
		t.Fatal(err)
	}
	const header = 1 + 24 // length in bytes of the header of an XLogData message: the byte 'w', two positions and a time
	for inserts := 0; inserts < len(hostile); {
		message, err := pg.ReceiveMessage(testContext(t))
		if err != nil {
			t.Fatalf("after %d inserts of %d: %v", inserts, len(hostile), err)
		}
		switch m := message.(type) {
		case *pgproto3.ErrorResponse:
			t.Fatalf("after %d inserts of %d: %s", inserts, len(hostile), m.Message)
		case *pgproto3.CopyData:
			if len(m.Data) > header && m.Data[0] == 'w' && m.Data[header] == 'I' {
				inserts++
			}
		}
	}
}
