package main

import (
	"bufio"
	bigendian "encoding/binary"
	"fmt"
	"io"
	"net"
	"net/http"
	neturl "net/url"
	"os"
	"strings"
	"syscall"
	"testing"

	"capture/capture"
	"capture/internal/pgserver"
)

// plantSQL creates what a hostile owner of the database could create in the schema public: operators for every pair of numeric
// types and every pair of text types, and a copy of every function, aggregate and operator of pg_catalog that can be copied.
// Each function and operator writes SHADOWED to the server's log when a statement calls it.
const plantSQL = `
DO $plant$
DECLARE
	f record;
	planted int := 0;
	body text := $$ BEGIN RAISE LOG 'SHADOWED %% by %%', %L, current_user; RETURN NULL; END $$;
BEGIN
	-- The functions behind the operators of mixed pairs.
	FOR f IN
		SELECT l, r, op, CASE WHEN op IN ('+', '-', '*', '/', '%', '&', '|') THEN l WHEN op = '||' THEN 'pg_catalog.text' ELSE 'pg_catalog.bool' END AS result
		FROM (VALUES ('{int2,int4,int8,float4,float8,numeric,oid,regclass,money}'::text[], '{=,<>,<,<=,>,>=,+,-,*,/,%,&,|}'::text[]),
			('{text,varchar,bpchar,name,char}', '{=,<>,<,<=,>,>=,||,~~,!~~,~~*,~,!~,^@}'),
			('{text,int2,int4,int8,numeric,oid,name,pg_lsn,xid,timestamptz}', '{||}'),
			('{oid,xid,int4,int8,regclass,regtype}', '{=,<>}')) v(types, ops),
			LATERAL (SELECT 'pg_catalog.' || pg_catalog.quote_ident(t) AS l FROM unnest(types) t) a,
			LATERAL (SELECT 'pg_catalog.' || pg_catalog.quote_ident(t) AS r FROM unnest(types) t) b,
			unnest(ops) op
	LOOP
		BEGIN
			planted := planted + 1;
			EXECUTE format('CREATE FUNCTION public.shadow_%s(%s, %s) RETURNS %s LANGUAGE plpgsql AS %L', planted, f.l, f.r, f.result,
				format(body, f.l || ' ' || f.op || ' ' || f.r));
			EXECUTE format('CREATE OPERATOR public.%s (LEFTARG = %s, RIGHTARG = %s, FUNCTION = public.shadow_%s)', f.op, f.l, f.r, planted);
		EXCEPTION WHEN duplicate_function OR invalid_function_definition THEN NULL;
		END;
	END LOOP;
	-- Every function and aggregate whose signature can be copied.
	FOR f IN
		SELECT p.proname AS name, pg_catalog.pg_get_function_identity_arguments(p.oid) AS args, pg_catalog.format_type(p.prorettype, NULL) AS result,
			p.proretset AS setof, p.prokind AS kind
		FROM pg_catalog.pg_proc p
		WHERE p.pronamespace = 'pg_catalog'::regnamespace AND p.prokind IN ('f', 'a')
			AND NOT EXISTS (SELECT FROM pg_catalog.pg_type t WHERE t.typtype = 'p' AND (t.oid = p.prorettype OR t.oid = ANY (p.proargtypes))
				AND t.typname NOT IN ('anyelement', 'anyarray', 'anynonarray', 'void', 'record'))
			AND NOT (p.prorettype = 'record'::regtype)
	LOOP
		BEGIN
			IF f.kind = 'a' THEN
				EXECUTE format('CREATE FUNCTION public.shadow_sfunc(pg_catalog.text%s) RETURNS pg_catalog.text LANGUAGE plpgsql AS %L',
					CASE WHEN f.args = '' THEN '' ELSE ', ' || f.args END, format(body, 'aggregate ' || f.name));
			END IF;
		EXCEPTION WHEN OTHERS THEN NULL;
		END;
		BEGIN
			planted := planted + 1;
			IF f.kind = 'a' THEN
				EXECUTE format('CREATE AGGREGATE public.%I(%s) (SFUNC = public.shadow_sfunc, STYPE = pg_catalog.text)', f.name,
					CASE WHEN f.args = '' THEN '*' ELSE f.args END);
			ELSIF f.setof THEN
				EXECUTE format('CREATE FUNCTION public.%I(%s) RETURNS SETOF %s LANGUAGE plpgsql AS %L', f.name, f.args, f.result,
					replace(format(body, f.name), 'RETURN NULL', 'RETURN'));
			ELSIF f.result = 'void' THEN
				EXECUTE format('CREATE FUNCTION public.%I(%s) RETURNS void LANGUAGE plpgsql AS %L', f.name, f.args,
					replace(format(body, f.name), 'RETURN NULL', 'RETURN'));
			ELSE
				EXECUTE format('CREATE FUNCTION public.%I(%s) RETURNS %s LANGUAGE plpgsql AS %L', f.name, f.args, f.result, format(body, f.name));
			END IF;
		EXCEPTION WHEN OTHERS THEN planted := planted - 1;
		END;
	END LOOP;
	-- Every operator of pg_catalog, for paths that name public first.
	FOR f IN
		SELECT o.oprname AS name, pg_catalog.format_type(o.oprleft, NULL) AS l, pg_catalog.format_type(o.oprright, NULL) AS r,
			pg_catalog.format_type(o.oprresult, NULL) AS result
		FROM pg_catalog.pg_operator o WHERE o.oprnamespace = 'pg_catalog'::regnamespace AND o.oprleft <> 0
	LOOP
		BEGIN
			planted := planted + 1;
			EXECUTE format('CREATE FUNCTION public.shadow_%s(%s, %s) RETURNS %s LANGUAGE plpgsql AS %L', planted, f.l, f.r, f.result,
				format(body, f.l || ' ' || f.name || ' ' || f.r));
			EXECUTE format('CREATE OPERATOR public.%s (LEFTARG = %s, RIGHTARG = %s, FUNCTION = public.shadow_%s)', f.name, f.l, f.r, planted);
		EXCEPTION WHEN OTHERS THEN planted := planted - 1;
		END;
	END LOOP;
	IF planted < 3000 THEN RAISE EXCEPTION 'only % shadows', planted; END IF;
END $plant$`

// attackedTable has a key, a generated column, and columns whose types and functions lie outside pg_catalog.
const attackedTable = `
CREATE SCHEMA extensions;
CREATE EXTENSION citext SCHEMA extensions;
CREATE EXTENSION hstore SCHEMA extensions;
CREATE DOMAIN extensions.score AS int4 CHECK (VALUE >= 0);
CREATE TABLE public.votes (vote_id serial, kind extensions.citext DEFAULT 'up', amount numeric(10,2) NOT NULL DEFAULT 1.5, comment text,
	tags text[], props extensions.hstore, score extensions.score, twice int GENERATED ALWAYS AS (vote_id * 2) STORED,
	"timestamp" timestamp DEFAULT CURRENT_TIMESTAMP, PRIMARY KEY (vote_id, kind, amount));
INSERT INTO public.votes (comment, tags, props, score) SELECT 'comment ' || n, ARRAY['a', 'b'], 'k=>v', n FROM pg_catalog.generate_series(1, 50) n`

// TestSearchPathIsNotTrusted runs every command against a database whose owner has planted operators and functions. These
// match the argument types better than Postgres' own operators and functions, or come first on the search path. The test
// checks that no session of capture calls one of them.
func TestSearchPathIsNotTrusted(t *testing.T) {
	t.Parallel()
	server := pgserver.ForTest(t, pgserver.Options{Settings: map[string]string{
		"log_line_prefix": "'[%a] '", "log_min_error_statement": "log", "max_prepared_transactions": "5",
	}})
	sql(t, server.URL("postgres"), "CREATE ROLE owner LOGIN", "CREATE DATABASE planted OWNER owner")
	planted := appURL(t, server.URL("planted"), "postgres", "app", "pg_catalog")
	for _, s := range strings.Split(attackedTable, ";\n") {
		sql(t, planted, s)
	}
	sql(t, planted, "ALTER SCHEMA public OWNER TO owner", "ALTER TABLE public.votes OWNER TO owner", "GRANT USAGE ON SCHEMA extensions TO owner")
	sql(t, appURL(t, planted, "owner", "app", "pg_catalog"), plantSQL)
	for _, v := range []struct {
		name, path string
		pooled     bool
	}{
		{"default path", `"$user", public`, false},
		{"public first", "public, pg_catalog", false},
		{"pooler", "public, pg_catalog", true},
	} {
		t.Run(v.name, func(t *testing.T) {
			attackSearchPath(t, server, v.path, v.pooled)
		})
	}
}

// attackSearchPath runs the commands on an attacked database. It uses the binary without the race detector, because it checks
// what the server executes, and other tests run the same commands with the race detector.
func attackSearchPath(t *testing.T, server *pgserver.Server, path string, pooled bool) {
	database := strings.NewReplacer(" ", "_", ",", "").Replace("attacked" + strings.ToLower(t.Name()[strings.LastIndex(t.Name(), "/")+1:]))
	role := database + "_role"
	sql(t, server.URL("postgres"), "CREATE DATABASE "+database+" TEMPLATE planted OWNER owner", "ALTER DATABASE "+database+" SET search_path = "+path)
	direct := appURL(t, server.URL(database), "postgres", "app", "pg_catalog")

	addr := server.Addr()
	if pooled {
		addr = startPooler(t, addr)
	}
	root := pgserver.URL(addr, database)
	dir := t.TempDir()
	env := []string{"DATABASE_URL=" + root, "CAPTURE_TABLE=votes"}
	command := func(args ...string) string {
		t.Helper()
		got := runPlain(t, dir, env, args...)
		if got.code != exitDone {
			t.Errorf("capture %s: %+v", strings.Join(args, " "), got)
		}
		wantNoShadows(t, server, strings.Join(args, " "))
		return got.stdout
	}
	command("doctor")
	command("setup", "--print")
	command("setup", "--role="+role, "--print")
	command("setup", "--role="+role)
	if !pooled {
		command("setup", "--source=notify", "--print")
		command("setup", "--source=notify")
	}
	command("doctor")
	for source, user := range map[string]string{"logical": role, "notify": "postgres", "poll": role} {
		if !pooled || source == "poll" {
			follow(t, appURL(t, root, user, "", ""), direct, source)
			wantNoShadows(t, server, "run --source "+source+" as "+user)
		}
	}
	command("snapshot")
	command("snapshot", "--output=-")
	command("verify")
	for _, args := range []string{"--dry-run --on-conflict=skip", "--on-conflict=skip", "--on-conflict=overwrite --yes --disable-triggers", "--on-conflict=overwrite --delete-extra --yes"} {
		sql(t, direct, "DELETE FROM public.votes WHERE vote_id % 5 = 0", "UPDATE public.votes SET comment = 'changed' WHERE vote_id % 3 = 0",
			"INSERT INTO public.votes (comment) VALUES ('extra')")
		command(append([]string{"restore"}, strings.Fields(args)...)...)
	}
	command("verify")
	sql(t, direct, "UPDATE public.votes SET comment = 'differs' WHERE vote_id < 5", "DELETE FROM public.votes WHERE vote_id = 6")
	if got := runPlain(t, dir, env, "verify"); got.code != exitFailed || !strings.Contains(got.stdout, "differs") && !strings.Contains(got.stdout, "different") {
		t.Errorf("verify with differences: %+v", got)
	}
	wantNoShadows(t, server, "verify with differences")
	if got := runPlain(t, dir, env, "restore"); got.code != exitFailed || !strings.Contains(got.stderr, "--on-conflict") {
		t.Errorf("restore of rows that are there: %+v", got)
	}
	wantNoShadows(t, server, "restore of rows that are there")
	sql(t, direct, "TRUNCATE public.votes")
	command("restore")
	command("teardown", "--role="+role, "--print")
	command("teardown")
	sql(t, direct, "DROP TABLE public.votes")
	command("restore", "--create", "--dry-run")
	command("restore", "--create")
	command("verify")
	got := runPlain(t, dir, append(env, "CAPTURE_TABLE=vote"), "doctor")
	if got.code != exitFailed {
		t.Errorf("doctor without a table: %+v", got)
	}
	wantNoShadows(t, server, "doctor without a table")
}

// follow runs capture with the source, and changes the rows and the columns of the table.
func follow(t *testing.T, url, direct, source string) {
	t.Helper()
	d := start(t, url, "--source="+source, "--poll-interval=1s", "--verify-interval=1s", "--table=votes")
	d.status(func(s capture.Status) bool { return s.Ready && s.Source == source })
	for i, change := range []string{
		"INSERT INTO public.votes (comment, props) SELECT 'more', 'a=>b' FROM pg_catalog.generate_series(1, 3)",
		"UPDATE public.votes SET comment = 'less' WHERE vote_id % 7 = 0",
		"UPDATE public.votes SET vote_id = vote_id + 100000 WHERE vote_id % 11 = 0",
		"DELETE FROM public.votes WHERE vote_id > 100000",
		"ALTER TABLE public.votes ADD extra int DEFAULT 1",
		"ALTER TABLE public.votes DROP extra",
	} {
		sql(t, direct, change)
		d.ready()
		eventually(t, fmt.Sprintf("the file after change %d by %s", i, source), func() bool {
			response, err := http.Post("http://"+d.address()+"/snapshot", "", nil)
			if err != nil {
				return false
			}
			_ = response.Body.Close()
			content, err := os.ReadFile(d.path)
			if err != nil {
				t.Fatal(err)
			}
			return response.StatusCode == http.StatusOK && strings.Contains(string(content), `"extra"`) == (i == 4)
		})
	}
	d.signal(syscall.SIGTERM)
	d.wait(stopTimeout)
}

// wantNoShadows fails the test if any planted function or operator was called.
func wantNoShadows(t *testing.T, server *pgserver.Server, by string) {
	t.Helper()
	f, err := os.Open(server.LogPath())
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	seen := map[string]int{}
	lines := bufio.NewScanner(f)
	lines.Buffer(nil, 1<<24)
	statement, hit := "", ""
	for lines.Scan() {
		line := lines.Text()
		switch {
		case strings.Contains(line, "LOG:  SHADOWED"):
			hit = line
		case hit != "" && strings.Contains(line, "STATEMENT:"):
			if _, statement, _ = strings.Cut(line, "STATEMENT:"); len(statement) > 300 {
				statement = statement[:300]
			}
			seen[hit+" in "+statement]++
			hit = ""
		}
	}
	if hit != "" {
		seen[hit]++
	}
	for what, n := range seen {
		t.Errorf("after capture %s: %d times %s", by, n, what)
	}
	if len(seen) > 0 { // the next check must not report these calls again
		if err := os.Truncate(server.LogPath(), 0); err != nil {
			t.Fatal(err)
		}
	}
}

// appURL returns the URL with another user, application name and search path.
func appURL(t *testing.T, url, user, name, path string) string {
	t.Helper()
	u, err := neturl.Parse(url)
	if err != nil {
		t.Fatal(err)
	}
	u.User = neturl.User(user)
	q := u.Query()
	if name != "" {
		q.Set("application_name", name)
		q.Set("search_path", path)
	}
	u.RawQuery = q.Encode()
	return u.String()
}

// startPooler starts a pooler that forwards connections to the server at address. As a real pooler does, it gives clients a
// process ID that differs from the server's. startPooler returns the pooler's address.
func startPooler(t *testing.T, address string) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	go func() {
		for {
			client, err := l.Accept()
			if err != nil {
				return
			}
			server, err := net.Dial("tcp", address)
			if err != nil {
				_ = client.Close()
				return
			}
			go func() { defer server.Close(); _, _ = io.Copy(server, client) }()
			go func() { defer client.Close(); passMessages(client, server) }()
		}
	}()
	return l.Addr().String()
}

func passMessages(client io.Writer, server io.Reader) {
	for {
		head := make([]byte, 5)
		if _, err := io.ReadFull(server, head); err != nil {
			return
		}
		body := make([]byte, bigendian.BigEndian.Uint32(head[1:])-4)
		if _, err := io.ReadFull(server, body); err != nil {
			return
		}
		if head[0] == 'K' { // BackendKeyData
			bigendian.BigEndian.PutUint32(body, 1<<30)
		}
		if _, err := client.Write(append(head, body...)); err != nil {
			return
		}
	}
}
