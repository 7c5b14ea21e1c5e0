package postgres

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

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
		// The test connects as a superuser, and the pg_hba.conf of initdb lets this user copy the whole cluster. These two
		// findings are therefore warnings.
		want := OK
		if found.Name == "role" || found.Name == "physical replication" {
			want = Warn
		}
		if found.Level != want {
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
	server := pgserver.ForTest(t, pgserver.Options{Settings: map[string]string{"wal_level": "minimal", "max_wal_senders": "0"}})
	conn := connectTo(t, server.URL("postgres"))
	run(t, conn, votesSQL)
	d, f := diagnose(t, server.URL("postgres"), "", LocalResources{})
	if d.Source != "poll" || !strings.Contains(f["wal_level"].Hint, "ALTER SYSTEM SET wal_level = 'logical'") {
		t.Errorf("%+v", d)
	}
	if onDemand := strings.Contains(f["wal_level"].Reason, "or replica"); onDemand != (server.VersionNum() >= 190000) {
		t.Errorf("%+v", f["wal_level"])
	}
	s, err := LoadServer(testContext(t), conn)
	if err != nil {
		t.Fatal(err)
	}
	_, _, err = EnsurePublication(testContext(t), conn, &s, loadTable(t, conn, "votes"))
	wantProblem(t, err, "wal_level")
}

// TestDoctorAtReplica checks the findings at wal_level = replica. Up to PostgreSQL 18, this level excludes logical
// replication. From 19 on, it allows logical replication. But when the last logical slot of the primary is dropped, the
// logical slots of its standbys become invalid.
func TestDoctorAtReplica(t *testing.T) {
	t.Parallel()
	server := pgserver.ForTest(t, pgserver.Options{Settings: map[string]string{"wal_level": "replica"}})
	conn := connectTo(t, server.URL("postgres"))
	run(t, conn, votesSQL)
	d, f := diagnose(t, server.URL("postgres"), "", LocalResources{})
	if server.VersionNum() < 190000 {
		if d.Source != "poll" || f["wal_level"].Level != Warn || !strings.Contains(f["wal_level"].Hint, "'logical'; -- and restart") {
			t.Errorf("%+v", d)
		}
		return
	}
	if d.Source != "logical" || f["wal_level"].Level != OK || !strings.Contains(f["wal_level"].Reason, "become invalid") || f["replication slot"].Level != OK {
		t.Errorf("%+v", d)
	}
	setup(t, conn, "votes", SetupOptions{Source: "auto"})
	standby, err := server.Standby(testContext(t))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(standby.Close)
	run(t, conn, "CREATE ROLE reader LOGIN REPLICATION", "GRANT SELECT ON votes TO reader")
	d, f = diagnose(t, server.URL("postgres"), "reader", LocalResources{})
	if d.Source != "poll" || f["wal_level"].Level != Warn || !strings.Contains(f["wal_level"].Hint, "--source logical") || !strings.Contains(f["wal_level"].Found, "(standby)") {
		t.Errorf("with a standby: %+v", d)
	}
	_, err = SetupSQL(testContext(t), conn, loadTable(t, conn, "votes"), SetupOptions{Source: "auto"})
	wantProblem(t, err, "standby")
	setup(t, conn, "votes", SetupOptions{Source: "logical"})
}

// TestDoctorNamesOutputPlugins checks that capture can stream after somebody has run the statements in the hint unchanged.
// The statements allow pgoutput in addition to the plugins that were already allowed.
func TestDoctorNamesOutputPlugins(t *testing.T) {
	t.Parallel()
	server := pgserver.ForTest(t, pgserver.Options{})
	conn := connectTo(t, server.URL("postgres"))
	run(t, conn, votesSQL)
	var listed bool
	if err := conn.QueryRow(testContext(t), "SELECT EXISTS (SELECT FROM pg_settings WHERE name = 'output_plugin_libraries')").Scan(&listed); err != nil {
		t.Fatal(err)
	}
	if !listed {
		t.Skip("this server has no setting output_plugin_libraries")
	}
	for _, allowed := range []string{"test_decoding, wal2json", ""} {
		if err := server.Reload(testContext(t), map[string]string{"output_plugin_libraries": allowed}); err != nil {
			t.Fatal(err)
		}
		d, f := diagnose(t, server.URL("postgres"), "", LocalResources{})
		slot := f["replication slot"]
		if d.Source != "poll" || slot.Level != Warn || !strings.Contains(slot.Hint, "output_plugin_libraries") {
			t.Fatalf("with %q: %+v", allowed, d)
		}
		for _, statement := range strings.SplitAfter(slot.Hint, ";")[:2] {
			run(t, conn, statement)
		}
		for range 100 { // try again, because the server needs a moment to reload its configuration
			if d, f = diagnose(t, server.URL("postgres"), "", LocalResources{}); d.Source == "logical" {
				break
			}
		}
		if d.Source != "logical" {
			t.Errorf("after the hint %q: %+v", slot.Hint, f["replication slot"])
		}
		run(t, conn, "ALTER SYSTEM RESET output_plugin_libraries")
	}
}

// TestDoctorDoesWhatRunDoes checks that doctor finds what would stop capture run or make it wait, and says how to fix it.
func TestDoctorDoesWhatRunDoes(t *testing.T) {
	t.Parallel()
	server := pgserver.ForTest(t, pgserver.Options{Settings: map[string]string{"max_prepared_transactions": "5"}})
	url := server.URL("postgres")
	conn := connectTo(t, url)
	run(t, conn, "CREATE SCHEMA extensions", "CREATE EXTENSION citext SCHEMA extensions",
		"CREATE TABLE votes (vote_id extensions.citext PRIMARY KEY, c extensions.citext)", "CREATE ROLE reader LOGIN REPLICATION", "GRANT SELECT ON votes TO reader")

	d, f := diagnose(t, url, "reader", LocalResources{})
	if f["values"].Level != OK || !strings.Contains(f["rows by key"].Hint, "GRANT USAGE ON SCHEMA") || !strings.Contains(f["rows by key"].Hint, "extensions") {
		t.Errorf("without USAGE: %+v", d)
	}
	setup(t, conn, "votes", SetupOptions{Source: "logical"})
	d, f = diagnose(t, url, "reader", LocalResources{})
	if d.Source != "logical" || f["publication"].Level != Warn || !strings.Contains(f["publication"].Hint, "capture setup --role reader") || f["replication slot"].Level != OK {
		t.Errorf("with a publication of somebody else: %+v", d)
	}
	setup(t, conn, "votes", SetupOptions{Source: "logical", Role: "reader"})
	d, f = diagnose(t, url, "reader", LocalResources{})
	if f["publication"].Level != OK || f["rows by key"].Name != "" {
		t.Errorf("after setup: %+v", d)
	}
	if hint := f["physical replication"].Hint; !strings.Contains(hint, `host replication "reader" all reject`) || !strings.Contains(hint, `host "postgres" "reader"`) {
		t.Errorf("physical replication is admitted: %+v", f["physical replication"])
	}
	_, hba, _ := strings.Cut(f["physical replication"].Hint, "\n") // the hint's lines for pg_hba.conf; they begin with host, because the server has no TLS and hostssl would admit nobody
	hba = strings.ReplaceAll(hba, "<address>/32 scram-sha-256", "127.0.0.1/32 trust")
	server.WriteFile("pg_hba.conf", []byte(hba+"\nhost all all all trust\nhost replication all all trust\nlocal all all trust\n"))
	run(t, conn, "SELECT pg_reload_conf()")
	for range 100 { // try again, because the server needs a moment to reload its configuration
		if d, f = diagnose(t, url, "reader", LocalResources{}); f["physical replication"].Name == "" {
			break
		}
	}
	if d.Source != "logical" || f["physical replication"].Name != "" {
		t.Errorf("with these lines in pg_hba.conf: %+v", d)
	}

	run(t, conn, "CREATE TABLE other (id int)")
	run(t, conn, "BEGIN; INSERT INTO other VALUES (1); PREPARE TRANSACTION 'it''s lost'")
	d, f = diagnose(t, url, "reader", LocalResources{})
	if found := f["prepared transactions"].Found; d.Source != "logical" || !strings.Contains(found, "ROLLBACK PREPARED 'it''s lost'") || !strings.Contains(found, "of postgres") {
		t.Errorf("with an orphaned prepared transaction: %+v", d)
	}
	if f["replication slot"].Level != Warn || !strings.Contains(f["replication slot"].Reason, "it's lost") {
		t.Errorf("with an orphaned prepared transaction: %+v", f["replication slot"])
	}
}

// TestDoctorNamesColumnsThatSayLess checks that doctor warns about two kinds of columns: columns that show names of objects,
// which can become stale, and columns with the OIDs of large objects, whose contents are not in the row.
func TestDoctorNamesColumnsThatSayLess(t *testing.T) {
	t.Parallel()
	conn, url := database(t, "CREATE TABLE votes (vote_id serial PRIMARY KEY, plain text)")
	if _, f := diagnose(t, url, "", LocalResources{}); f["names of objects"].Name != "" || f["large objects"].Name != "" {
		t.Errorf("of ordinary columns: %+v", f)
	}
	run(t, conn, "CREATE DOMAIN lo AS oid", "CREATE TYPE pair AS (a int, who regrole)", `ALTER TABLE votes ADD relation regclass, ADD "Roles" regrole[],
		ADD nested pair, ADD kinds regtype, ADD picture lo, ADD oid_array oid[], ADD id8 int8`)
	_, f := diagnose(t, url, "", LocalResources{})
	if found := f["names of objects"]; found.Level != Warn || !strings.Contains(found.Found, "columns relation, Roles, nested, kinds show") {
		t.Errorf("%+v", found)
	}
	if found := f["large objects"]; found.Level != Warn || !strings.Contains(found.Found, "columns picture, oid_array hold") {
		t.Errorf("%+v", found)
	}
}

// TestStandbyCancellationIsExplained checks that Explain names two settings that help if a standby cancels a read. The
// server's own error does not say what to do.
func TestStandbyCancellationIsExplained(t *testing.T) {
	t.Parallel()
	err := Explain(&pgconn.PgError{Code: "40001", Message: "canceling statement due to conflict with recovery"})
	wantProblem(t, err, "hot_standby_feedback")
	wantProblem(t, err, "max_standby_streaming_delay")
}

// TestDoctorSaysWhetherTheCertificateIsVerified checks that doctor warns about a connection with TLS if the server's
// certificate is not fully verified. Without verification, TLS does not protect against an attacker between client and
// server.
func TestDoctorSaysWhetherTheCertificateIsVerified(t *testing.T) {
	t.Parallel()
	server := pgserver.ForTest(t, pgserver.Options{})
	certificate, key := selfSigned(t)
	for name, content := range map[string][]byte{"server.crt": certificate, "server.key": key} {
		if err := server.WriteFile(name, content); err != nil {
			t.Fatal(err)
		}
	}
	if err := server.Reload(testContext(t), map[string]string{"ssl": "on"}); err != nil {
		t.Fatal(err)
	}
	run(t, connectTo(t, server.URL("postgres")), votesSQL)
	root := filepath.Join(t.TempDir(), "root.crt")
	if err := os.WriteFile(root, certificate, 0o600); err != nil {
		t.Fatal(err)
	}
	for mode, want := range map[string]struct {
		level Level
		words string
	}{
		"require":                         {Warn, "nobody verified"},
		"prefer":                          {Warn, "nobody verified"},
		"verify-ca&sslrootcert=" + root:   {Warn, "any host name"},
		"verify-full&sslrootcert=" + root: {OK, "the certificate is verified"},
	} {
		url := strings.Replace(server.URL("postgres"), "sslmode=disable", "sslmode="+mode, 1)
		_, f := diagnose(t, url, "", LocalResources{})
		if found := f["encryption"]; found.Level != want.level || !strings.Contains(found.Found, want.words) || !strings.Contains(found.Found, "TLS 1.3") {
			t.Errorf("%s: %+v %+v", mode, found, f["connection"])
		}
		if hint := f["physical replication"].Hint; !strings.Contains(hint, `hostssl "postgres" "postgres"`) {
			t.Errorf("%s: the lines for pg_hba.conf are in %q", mode, hint)
		}
	}
}

// selfSigned returns a self-signed certificate for 127.0.0.1 and its private key.
func selfSigned(t *testing.T) (certificate, key []byte) {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, IsCA: true, BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &private.PublicKey, private)
	if err != nil {
		t.Fatal(err)
	}
	secret, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: secret})
}

// TestDoctorOnPlainConnections checks that doctor warns about a connection without TLS, unless the server is on this machine
// or in one of this machine's private networks.
func TestDoctorOnPlainConnections(t *testing.T) {
	t.Parallel()
	var networks []net.Addr
	for _, n := range []string{"127.0.0.1/8", "172.18.0.5/16", "10.1.0.4/16", "fd00::5/64", "8.8.8.1/24"} {
		ip, network, err := net.ParseCIDR(n)
		if err != nil {
			t.Fatal(err)
		}
		networks = append(networks, &net.IPNet{IP: ip, Mask: network.Mask})
	}
	for address, want := range map[string]Level{
		"127.0.0.1": OK, "::1": OK, "172.18.0.2": OK, "10.1.2.3": OK, "::ffff:10.1.2.3": OK, "fd00::2": OK,
		"10.2.2.3": Warn, "192.168.1.5": Warn, "fd00:1::2": Warn, // these addresses are private, but not in this machine's networks
		"172.32.0.1": Warn, "8.8.8.8": Warn, "2001:4860::1": Warn,
	} {
		f := unencryptedFinding(&net.TCPAddr{IP: net.ParseIP(address), Port: 5432}, networks)
		if f.Level != want || strings.Contains(f.Hint, "sslmode=verify-full") == net.ParseIP(address).IsLoopback() {
			t.Errorf("%s: %+v", address, f)
		}
	}
	if f := unencryptedFinding(&net.UnixAddr{Name: "/run/postgresql/.s.PGSQL.5432", Net: "unix"}, nil); f.Level != OK || f.Hint != "" {
		t.Errorf("Unix socket: %+v", f)
	}
}
