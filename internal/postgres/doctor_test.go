package postgres

import (
	"strings"
	"testing"

	"capture/internal/pgserver"
)

func diagnose(t *testing.T, url, user string, local LocalResources) (Diagnosis, map[string]Finding) {
	t.Helper()
	cfg, err := ParseConfig(url)
	if err != nil {
		t.Fatal(err)
	}
	if user != "" {
		cfg.User = user
	}
	d := Diagnose(testContext(t), cfg, Name{Table: "votes"}, local)
	byName := map[string]Finding{}
	for _, f := range d.Findings {
		byName[f.Name] = f
	}
	return d, byName
}

func TestDoctor(t *testing.T) {
	t.Parallel()
	s := pgserver.ForTest(t, pgserver.Options{Settings: map[string]string{"max_replication_slots": "1"}})
	url := s.URL("postgres")
	conn := connectTo(t, url)

	d, f := diagnose(t, url, "", LocalResources{})
	if d.Source != "" || f["table"].Level != Fail {
		t.Errorf("without a table: %+v", d)
	}
	run(t, conn, votesSQL)
	if d, _ = diagnose(t, url, "", LocalResources{}); d.Source != "logical" {
		t.Errorf("nothing is wrong, but: %+v", d)
	}
	for _, found := range d.Findings {
		if found.Level != OK {
			t.Errorf("nothing is wrong, but: %+v", found)
		}
	}
	if _, f = diagnose(t, url, "", LocalResources{Memory: 1, Disk: 1}); f["size"].Level != Warn {
		t.Errorf("with one byte of memory: %+v", f["size"])
	}

	run(t, conn, "CREATE ROLE reader LOGIN")
	if d, f = diagnose(t, url, "reader", LocalResources{}); d.Source != "" || !strings.Contains(f["privileges"].Hint, `GRANT SELECT ON "public"."votes" TO "reader"`) {
		t.Errorf("without SELECT: %+v", d)
	}
	run(t, conn, "GRANT SELECT ON votes TO reader")
	d, f = diagnose(t, url, "reader", LocalResources{})
	if d.Source != "poll" || !strings.Contains(f["right to replicate"].Hint, `ALTER ROLE "reader" REPLICATION`) ||
		!strings.Contains(f["publication"].Hint, "CREATE PUBLICATION") || !strings.Contains(f["triggers"].Hint, "capture setup") {
		t.Errorf("with SELECT only: %+v", d)
	}
	setup(t, conn, "votes", SetupOptions{Source: "notify"})
	if d, _ = diagnose(t, url, "reader", LocalResources{}); d.Source != "notify" {
		t.Errorf("with triggers: %+v", d)
	}
	run(t, conn, "ALTER ROLE reader REPLICATION")
	setup(t, conn, "votes", SetupOptions{Source: "logical"})
	if d, _ = diagnose(t, url, "reader", LocalResources{}); d.Source != "logical" {
		t.Errorf("with a publication: %+v", d)
	}
	run(t, conn, "SELECT pg_create_physical_replication_slot('taken')")
	if d, f = diagnose(t, url, "reader", LocalResources{}); d.Source != "notify" || f["replication slots"].Level != Warn {
		t.Errorf("without a free slot: %+v", d)
	}
	run(t, conn, "CREATE ROLE rds_superuser", "ALTER TABLE votes ENABLE ROW LEVEL SECURITY")
	if d, f = diagnose(t, url, "reader", LocalResources{}); d.Source != "" || !strings.Contains(f["privileges"].Hint, "BYPASSRLS") {
		t.Errorf("with row-level security: %+v", d)
	}
	run(t, conn, "ALTER TABLE votes DISABLE ROW LEVEL SECURITY", "ALTER ROLE reader NOREPLICATION")
	if _, f = diagnose(t, url, "reader", LocalResources{}); f["right to replicate"].Hint != `GRANT rds_replication TO "reader";` {
		t.Errorf("on RDS: %+v", f["right to replicate"])
	}
	s.Stop("fast")
	if d, f = diagnose(t, url, "", LocalResources{}); d.Source != "" || !strings.Contains(f["connection"].Reason, "nothing listens") {
		t.Errorf("without a server: %+v", d)
	}
}

func TestDoctorWithoutLogicalWAL(t *testing.T) {
	t.Parallel()
	server := pgserver.ForTest(t, pgserver.Options{Settings: map[string]string{"wal_level": "replica"}})
	conn := connectTo(t, server.URL("postgres"))
	run(t, conn, votesSQL)
	d, f := diagnose(t, server.URL("postgres"), "", LocalResources{})
	if d.Source != "poll" || !strings.Contains(f["wal_level"].Hint, "ALTER SYSTEM SET wal_level = 'logical'") {
		t.Errorf("%+v", d)
	}
	s, err := LoadServer(testContext(t), conn)
	if err != nil {
		t.Fatal(err)
	}
	_, _, err = EnsurePublication(testContext(t), conn, &s, loadTable(t, conn, "votes"))
	wantProblem(t, err, "wal_level")
}
