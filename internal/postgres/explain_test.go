package postgres

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgproto3"

	"capture/internal/pgserver"
)

// TestWrongPasswordAtSecondAttempt checks the error if pg_hba.conf refuses the attempt without TLS, and the server refuses
// the password in the attempt with TLS. The error reports only the second failure, because the user can correct the
// password.
func TestWrongPasswordAtSecondAttempt(t *testing.T) {
	t.Parallel()
	server := pgserver.ForTest(t, pgserver.Options{})
	run(t, connectTo(t, server.URL("postgres")), "CREATE ROLE locked LOGIN PASSWORD 'right'")
	certificate, key := selfSigned(t)
	for name, content := range map[string][]byte{"server.crt": certificate, "server.key": key,
		"pg_hba.conf": []byte("hostssl all locked 127.0.0.1/32 scram-sha-256\nhost all postgres 127.0.0.1/32 trust\n")} {
		if err := server.WriteFile(name, content); err != nil {
			t.Fatal(err)
		}
	}
	if err := server.Reload(testContext(t), map[string]string{"ssl": "on"}); err != nil {
		t.Fatal(err)
	}
	for mode, want := range map[string]string{"allow": "the password is wrong", "prefer": "the password is wrong", "disable": "pg_hba.conf"} {
		url := strings.NewReplacer("sslmode=disable", "sslmode="+mode, "postgres@", "locked:wrong@").Replace(server.URL("postgres"))
		cfg, err := ParseConfig(url)
		if err != nil {
			t.Fatal(err)
		}
		_, err = Connect(testContext(t), cfg)
		wantProblem(t, err, want)
		if err != nil && strings.Count(err.Error(), "FATAL") != 1 {
			t.Errorf("%s: %v", mode, err)
		}
		if class := Classify(err); class != map[bool]ErrorClass{true: Permanent, false: Unreachable}[mode == "disable"] {
			t.Errorf("%s: class %d", mode, class)
		}
	}
}

// TestExplainKeepsTheAttemptThatMatters checks which of the attempts with and without TLS an error shows. It shows only one
// attempt if the other attempt failed for the same reason, or only because the server requires TLS or does not offer TLS.
// Otherwise it shows both attempts.
func TestExplainKeepsTheAttemptThatMatters(t *testing.T) {
	t.Parallel()
	certificate, key := selfSigned(t)
	pair, err := tls.X509KeyPair(certificate, key)
	if err != nil {
		t.Fatal(err)
	}
	const (
		unencrypted = `28000 no pg_hba.conf entry for host "127.0.0.1", user "u", database "d", no encryption`
		encrypted   = `28000 no pg_hba.conf entry for host "127.0.0.1", user "u", database "d", SSL encryption`
		noCert      = "28000 connection requires a valid client certificate"
		starting    = "57P03 the database system is starting up"
		full        = "53300 sorry, too many clients already"
	)
	for name, c := range map[string]struct {
		mode         string
		byTLS, plain string // the server's answers with and without TLS, each with an SQLSTATE; "" cuts the connection
		want, not    []string
	}{
		"TLS fails, and is required":    {"prefer", "broken", unencrypted, []string{"startup message: write failed", "no encryption"}, nil},
		"both are cut":                  {"prefer", "broken", "", []string{"startup message: write failed", "failed to receive message"}, nil},
		"TLS is off":                    {"prefer", "off", "", []string{"failed to receive message"}, []string{"refused TLS", "tls error"}},
		"TLS is off, and not needed":    {"prefer", "off", full, []string{"too many clients"}, []string{"refused TLS", "tls error"}},
		"TLS is off, and is tried last": {"allow", "off", unencrypted, []string{"no encryption"}, []string{"refused TLS", "tls error"}},
		"neither is admitted":           {"prefer", encrypted, unencrypted, []string{"SSL encryption"}, []string{", no encryption"}},
		"only TLS, with a certificate":  {"allow", noCert, unencrypted, []string{"client certificate"}, []string{"pg_hba.conf entry"}},
		"both have the same answer":     {"prefer", starting, starting, []string{"starting up"}, []string{"tls error", "starting up (SQLSTATE 57P03) "}},
		"both have answers":             {"prefer", full, starting, []string{"too many", "starting up"}, nil},
	} {
		listener, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer listener.Close()
		go func() {
			for {
				conn, err := listener.Accept()
				if err != nil {
					return
				}
				answerLogin(conn, &tls.Config{Certificates: []tls.Certificate{pair}}, c.byTLS, c.plain)
				conn.Close()
			}
		}()
		cfg, err := ParseConfig(fmt.Sprintf("postgres://u@%s/d?sslmode=%s", listener.Addr(), c.mode))
		if err != nil {
			t.Fatal(err)
		}
		_, err = Connect(testContext(t), cfg)
		if err == nil {
			t.Fatalf("%s: connected", name)
		}
		for _, word := range c.want {
			if !strings.Contains(err.Error(), word) {
				t.Errorf("%s: %q lacks %q", name, err, word)
			}
		}
		for _, word := range c.not {
			if strings.Contains(err.Error(), word) {
				t.Errorf("%s: %q has %q", name, err, word)
			}
		}
	}
}

// answerLogin refuses a client. The answer is byTLS if the client uses TLS, and plain otherwise. If byTLS is "off", the
// server does not offer TLS. If byTLS is "broken", the connection ends during the TLS handshake.
func answerLogin(conn net.Conn, config *tls.Config, byTLS, plain string) {
	answer := plain
	backend := pgproto3.NewBackend(conn, conn)
	message, err := backend.ReceiveStartupMessage()
	if _, ok := message.(*pgproto3.SSLRequest); ok && err == nil {
		if byTLS == "off" {
			conn.Write([]byte("N"))
			return
		}
		conn.Write([]byte("S"))
		if byTLS == "broken" {
			return
		}
		answer = byTLS
		secure := tls.Server(conn, config)
		defer secure.Close()
		backend = pgproto3.NewBackend(secure, secure)
		_, err = backend.ReceiveStartupMessage()
	}
	if code, text, ok := strings.Cut(answer, " "); ok && err == nil {
		backend.Send(&pgproto3.ErrorResponse{Severity: "FATAL", Code: code, Message: text})
		backend.Flush()
	}
}

func TestConnectExplains(t *testing.T) {
	t.Parallel()
	s := pgserver.ForTest(t, pgserver.Options{Settings: map[string]string{"max_wal_senders": "1", "max_replication_slots": "1"}})
	conn := connectTo(t, s.URL("postgres"))
	run(t, conn, "CREATE ROLE plain LOGIN", "CREATE ROLE closed NOLOGIN", "CREATE ROLE locked LOGIN PASSWORD 'right'",
		"CREATE ROLE barred LOGIN", "CREATE DATABASE private", "REVOKE CONNECT ON DATABASE private FROM PUBLIC", "SELECT pg_create_physical_replication_slot('taken')")
	hba := filepath.Join(s.Dir(), "pg_hba.conf")
	rules := "host all barred 127.0.0.1/32 reject\nhost all locked 127.0.0.1/32 scram-sha-256\nhost all all 127.0.0.1/32 trust\n" +
		"local all all trust\n"
	if err := os.WriteFile(hba, []byte(rules), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := s.Reload(testContext(t), nil); err != nil {
		t.Fatal(err)
	}
	silent, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	closed, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	closed.Close()
	at := func(user, database, more string) string {
		cfg, err := pgx.ParseConfig(s.URL("postgres"))
		if err != nil {
			t.Fatal(err)
		}
		return fmt.Sprintf("host=127.0.0.1 port=%d user=%s password=hunter2 dbname=%s %s", cfg.Port, user, database, more)
	}
	holder, err := ParseConfig(at("postgres", "postgres", ""))
	if err != nil {
		t.Fatal(err)
	}
	ordinary := func(ctx context.Context, cfg *pgx.ConnConfig) error { _, err := Connect(ctx, cfg); return err }
	replication := func(ctx context.Context, cfg *pgx.ConnConfig) error {
		_, err := ConnectReplication(ctx, cfg)
		return err
	}
	slot := func(ctx context.Context, cfg *pgx.ConnConfig) error {
		pg, err := ConnectReplication(ctx, cfg)
		for err != nil && strings.Contains(err.Error(), "max_wal_senders") && ctx.Err() == nil {
			time.Sleep(20 * time.Millisecond) // the walsender of an earlier connection is still ending
			pg, err = ConnectReplication(ctx, cfg)
		}
		if err != nil {
			return err
		}
		defer pg.Close(ctx)
		return Explain(pg.Exec(ctx, "CREATE_REPLICATION_SLOT x TEMPORARY LOGICAL pgoutput").Close())
	}
	for _, c := range []struct {
		url     string
		connect func(context.Context, *pgx.ConnConfig) error
		word    string
	}{
		{at("locked", "postgres", ""), ordinary, "password is wrong"},
		{at("postgres", "nowhere", ""), ordinary, "database does not exist"},
		{at("nobody", "postgres", ""), ordinary, "CREATE ROLE"},
		{at("closed", "postgres", ""), ordinary, "LOGIN"},
		{at("barred", "postgres", ""), ordinary, "pg_hba.conf"},
		{at("plain", "postgres", ""), replication, "may not replicate"},
		{at("plain", "private", ""), ordinary, "GRANT CONNECT ON DATABASE"},
		{at("postgres", "postgres", ""), slot, "slots are in use"},
		{at("postgres", "postgres", "sslmode=require"), ordinary, "TLS switched off"},
		{at("postgres", "postgres", "options='-c pgbouncer=true'"), ordinary, "remove the parameter from --database-url"},
		{fmt.Sprintf("postgres://u:hunter2@%s/x", closed.Addr()), ordinary, "nothing listens"},
		{fmt.Sprintf("postgres://u:hunter2@%s/x?connect_timeout=1", silent.Addr()), ordinary, "did not answer in time"},
		{"postgres://u:hunter2@no-such-host.invalid/x", ordinary, "cannot be resolved"},
		{"host=/nowhere user=u password=hunter2", ordinary, "no server socket"},
	} {
		cfg, err := ParseConfig(c.url)
		if err != nil {
			t.Errorf("%s: %v", c.url, err)
			continue
		}
		err = c.connect(testContext(t), cfg)
		wantProblem(t, err, c.word)
		if err != nil && strings.Contains(err.Error(), "hunter2") {
			t.Errorf("the password is in %q", err)
		}
	}
	taken, err := ConnectReplication(testContext(t), holder)
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close(context.Background())
	_, err = ConnectReplication(testContext(t), holder)
	wantProblem(t, err, "no connection left")
}

func TestExplainKeepsTheCauseAndHidesPasswords(t *testing.T) {
	t.Parallel()
	cause := &pgconn.PgError{Code: "08P01", Message: "unsupported startup parameter: replication", Severity: "FATAL"}
	err := Explain(fmt.Errorf("connect to postgres://u:hunter2@h/d and password='hunter2 x' sslpassword=hunter2: %w", cause))
	wantProblem(t, err, "PgBouncer")
	wantProblem(t, err, "or use --source poll") // the hint does not name the source "notify", because a pooler loses notifications
	wantProblem(t, Explain(&pgconn.PgError{Code: "08P01", Message: "bouncer config error"}), "the pooler's log")
	if !errors.Is(err, cause) || strings.Contains(err.Error(), "hunter2") {
		t.Errorf("got %v", err)
	}
	if err := errors.New("something else"); Explain(err) != err || Explain(nil) != nil {
		t.Error("an error that needs no explanation is changed")
	}
}

func TestNoPartOfPasswordIsShown(t *testing.T) {
	t.Parallel()
	for _, text := range []string{
		"postgres://u:hunter2@h/d", "postgres://u:@hunter2@h/d", "postgres://u:hunter2@hunter2@h/d", "postgres://u:hunter2:/@hunter2@h/d?sslmode=disable",
		"postgres://:hunter2@h/d", "a pooler of postgresql://u:hunter2/hunter2@h, and postgres://u:hunter2@hunter2@[::1]:5432/d",
		"password=hunter2@hunter2", `password='hunter2 \'hunter2' host=h`, "postgres://h/d?user=u&password=hunter2@hunter2&sslmode=disable",
	} {
		if got := withoutPasswords(text); strings.Contains(got, "hunter2") || !strings.Contains(got, "…") {
			t.Errorf("%s becomes %s", text, got)
		}
	}
}
