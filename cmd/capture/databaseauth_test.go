package main

import (
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"fmt"
	"io/fs"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"capture/internal/pgserver"
)

// TestAzureTokenReplacesPassword: after the token has been replaced, the daemon reconnects with the new token. Nothing that it
// writes contains a token.
func TestAzureTokenReplacesPassword(t *testing.T) {
	t.Parallel()
	tokens := make([]string, 2)
	for i := range tokens {
		part := base64.RawURLEncoding.EncodeToString
		tokens[i] = part([]byte(`{"alg":"none"}`)) + "." + part([]byte(`{"appid":"the-app"}`)) + "." + part(fmt.Appendf(nil, "secret of token %d, %s", i, t.TempDir()))
	}
	var token atomic.Value
	token.Store(tokens[0])
	endpoint := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		fmt.Fprintf(w, `{"access_token":%q,"expires_on":"%d","token_type":"Bearer"}`, token.Load(), time.Now().Add(time.Minute).Unix())
	}))
	t.Cleanup(endpoint.Close)

	server := pgserver.ForTest(t, pgserver.Options{})
	admin := server.URL("postgres")
	sql(t, admin, pgserver.VotesTable, "INSERT INTO votes (comment) VALUES ('first')", "CREATE ROLE capture LOGIN REPLICATION PASSWORD '"+tokens[0]+"'",
		"GRANT SELECT ON votes TO capture", "CREATE PUBLICATION capture_votes FOR TABLE votes")
	secured := httptest.NewTLSServer(nil) // provides a certificate
	certificate := secured.TLS.Certificates[0]
	secured.Close()
	key, err := x509.MarshalPKCS8PrivateKey(certificate.PrivateKey)
	if err != nil {
		t.Fatal(err)
	}
	for name, content := range map[string][]byte{
		"server.crt":  pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: certificate.Certificate[0]}),
		"server.key":  pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: key}),
		"pg_hba.conf": []byte("hostssl all capture 127.0.0.1/32 password\nhost all postgres 127.0.0.1/32 trust\n"),
	} {
		if err := server.WriteFile(name, content); err != nil {
			t.Fatal(err)
		}
	}
	if err := server.Reload(t.Context(), map[string]string{"ssl": "on"}); err != nil {
		t.Fatal(err)
	}

	dir := t.TempDir()
	env := []string{
		"DATABASE_URL=" + strings.NewReplacer("sslmode=disable", "sslmode=require", "postgres@", "capture@").Replace(admin),
		"CAPTURE_DATABASE_AUTH=azure", "IDENTITY_ENDPOINT=" + endpoint.URL, "IDENTITY_HEADER=header",
	}
	d := startIn(t, dir, env, "run", "--listen=127.0.0.1:0", "--source=logical", "--log-level=trace")
	d.ready()
	token.Store(tokens[1])
	sql(t, admin, "ALTER ROLE capture PASSWORD '"+tokens[1]+"'", "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'capture'",
		"INSERT INTO votes (comment) VALUES ('after the new token')")
	eventually(t, "the vote after the new token", func() bool {
		content, err := os.ReadFile(d.path)
		return err == nil && strings.Contains(string(content), "after the new token")
	})
	status, _ := get(t, "http://"+d.address()+"/readyz")
	metrics, _ := get(t, "http://"+d.address()+"/metrics")
	doctor := run(t, dir, env, "doctor")
	if doctor.code != exitDone || !strings.Contains(doctor.stdout, "application (appid) the-app") {
		t.Errorf("%+v", doctor)
	}
	if verified := run(t, dir, env, "verify"); verified.code != exitDone {
		t.Errorf("%+v", verified)
	}
	refused := run(t, dir, append(env, "PGSSLMODE=prefer", "DATABASE_URL=postgres://capture@h/d"), "setup")
	if refused.code != exitUsage || !strings.Contains(refused.stderr, "--database-auth azure: the token would travel in clear text") {
		t.Errorf("%+v", refused)
	}
	written := map[string]string{"stdout": d.stdout.String(), "stderr": d.stderr.String(), "status": string(status), "metrics": string(metrics), "doctor": doctor.stdout + doctor.stderr}
	err = filepath.WalkDir(dir, func(path string, entry fs.DirEntry, err error) error {
		if err == nil && entry.Type().IsRegular() {
			var content []byte
			content, err = os.ReadFile(path)
			written[path] = string(content)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	for name, text := range written {
		for _, token := range tokens {
			if strings.Contains(text, strings.Split(token, ".")[2]) {
				t.Errorf("%s has a token", name)
			}
		}
	}
}
