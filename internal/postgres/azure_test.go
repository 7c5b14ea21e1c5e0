package postgres

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"capture/internal/pgserver"
)

const testOID = "00000000-1111-2222-3333-444444444444"

// azureTestToken returns a token with the claims of a managed identity. The number is part of the claims, so each number
// gives a different token.
func azureTestToken(t *testing.T, number int) string {
	t.Helper()
	claims, err := json.Marshal(map[string]any{"oid": testOID, "appid": fmt.Sprintf("app-%d\x1b[31m", number), "exp": 1, "padding": strings.Repeat("x", 100)})
	if err != nil {
		t.Fatal(err)
	}
	encode := base64.RawURLEncoding.EncodeToString
	return encode([]byte(`{"alg":"none"}`)) + "." + encode(claims) + "." + encode([]byte("TOKENSECRET-that-nobody-may-see-in-any-message-or-log"))
}

// tokenEndpoint imitates the token endpoint of Azure App Service. Its tokens expire so soon that azidentity does not cache
// them.
type tokenEndpoint struct {
	requests atomic.Int64
	token    atomic.Value // string
	refuse   atomic.Bool
}

func startTokenEndpoint(t *testing.T) *tokenEndpoint {
	t.Helper()
	e := &tokenEndpoint{}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		e.requests.Add(1)
		if r.Header.Get("X-Identity-Header") != "header" || r.URL.Query().Get("resource") != strings.TrimSuffix(azureScope, "/.default") || e.refuse.Load() {
			w.WriteHeader(http.StatusBadRequest)
			fmt.Fprintf(w, `{"error":"no identity here\u001b[2J","quoted":%q}`, e.token.Load())
			return
		}
		w.Header().Set("Content-Type", "application/json")
		fmt.Fprintf(w, `{"access_token":%q,"expires_on":"%d","resource":"r","token_type":"Bearer"}`, e.token.Load(), time.Now().Add(time.Minute).Unix())
	}))
	t.Cleanup(server.Close)
	t.Setenv("IDENTITY_ENDPOINT", server.URL)
	t.Setenv("IDENTITY_HEADER", "header")
	return e
}

// TestAzureTokens checks that each connection, including a replication connection, gets a token of its own over TLS. The role
// accepts only the newest token, so the server would refuse a token that capture kept.
func TestAzureTokens(t *testing.T) {
	endpoint := startTokenEndpoint(t)
	server := pgserver.ForTest(t, pgserver.Options{})
	admin := connectTo(t, server.URL("postgres"))
	run(t, admin, `CREATE ROLE "an identity" LOGIN REPLICATION`)
	certificate, key := selfSigned(t)
	for name, content := range map[string][]byte{"server.crt": certificate, "server.key": key,
		"pg_hba.conf": []byte("hostssl all \"an identity\" 127.0.0.1/32 password\nhost all postgres 127.0.0.1/32 trust\n")} {
		if err := server.WriteFile(name, content); err != nil {
			t.Fatal(err)
		}
	}
	if err := server.Reload(testContext(t), map[string]string{"ssl": "on"}); err != nil {
		t.Fatal(err)
	}
	url := func(mode string) string {
		return strings.NewReplacer("sslmode=disable", "sslmode="+mode, "postgres@", "an%20identity:ignored@").Replace(server.URL("postgres"))
	}
	cfg, err := ParseConfig(url("require"))
	if err != nil {
		t.Fatal(err)
	}
	if err := UseAzureTokens(cfg); err != nil {
		t.Fatal(err)
	}
	renew := func(number int) {
		token := azureTestToken(t, number)
		endpoint.token.Store(token)
		run(t, admin, `ALTER ROLE "an identity" PASSWORD '`+token+`'`)
	}
	for number := range 2 {
		renew(number)
		conn, err := Connect(testContext(t), cfg)
		if err != nil {
			t.Fatal(err)
		}
		conn.Close(testContext(t))
	}
	renew(2)
	pg, err := ConnectReplication(testContext(t), cfg)
	if err != nil {
		t.Fatal(err)
	}
	pg.Close(testContext(t))
	if n := endpoint.requests.Load(); n != 3 || cfg.Password != "" {
		t.Errorf("3 connections have asked for %d tokens; the configuration keeps %d bytes", n, len(cfg.Password))
	}

	finding := AzureIdentityFinding(testContext(t), cfg, Name{Table: "votes"}, false)
	if finding.Level != OK || !strings.Contains(finding.Found, testOID) || !strings.Contains(finding.Found, `app-2\x1b[31m`) {
		t.Errorf("%+v", finding)
	}
	for _, want := range []string{
		"select * from pgaadauth_create_principal('an identity', false, false);",
		"pgaadauth_create_principal_with_oid('an identity', '" + testOID + "', 'service', false, false);",
		`ALTER ROLE "an identity" REPLICATION;`, `GRANT CONNECT ON DATABASE "postgres" TO "an identity";`,
		`GRANT USAGE ON SCHEMA "public" TO "an identity";`, `GRANT SELECT ON "votes" TO "an identity";`,
	} {
		if !strings.Contains(finding.Hint, want) {
			t.Errorf("the hint lacks %s:\n%s", want, finding.Hint)
		}
	}
	if known := AzureIdentityFinding(testContext(t), cfg, Name{Table: "votes"}, true); known.Hint != "" {
		t.Errorf("the role exists: %+v", known)
	}

	// If the server refuses a token, or if an endpoint refuses the request and quotes a token, no message contains the token.
	endpoint.token.Store(azureTestToken(t, 3))
	_, refused := Connect(testContext(t), cfg)
	endpoint.refuse.Store(true)
	_, missing := Connect(testContext(t), cfg)
	_, replication := ConnectReplication(testContext(t), cfg)
	finding = AzureIdentityFinding(testContext(t), cfg, Name{Table: "votes"}, false)
	wantProblem(t, refused, "password")
	wantProblem(t, missing, "AZURE_CLIENT_ID")
	wantProblem(t, replication, "no identity here")
	if finding.Level != Fail || !strings.Contains(finding.Found, "cannot get a Microsoft Entra token") {
		t.Errorf("%+v", finding)
	}
	token := strings.Split(endpoint.token.Load().(string), ".")
	for _, text := range []string{fmt.Sprint(refused), fmt.Sprint(missing), fmt.Sprint(replication), fmt.Sprint(finding)} {
		if strings.Contains(text, token[1]) || strings.Contains(text, token[2]) || strings.Contains(text, "\x1b") {
			t.Errorf("a message has the token or an escape: %q", text)
		}
	}

	for _, mode := range []string{"disable", "allow", "prefer"} {
		cfg, err := ParseConfig(url(mode))
		if err != nil {
			t.Fatal(err)
		}
		if err := UseAzureTokens(cfg); err == nil || !strings.Contains(err.Error(), "sslmode") {
			t.Errorf("sslmode=%s: %v", mode, err)
		}
	}
}

// TestAzureTokensNeedTLS checks that an unencrypted connection gets no token, even if the configuration required TLS when
// UseAzureTokens was called.
func TestAzureTokensNeedTLS(t *testing.T) {
	endpoint := startTokenEndpoint(t)
	endpoint.token.Store(azureTestToken(t, 0))
	_, url := database(t)
	cfg, err := ParseConfig(strings.Replace(url, "sslmode=disable", "sslmode=require", 1))
	if err != nil {
		t.Fatal(err)
	}
	if err := UseAzureTokens(cfg); err != nil {
		t.Fatal(err)
	}
	cfg.TLSConfig = nil
	_, err = Connect(testContext(t), cfg)
	wantProblem(t, err, "not encrypted")
	if n := endpoint.requests.Load(); n != 0 {
		t.Errorf("%d tokens were asked for", n)
	}
}

// TestAzureClaims checks that any text in a token is safe to display, and that an object ID becomes part of the SQL only if
// it has the form of a UUID.
func TestAzureClaims(t *testing.T) {
	cfg, err := ParseConfig("host=h user=o'brien dbname=app sslmode=require")
	if err != nil {
		t.Fatal(err)
	}
	for payload, want := range map[string]string{
		"": "does not name", "{": "does not name", "null": "does not name", `{"oid":7}`: "does not name",
		`{"upn":"a@b\u202e","oid":"x', true); DROP TABLE votes; --"}`: `user a@b\u202e, object (oid) x', true)`,
	} {
		claims := azureClaims("e30." + base64.RawURLEncoding.EncodeToString([]byte(payload)) + ".x")
		if got := claims.String(); !strings.Contains(got, want) {
			t.Errorf("%s: %s", payload, got)
		}
		sql := claims.createRoleSQL(cfg, Name{Schema: "s", Table: "v"})
		if strings.Contains(sql, "DROP") || !strings.Contains(sql, "pgaadauth_create_principal('o''brien', false, false)") || !strings.Contains(sql, `SCHEMA "s"`) {
			t.Errorf("%s: %s", payload, sql)
		}
	}
	for payload, kind := range map[string]string{
		`{"upn":"a@b","scp":"user_impersonation","oid":"` + testOID + `"}`: "user", `{"scp":"user_impersonation","oid":"` + testOID + `"}`: "user",
		`{"appid":"x","oid":"` + testOID + `"}`: "service",
	} {
		sql := azureClaims("e30."+base64.RawURLEncoding.EncodeToString([]byte(payload))+".x").createRoleSQL(cfg, Name{Table: "v"})
		if want := "('o''brien', '" + testOID + "', '" + kind + "', false, false)"; !strings.Contains(sql, want) {
			t.Errorf("%s: no %s in %s", payload, want, sql)
		}
	}
	for _, token := range []string{"", "opaque", "a.b", "a.!!!.c", "....."} {
		if got := azureClaims(token); got != (tokenClaims{}) {
			t.Errorf("%q: %+v", token, got)
		}
	}
}
