package postgres

import (
	"errors"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"
)

// publicationFingerprint queries the fingerprint of a publication with regard to a table.
func publicationFingerprint(t *testing.T, conn *pgx.Conn, table *Table, publication string) (fingerprint string) {
	t.Helper()
	if err := conn.QueryRow(testContext(t), publicationFingerprintSQL(conn, publication, table)).Scan(&fingerprint); err != nil {
		t.Fatal(err)
	}
	return fingerprint
}

// TestPublicationFingerprintOfSchemas checks the fingerprint of a publication of all tables in a schema. Such publications
// exist since version 15.
func TestPublicationFingerprintOfSchemas(t *testing.T) {
	t.Parallel()
	conn, _ := database(t, votesSQL)
	if majorVersion(conn.PgConn().ParameterStatus("server_version")) < 15 {
		return // this server has no such publications
	}
	run(t, conn, "CREATE SCHEMA other", "CREATE PUBLICATION all_here FOR TABLES IN SCHEMA public",
		"CREATE TABLE p (id int PRIMARY KEY) PARTITION BY RANGE (id)", "CREATE TABLE other.p1 PARTITION OF p DEFAULT")
	for _, name := range []string{"votes", "other.p1"} {
		fingerprint := func() string {
			t.Helper()
			return publicationFingerprint(t, conn, loadTable(t, conn, name), "all_here")
		}
		first := fingerprint()
		run(t, conn, "CREATE SCHEMA IF NOT EXISTS third", "ALTER PUBLICATION all_here ADD TABLES IN SCHEMA third",
			"ALTER PUBLICATION all_here DROP TABLES IN SCHEMA third")
		if fingerprint() != first {
			t.Errorf("%s: the fingerprint changed without need", name)
		}
		run(t, conn, "ALTER PUBLICATION all_here DROP TABLES IN SCHEMA public")
		without := fingerprint()
		run(t, conn, "ALTER PUBLICATION all_here ADD TABLES IN SCHEMA public")
		if again := fingerprint(); without == first || again == without || again == first {
			t.Errorf("%s: the fingerprints are %q, without the schema %q, again with it %q", name, first, without, again)
		}
	}
}

// TestPublicationFingerprintOfUnlistedTables checks publications that contain a table without listing it. Postgres then
// allows a transaction that takes the table out of the publication and brings it back. Such a transaction must change the
// fingerprint.
func TestPublicationFingerprintOfUnlistedTables(t *testing.T) {
	t.Parallel()
	conn, _ := database(t, votesSQL, "CREATE SCHEMA other", "CREATE PUBLICATION everything FOR ALL TABLES",
		"CREATE PUBLICATION listed FOR TABLE votes", "CREATE TABLE p (id int PRIMARY KEY) PARTITION BY RANGE (id)",
		"CREATE TABLE p1 PARTITION OF p DEFAULT", "CREATE PUBLICATION parents FOR TABLE p")
	publications := map[string]string{"everything": "votes", "parents": "p1"}
	if majorVersion(conn.PgConn().ParameterStatus("server_version")) >= 15 {
		run(t, conn, "CREATE SCHEMA parts", "CREATE TABLE parts.q (id int PRIMARY KEY) PARTITION BY RANGE (id)", "CREATE TABLE q1 PARTITION OF parts.q DEFAULT",
			"CREATE PUBLICATION schemas FOR TABLES IN SCHEMA parts")
		publications["schemas"] = "q1"
	}
	step := func(changes bool, publication, name string, statements ...string) {
		t.Helper()
		table := loadTable(t, conn, name)
		before := publicationFingerprint(t, conn, table, publication)
		run(t, conn, statements...)
		if got := publicationFingerprint(t, conn, table, publication); (got != before) != changes {
			t.Errorf("%s: after %q the fingerprint changed: %v", publication, statements, got != before)
		}
	}
	for publication, name := range publications {
		step(false, publication, name, "INSERT INTO votes (comment) VALUES ('x')", "VACUUM (ANALYZE, FREEZE) "+name, "CREATE INDEX ON "+name+" ((1))", "VACUUM (FREEZE) pg_class")
		step(true, publication, name, "BEGIN", "ALTER TABLE "+name+" SET SCHEMA other", "ALTER TABLE other."+name+" SET SCHEMA public", "COMMIT")
	}
	step(true, "parents", "p1", "BEGIN", "ALTER TABLE p1 SET UNLOGGED", "ALTER TABLE p1 SET LOGGED", "COMMIT")
	if publications["schemas"] != "" {
		step(true, "schemas", "q1", "BEGIN", "ALTER TABLE parts.q SET SCHEMA other", "ALTER TABLE other.q SET SCHEMA parts", "COMMIT")
	}
	step(false, "listed", "votes", "TRUNCATE votes", "VACUUM FULL votes", "GRANT SELECT ON votes TO PUBLIC", "ALTER TABLE votes SET SCHEMA other", "ALTER TABLE other.votes SET SCHEMA public")
	run(t, conn, "DROP PUBLICATION listed", "CREATE PUBLICATION partition FOR TABLE p1 WITH (publish_via_partition_root = true)")
	moveParent := []string{"BEGIN", "ALTER TABLE p SET SCHEMA other", "ALTER TABLE other.p SET SCHEMA public", "COMMIT"}
	step(false, "partition", "p1", append(moveParent, "GRANT SELECT ON p TO PUBLIC", "GRANT SELECT ON p1 TO PUBLIC", "TRUNCATE p1")...)
	if publications["schemas"] != "" { // while p is in the published schema, the changes of p1 are published under p's name
		run(t, conn, "ALTER PUBLICATION partition ADD TABLES IN SCHEMA other")
		step(true, "partition", "p1", moveParent...)
	}
	step(true, "everything", "votes", "BEGIN", "ALTER TABLE votes SET UNLOGGED", "ALTER TABLE votes SET LOGGED", "COMMIT")
}

func TestFingerprintChangesWithWhatChangesRows(t *testing.T) {
	t.Parallel()
	conn, _ := database(t, votesSQL, `CREATE TYPE mood AS ENUM ('sad', 'ok')`, `CREATE TYPE comp AS (a int, b mood)`,
		`ALTER TABLE votes ADD c comp, ADD extra text`, `CREATE TABLE other (id int PRIMARY KEY)`)
	name := Name{Table: "votes"}
	last := loadTable(t, conn, "votes").Fingerprint
	step := func(changes bool, statements ...string) {
		t.Helper()
		run(t, conn, statements...)
		got, err := TableFingerprint(testContext(t), conn, name)
		if err != nil {
			t.Fatalf("%s: %v", statements, err)
		}
		if (got != last) != changes {
			t.Errorf("after %s the fingerprint changed: %v", strings.Join(statements, "; "), got != last)
		}
		last = got
	}
	step(false, `INSERT INTO votes (comment) VALUES ('x')`, `UPDATE votes SET comment = 'y'`, `DELETE FROM votes`)
	step(false, `VACUUM (FULL, FREEZE) votes`, `CLUSTER votes USING votes_pkey`, `TRUNCATE votes`, `REINDEX TABLE votes`, `ANALYZE votes`)
	step(false, `VACUUM (FREEZE) pg_attribute`, `VACUUM (FULL, FREEZE) pg_attribute`)
	step(false, `CREATE INDEX ON votes (comment)`, `GRANT SELECT ON votes TO public`, `COMMENT ON TABLE votes IS 'x'`)
	step(false, `CREATE PUBLICATION p FOR TABLE votes`)
	step(true, `ALTER TABLE votes ADD late int DEFAULT 5`)
	step(true, `ALTER TABLE votes ALTER late TYPE int USING late + 1`)
	step(false, `VACUUM FULL votes`)
	step(true, `ALTER TABLE votes RENAME late TO later`)
	step(true, `ALTER TABLE votes DROP later`)
	step(true, `ALTER TABLE votes ALTER comment TYPE varchar(1000)`)
	step(true, `ALTER TYPE mood RENAME VALUE 'sad' TO 'unhappy'`)
	step(true, `ALTER TYPE comp RENAME ATTRIBUTE a TO z`)
	step(true, `ALTER TYPE comp ADD ATTRIBUTE n int`)
	step(false, `SET lc_monetary = 'C.UTF-8'`)
	step(true, `ALTER TABLE votes ADD price money DEFAULT 1`)
	step(true, `SET lc_monetary = 'C'`)
	step(true, `ALTER TABLE votes DROP price`)
	step(false, `SET lc_monetary = 'C.UTF-8'`)
	step(true, `CREATE FUNCTION comp_json(comp) RETURNS json IMMUTABLE LANGUAGE sql AS $$ SELECT json_build_array(1) $$`, `CREATE CAST (comp AS json) WITH FUNCTION comp_json(comp)`)
	step(true, `CREATE OR REPLACE FUNCTION comp_json(comp) RETURNS json IMMUTABLE LANGUAGE sql AS $$ SELECT json_build_array(2) $$`)
	step(false, `VACUUM (FREEZE) pg_proc`)
	step(true, `CREATE EXTENSION hstore VERSION '1.6'`, `ALTER TABLE votes ADD h hstore`)
	step(true, `ALTER EXTENSION hstore UPDATE`)
	step(true, `ALTER TABLE votes REPLICA IDENTITY FULL`)
	step(true, `ALTER TABLE votes DROP CONSTRAINT votes_pkey`, `ALTER TABLE votes ALTER extra SET NOT NULL`, `ALTER TABLE votes ADD PRIMARY KEY (vote_id, extra)`)
	step(true, `BEGIN; ALTER TABLE votes RENAME TO votes_old; CREATE TABLE votes (LIKE votes_old INCLUDING ALL); COMMIT`)
	run(t, conn, `DROP TABLE votes`)
	var p *Problem
	if _, err := TableFingerprint(testContext(t), conn, name); !errors.As(err, &p) || !p.TableMissing() {
		t.Errorf("after DROP TABLE: %v", err)
	}
}

func TestFingerprintOfPartitions(t *testing.T) {
	t.Parallel()
	conn, _ := database(t, `CREATE TABLE p (id int PRIMARY KEY, x text) PARTITION BY RANGE (id)`,
		`CREATE TABLE p1 PARTITION OF p FOR VALUES FROM (0) TO (10)`, `CREATE TABLE p2 (id int PRIMARY KEY, x text)`)
	table := loadTable(t, conn, "p")
	if !table.Partitioned || strings.Contains(table.CopyQuery(""), "ONLY") {
		t.Errorf("not read as partitioned: %s", table.CopyQuery(""))
	}
	last := table.Fingerprint
	for _, s := range []string{`ALTER TABLE p ATTACH PARTITION p2 FOR VALUES FROM (10) TO (20)`, `TRUNCATE p1`, `ALTER TABLE p DETACH PARTITION p1`,
		`BEGIN; ALTER TABLE p DETACH PARTITION p2; ALTER TABLE p ATTACH PARTITION p2 FOR VALUES FROM (10) TO (20); COMMIT`,
		`CREATE TABLE p3 PARTITION OF p DEFAULT PARTITION BY RANGE (id)`, `CREATE TABLE p4 PARTITION OF p3 DEFAULT`, `DROP TABLE p4`} {
		run(t, conn, s)
		now := loadTable(t, conn, "p").Fingerprint
		if now == last {
			t.Errorf("the fingerprint is the same after %s", s)
		}
		last = now
	}
}
