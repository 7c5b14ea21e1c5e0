package capture

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"capture/internal/pgserver"
	"capture/internal/postgres"
)

// authority is a certificate authority.
type authority struct {
	t    testing.TB
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
	pem  []byte
}

func newAuthority(t testing.TB) *authority {
	t.Helper()
	a := &authority{t: t}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "an authority of its own"},
		NotBefore: time.Now().Add(-48 * time.Hour), NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	a.cert, a.key = template, newKey(t)
	der, err := x509.CreateCertificate(rand.Reader, template, template, a.key.Public(), a.key)
	if err != nil {
		t.Fatal(err)
	}
	if a.cert, err = x509.ParseCertificate(der); err != nil {
		t.Fatal(err)
	}
	a.pem = pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	return a
}

func newKey(t testing.TB) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

// sign returns a certificate for a name, valid until the given time, and its key, both in PEM format.
func (a *authority) sign(name string, until time.Time) (cert, key []byte) {
	a.t.Helper()
	k := newKey(a.t)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: name},
		NotBefore: time.Now().Add(-24 * time.Hour), NotAfter: until, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, a.cert, k.Public(), a.key)
	if err != nil {
		a.t.Fatal(err)
	}
	secret, err := x509.MarshalPKCS8PrivateKey(k)
	if err != nil {
		a.t.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: secret})
}

// TestAccess: the server requires TLS with a private certificate authority, a client certificate and SCRAM. Status gives the
// reason if the password has changed, if the server's certificate has expired, or if capture has no client certificate. No
// secret reaches a log. capture continues once it knows the new password, and once the server has a valid certificate.
func TestAccess(t *testing.T) {
	t.Parallel()
	s := pgserver.ForTest(t, pgserver.Options{Settings: map[string]string{"password_encryption": "scram-sha-256"}})
	conn := connect(t, s.URL("postgres"))
	table(t, conn, 10)
	exec(t, conn, "CREATE ROLE follower LOGIN REPLICATION PASSWORD 'first-secret'; GRANT SELECT ON votes TO follower; CREATE PUBLICATION capture_votes FOR TABLE votes")
	ca := newAuthority(t)
	serve := func(until time.Time) {
		t.Helper()
		cert, key := ca.sign("127.0.0.1", until)
		for name, content := range map[string][]byte{"server.crt": cert, "server.key": key, "ca.crt": ca.pem} {
			if err := s.WriteFile(name, content); err != nil {
				t.Fatal(err)
			}
		}
		if err := s.Reload(t.Context(), map[string]string{"ssl": "on", "ssl_ca_file": "ca.crt"}); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.WriteFile("pg_hba.conf", []byte("host all postgres all trust\nhostssl all all all scram-sha-256 clientcert=verify-full\n")); err != nil {
		t.Fatal(err)
	}
	serve(time.Now().Add(time.Hour))

	dir := t.TempDir()
	write := func(name string, content []byte) string {
		t.Helper()
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, content, 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	cert, key := ca.sign("follower", time.Now().Add(time.Hour))
	u, err := url.Parse(s.URL("postgres"))
	if err != nil {
		t.Fatal(err)
	}
	u.User = url.User("follower")
	u.RawQuery = url.Values{
		"passfile": {write("pgpass", []byte("*:*:*:follower:first-secret\n"))},
		"sslmode":  {"verify-full"}, "sslrootcert": {write("ca.crt", ca.pem)},
		"sslcert": {write("client.crt", cert)}, "sslkey": {write("client.key", key)},
	}.Encode()
	cfg, address := config(t, u.String()), u.String()
	cfg.ReloadDatabase = func() (*pgx.ConnConfig, error) { return postgres.ParseConfig(address) }
	d := start(t, cfg)
	d.ready()
	if n := queryOne[int](t, conn, "SELECT count(*) FROM pg_stat_ssl JOIN pg_stat_replication USING (pid) WHERE ssl AND client_dn IS NOT NULL"); n != 1 {
		t.Errorf("%d replication connections with TLS and a client certificate", n)
	}
	d.flushAndCompare(conn, "votes", "vote_id")

	kick := "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'follower'"
	exec(t, conn, "ALTER ROLE follower PASSWORD 'second-secret'")
	d.flushAndCompare(conn, "votes", "vote_id") // open connections stay open
	exec(t, conn, kick)
	d.notReady("password is wrong")
	write("pgpass", []byte("*:*:*:follower:second-secret\n"))
	d.ready()

	serve(time.Now().Add(-time.Hour))
	exec(t, conn, kick)
	d.notReady("certificate is not valid", "renew it")
	serve(time.Now().Add(time.Hour))
	d.ready()
	d.flushAndCompare(conn, "votes", "vote_id")

	u.User = url.UserPassword("follower", "second-secret")
	u.RawQuery = url.Values{"sslmode": {"verify-full"}, "sslrootcert": {filepath.Join(dir, "ca.crt")}}.Encode()
	d2 := start(t, config(t, u.String()))
	d2.notReady("certificate")
	for i, d := range []*daemon{d, d2} {
		for _, secret := range []string{"first-secret", "second-secret"} {
			if strings.Contains(d.log.String(), secret) || strings.Contains(fmt.Sprintf("%+v", d.Status()), secret) {
				t.Errorf("daemon %d gives the password away", i)
			}
		}
	}
}
