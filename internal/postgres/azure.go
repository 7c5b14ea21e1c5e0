package postgres

import (
	"context"
	"crypto/tls"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net"
	"regexp"
	"strings"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/policy"
	"github.com/Azure/azure-sdk-for-go/sdk/azidentity"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"capture/internal/foreign"
)

// azureScope is the scope of a token for Azure Database for PostgreSQL; see "Microsoft Entra authentication" in Azure's
// documentation of that service.
const azureScope = "https://ossrdbms-aad.database.windows.net/.default"

// UseAzureTokens makes every connection with cfg authenticate with a Microsoft Entra token instead of a password. A connection
// gets its token after the TLS handshake. The token is for the identity that the environment offers: a workload identity, a
// managed identity, or a service principal in environment variables. UseAzureTokens returns an error if cfg allows a connection
// without TLS, over which the token would travel in clear text.
func UseAzureTokens(cfg *pgx.ConnConfig) error {
	secured := cfg.TLSConfig != nil
	for _, fallback := range cfg.Fallbacks {
		secured = secured && fallback.TLSConfig != nil
	}
	if !secured {
		return fmt.Errorf("the token would travel in clear text: it needs TLS on every host; set sslmode to verify-full, verify-ca or require")
	}
	identity, err := azidentity.NewDefaultAzureCredential(nil)
	if err != nil {
		return azureProblem(err)
	}
	cfg.Password = ""
	// Connect and ConnectReplication pass copies of cfg to pgx, so c belongs to this connection alone.
	cfg.AfterNetConnect = func(ctx context.Context, c *pgconn.Config, conn net.Conn) (net.Conn, error) {
		if _, ok := conn.(*tls.Conn); !ok {
			return conn, problemf("a Microsoft Entra token must not travel in clear text", "set sslmode=verify-full", "the connection is not encrypted")
		}
		token, err := azureToken(ctx, identity)
		if err == nil {
			c.Password = token
		}
		return conn, err
	}
	return nil
}

func azureToken(ctx context.Context, identity azcore.TokenCredential) (string, error) {
	token, err := identity.GetToken(ctx, policy.TokenRequestOptions{Scopes: []string{azureScope}})
	switch {
	case err != nil:
		return "", azureProblem(err)
	case token.Token == "" || strings.ContainsRune(token.Token, 0):
		// The protocol sends the password as a zero-terminated string, so a zero byte would end it too early.
		return "", azureProblem(fmt.Errorf("the answer has no usable token"))
	}
	return token.Token, nil
}

// secretLike matches text that may be a token or a part of a token.
var secretLike = regexp.MustCompile(`[A-Za-z0-9_.+=~-]{60,}`)

// azureProblem returns a Problem that explains why capture has no token. The errors of azidentity span several lines and
// quote the response that was to contain the token, so azureProblem removes everything that may be a token. The Problem does
// not wrap err, because err's text may still contain a token.
func azureProblem(err error) *Problem {
	text := oneLine(secretLike.ReplaceAllString(err.Error(), "…"))
	return problemf("--database-auth azure asks a workload identity, a managed identity, or AZURE_CLIENT_ID, AZURE_TENANT_ID and AZURE_CLIENT_SECRET for it: "+
		foreign.Text(text), "assign an identity to this machine or container; for a user-assigned one, set AZURE_CLIENT_ID to its client ID; or use --database-auth password",
		"cannot get a Microsoft Entra token")
}

// AzureIdentityFinding requests a token and reports which identity the token names. roleExists tells whether cfg's role exists.
// If it does not exist, the finding's hint has the SQL that creates the role for the token's identity and grants the role what
// capture needs for the table.
func AzureIdentityFinding(ctx context.Context, cfg *pgx.ConnConfig, table Name, roleExists bool) Finding {
	const name = "Azure identity"
	identity, err := azidentity.NewDefaultAzureCredential(nil)
	var token string
	if err == nil {
		ctx, cancel := context.WithTimeout(ctx, cfg.ConnectTimeout)
		defer cancel()
		token, err = azureToken(ctx, identity)
	}
	if err != nil {
		p := azureProblem(err)
		if known, ok := err.(*Problem); ok {
			p = known
		}
		return Finding{Name: name, Level: Fail, Found: p.Summary, Reason: p.Reason, Hint: p.Hint}
	}
	claims := azureClaims(token)
	f := Finding{Name: name, Level: OK, Found: "a token of " + claims.String()}
	if !roleExists {
		f.Reason = fmt.Sprintf("the role %s must exist in the database and belong to this identity", foreign.Text(cfg.User))
		f.Hint = claims.createRoleSQL(cfg, table)
	}
	return f
}

// tokenClaims are the claims by which a token names its identity.
type tokenClaims struct{ upn, scopes, appID, objectID string }

// azureClaims returns the claims of a JSON Web Token (RFC 7519) without verifying its signature, which is left to the server. A
// claim that is missing is empty.
func azureClaims(token string) tokenClaims {
	parts := strings.Split(token, ".")
	if len(parts) != 3 {
		return tokenClaims{}
	}
	var claims map[string]any
	if payload, err := base64.RawURLEncoding.DecodeString(strings.TrimRight(parts[1], "=")); err != nil || json.Unmarshal(payload, &claims) != nil {
		return tokenClaims{}
	}
	text := func(name string) string {
		s, _ := claims[name].(string)
		return s
	}
	return tokenClaims{upn: text("upn"), scopes: text("scp"), appID: text("appid"), objectID: text("oid")}
}

// String returns the claims as text that is safe to display.
func (c tokenClaims) String() string {
	var parts []string
	for _, claim := range []struct{ name, value string }{{"user", c.upn}, {"application (appid)", c.appID}, {"object (oid)", c.objectID}} {
		if claim.value != "" {
			parts = append(parts, claim.name+" "+foreign.Text(claim.value))
		}
	}
	if len(parts) == 0 {
		return "an identity that it does not name"
	}
	return strings.Join(parts, ", ")
}

var objectID = regexp.MustCompile(`^[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}$`)

// createRoleSQL returns the SQL that an administrator runs to create the role of cfg and to grant it what capture needs. The
// grants are those of [SetupSQL], which cannot be used here because it needs a connection.
func (c tokenClaims) createRoleSQL(cfg *pgx.ConnConfig, table Name) string {
	role, literal := QuoteIdentifier(cfg.User), QuoteLiteral(cfg.User)
	schema := table.Schema
	if schema == "" {
		schema = "public"
	}
	lines := []string{
		"-- in the database postgres, as a Microsoft Entra administrator of the server:",
		"select * from pgaadauth_create_principal(" + literal + ", false, false);",
	}
	if objectID.MatchString(c.objectID) {
		kind := "service"
		// A token with a upn or scopes belongs to a user. The token of a guest user has scopes but no upn.
		if c.upn != "" || c.scopes != "" {
			kind = "user"
		}
		lines = append(lines, "-- or, if the identity has another name in Microsoft Entra than the role:",
			"select * from pgaadauth_create_principal_with_oid("+literal+", '"+c.objectID+"', '"+kind+"', false, false);")
	}
	return strings.Join(append(lines,
		"ALTER ROLE "+role+" REPLICATION; -- if the server refuses this, first: ALTER ROLE CURRENT_USER REPLICATION;",
		"-- in the database "+foreign.Text(databaseName(&cfg.Config))+", as the table's owner (capture setup --role does these, and creates the publication):",
		"GRANT CONNECT ON DATABASE "+QuoteIdentifier(databaseName(&cfg.Config))+" TO "+role+";",
		"GRANT USAGE ON SCHEMA "+QuoteIdentifier(schema)+" TO "+role+";",
		"GRANT SELECT ON "+table.Quoted()+" TO "+role+";"), "\n")
}
