package main

import (
	"bytes"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/alecthomas/kong"
)

// TestBadConfiguration checks that a bad value is refused with exit code 2. The message names the flag or the variable, the
// value and what is accepted.
func TestBadConfiguration(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	empty := filepath.Join(dir, "empty")
	blank := filepath.Join(dir, "blank")
	for path, content := range map[string]string{empty: " \n", blank: "hunter2 hunter2\n"} {
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for _, c := range []struct {
		name string
		env  string
		args string
		want []string
	}{
		{"no such command", "", "rum", []string{"rum", "run", "capture --help"}},
		{"no such flag", "", "run --flush-dela=1s", []string{"--flush-dela", "--flush-delay"}},
		{"a flag without its value", "", "run --output", []string{"--output"}},
		{"an argument too many", "", "status now", []string{"now"}},
		{"duration without unit", "", "run --flush-delay=100", []string{"--flush-delay", `"100"`, "0s to 1h", "250ms"}},
		{"duration below", "", "run --flush-delay=-1s", []string{"--flush-delay", `"-1s"`, "0s to 1h"}},
		{"duration above", "", "run --flush-delay=2h", []string{"--flush-delay", `"2h"`, "0s to 1h"}},
		{"interval zero", "", "run --flush-interval=0", []string{"--flush-interval", `"0"`, "1s to 168h"}},
		{"duration from the environment", "CAPTURE_FLUSH_DELAY=soon", "run", []string{"CAPTURE_FLUSH_DELAY", `"soon"`, "0s to 1h"}},
		{"size below", "", "run --max-wal=1MB", []string{"--max-wal", `"1MB"`, "16MB to 1PB"}},
		{"size with an unknown unit", "CAPTURE_MAX_WAL=1GiB", "run", []string{"CAPTURE_MAX_WAL", `"1GiB"`, "512MB"}},
		{"size that is not a number", "", "run --max-wal=lots", []string{"--max-wal", `"lots"`}},
		{"source", "", "run --source=trigger", []string{"--source", `"trigger"`, "auto, logical, notify, poll"}},
		{"source from the environment", "CAPTURE_SOURCE=x", "run", []string{"CAPTURE_SOURCE", `"x"`, "auto, logical, notify, poll"}},
		{"level", "", "run --log-level=loud", []string{"--log-level", `"loud"`, "debug"}},
		{"log size", "", "run --log-max-size=0", []string{"--log-max-size", `"0"`, "1 to 10240"}},
		{"log size with unit", "CAPTURE_LOG_MAX_SIZE=10MB", "run", []string{"CAPTURE_LOG_MAX_SIZE", `"10MB"`, "1 to 10240"}},
		{"log backups", "", "run --log-max-backups=-1", []string{"--log-max-backups", `"-1"`, "0 to"}},
		{"log age", "", "run --log-max-age=a", []string{"--log-max-age", `"a"`, "0 to"}},
		{"one file for both logs", "", "run --usage-log=x.log --error-log=./x.log", []string{"--usage-log", "--error-log", "x.log"}},
		{"listen without port", "", "run --listen=localhost", []string{"--listen", `"localhost"`, "127.0.0.1:8080"}},
		{"listen on an invalid port", "", "run --listen=localhost:99999", []string{"--listen", `"localhost:99999"`}},
		{"table", "", "run --table=a.b.c.d", []string{"--table", `"a.b.c.d"`, "[schema.]table"}},
		{"table from the environment", `CAPTURE_TABLE="votes`, "run", []string{"CAPTURE_TABLE", `closing double quote`}},
		{"token file missing", "", "run --token-file=nowhere", []string{"--token-file", "nowhere", "no such file"}},
		{"token file empty", "CAPTURE_TOKEN_FILE=" + empty, "run", []string{"CAPTURE_TOKEN_FILE", "empty"}},
		{"token that no header carries", "", "run --token-file=" + blank, []string{"--token-file", "letters and digits"}},
		{"token for a snapshot", "CAPTURE_TOKEN_FILE=" + blank, "snapshot", []string{"CAPTURE_TOKEN_FILE", "letters and digits"}},
		{"token file is a folder", "", "run --token-file=" + dir, []string{"--token-file", "not a regular file", "give a file that contains the token"}},
		{"output empty", "", "run --output=", []string{"--output", "empty"}},
		{"token file name empty", "", "run --token-file=", []string{"--token-file", "empty"}},
		{"copies to nowhere", "", "run --copy-to=", []string{"--copy-to", "empty"}},
		{"database empty", "", "restore --yes --on-conflict=overwrite --database-url=", []string{"--database-url", "empty"}},
		{"state to drop empty", "", "history --yes --drop=", []string{"--drop", "empty"}},
		{"file empty", "", "verify EMPTY", []string{"<file>", "empty"}},
		{"role empty", "", "setup --role=", []string{"--role", "empty"}},
		{"output is a folder", "", "run --output=" + dir, []string{"--output", dir, "folder"}},
		{"output would be a folder", "", "snapshot --output=new/", []string{"--output", `"new/"`, "new/feedback.json"}},
		{"standard output for the daemon", "", "run --output=-", []string{"--output", "snapshot"}},
		{"database URL", "", "run --database-url=postgres://u:hunter2@h:port/d", []string{"--database-url", "port"}},
		{"database URL from the environment", "DATABASE_URL=postgres://u:hunter2@h/d?sslmode=maybe", "run", []string{"DATABASE_URL", "sslmode"}},
		{"database URL in the wrong place", "", "run postgres://u:hunter2@h/d", []string{"unexpected argument", "(hidden)"}},
		{"signed URL in the wrong place", "", "history https://account.blob.core.windows.net/c/feedback.json?sv=1&sig=hunter2", []string{"unexpected argument", "(hidden)"}},
		{"connection string in the wrong place", "", "run --keep=AccountName=a;AccountKey=hunter2", []string{"--keep", "(hidden)"}},
		{"URL for the output", "", "run --output=postgres://u:hunter2@h/d", []string{"--output", "a URL is not a file", "--copy-to"}},
		{"database URL for a table", "CAPTURE_TABLE=postgres://u:hunter2@h.a.b.c/d", "run", []string{"CAPTURE_TABLE"}},
		{"a password for a source", "", "run --source=password=hunter2", []string{"--source", "(hidden)"}},
		{"profiles on all addresses", "", "run --debug-listen=0.0.0.0:6060", []string{"--debug-listen", `"0.0.0.0:6060"`, "127.0.0.1:6060"}},
		{"profiles on a network address", "CAPTURE_DEBUG_LISTEN=192.168.1.1:6060", "run", []string{"CAPTURE_DEBUG_LISTEN", `"192.168.1.1:6060"`, "loopback"}},
		{"profiles by a name", "", "run --debug-listen=localhost:6060", []string{"--debug-listen", `"localhost:6060"`, "[::1]:6060"}},
		{"profiles without a port", "", "run --debug-listen=127.0.0.1", []string{"--debug-listen", `"127.0.0.1"`, "IP:PORT"}},
		{"demo's rate", "", "demo --rate=fast", []string{"--rate", `"fast"`, "0 to 1000"}},
		{"demo's output exists", "", "demo --output=" + empty, []string{"--output", "exists"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			var env []string
			if c.env != "" {
				env = append(env, c.env)
			}
			args := strings.Fields(c.args)
			for i := range args {
				if args[i] == "EMPTY" {
					args[i] = ""
				}
			}
			got := runPlain(t, t.TempDir(), env, args...)
			if got.code != exitUsage {
				t.Errorf("exit code %d, want %d", got.code, exitUsage)
			}
			if got.stdout != "" {
				t.Errorf("stdout has %q", got.stdout)
			}
			for _, want := range append(c.want, "--help") {
				if !strings.Contains(got.stderr, want) {
					t.Errorf("stderr lacks %q", want)
				}
			}
			if strings.Contains(got.stderr, "hunter2") {
				t.Error("stderr has the password")
			}
			if t.Failed() {
				t.Logf("stderr:\n%s", got.stderr)
			}
		})
	}
}

// TestPrecedence checks that each flag of run overrides its environment variable, which overrides the default.
func TestPrecedence(t *testing.T) {
	token := filepath.Join(t.TempDir(), "token")
	if err := os.WriteFile(token, []byte("secret\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	// values contains, for each flag, its default, a value for the environment variable and a value for the flag.
	values := map[string]struct{ byDefault, env, flag string }{
		"database-url":    {"", "postgres://a/env", "postgres://a/flag"},
		"database-auth":   {"password", "azure", "password"},
		"table":           {"votes", "env.votes", "flag.votes"},
		"output":          {"data/fallback/feedback.json", "env.json", "flag.json"},
		"source":          {"auto", "poll", "notify"},
		"flush-delay":     {"100ms", "2s", "3s"},
		"flush-interval":  {"1h", "2m", "3m"},
		"memory":          {"auto", "2GB", "3GB"},
		"max-wal":         {"1GB", "2GB", "3GB"},
		"listen":          {"127.0.0.1:8080", "0.0.0.0:2", "[::1]:3"},
		"token-file":      {"", token, filepath.Dir(token) + "/./token"},
		"usage-log":       {"logs/usage/usage.log", "env.log", "flag.log"},
		"error-log":       {"logs/errors/error.log", "env.log", "flag.log"},
		"log-max-size":    {"10", "2", "3"},
		"log-max-backups": {"5", "2", "3"},
		"log-max-age":     {"0", "2", "3"},
		"log-level":       {"info", "warn", "debug"},
		"log-compress":    {"", "true", "false"},
		"copy-rate":       {"0", "2MB", "3MB"},
		"poll-interval":   {"1m", "2m", "3m"},
		"verify-interval": {"24h", "2m", "3m"},
		"keep":            {"24h,7d,4w", "2", "3d"},
		"debug-listen":    {"", "127.0.0.1:2", "[::1]:3"},
		"copy-to":         {"", "file:///env", "file:///flag"},
		"title":           {"", "env", "flag"},
		"time-column":     {"", "env", "flag"},
		"tags-column":     {"", "env", "flag"},
		"volume-warn":     {"80", "2", "3"},
		"heartbeat-url":   {"", "http://env.example", "https://flag.example"},
		"alert-url":       {"", "http://env.example", "https://flag.example"},
		"alert-after":     {"1m", "2m", "3m"},
	}
	parse := func(args ...string) map[string]any {
		t.Helper()
		var app cli
		parser := newParser(&app, streams{&bytes.Buffer{}, &bytes.Buffer{}})
		unsetEmpty(parser.Model.Node)
		if _, err := parser.Parse(append([]string{"run"}, args...)); err != nil {
			t.Fatal(err)
		}
		held := make(map[string]any)
		for _, f := range flagsOf(t, parser, "run") {
			held[f.Name] = f.Target.Interface()
		}
		return held
	}
	// Each parse sets all flags at once, because a parse takes long with the race detector.
	flags := flagsOf(t, newParser(&cli{}, streams{&bytes.Buffer{}, &bytes.Buffer{}}), "run")
	var defaultFlags, envFlags, flagFlags []string
	for _, f := range flags {
		v, ok := values[f.Name]
		if !ok {
			t.Fatalf("--%s has no values in this test", f.Name)
		}
		if len(f.Tag.Envs) != 1 {
			t.Fatalf("--%s has environment variables %q, want one", f.Name, f.Tag.Envs)
		}
		if v.byDefault != f.Default {
			t.Errorf("the default of --%s is %q, want %q", f.Name, f.Default, v.byDefault)
		}
		if v.byDefault != "" {
			defaultFlags = append(defaultFlags, "--"+f.Name+"="+v.byDefault)
		}
		envFlags = append(envFlags, "--"+f.Name+"="+v.env)
		flagFlags = append(flagFlags, "--"+f.Name+"="+v.flag)
		t.Setenv(f.Tag.Envs[0], "") // an empty variable counts as not set
	}
	byDefault, wantDefault, wantEnv, wantFlag := parse(), parse(defaultFlags...), parse(envFlags...), parse(flagFlags...)
	for _, f := range flags {
		t.Setenv(f.Tag.Envs[0], values[f.Name].env)
	}
	fromEnv, fromFlag := parse(), parse(flagFlags...)
	for _, f := range flags {
		v, env := values[f.Name], f.Tag.Envs[0]
		if got := byDefault[f.Name]; !reflect.DeepEqual(got, wantDefault[f.Name]) {
			t.Errorf("without --%s and %s it is %v, want %q", f.Name, env, got, v.byDefault)
		}
		if got := fromEnv[f.Name]; !reflect.DeepEqual(got, wantEnv[f.Name]) || reflect.DeepEqual(got, byDefault[f.Name]) {
			t.Errorf("%s=%s gives %v", env, v.env, got)
		}
		if got := fromFlag[f.Name]; !reflect.DeepEqual(got, wantFlag[f.Name]) || reflect.DeepEqual(got, fromEnv[f.Name]) {
			t.Errorf("--%s=%s with %s=%s gives %v", f.Name, v.flag, env, v.env, got)
		}
	}
	t.Run("a flag wins over a bad variable", func(t *testing.T) {
		t.Setenv("CAPTURE_FLUSH_DELAY", "soon")
		parse("--flush-delay=1s")
	})
}

// flagsOf returns the flags of a command, without --help.
func flagsOf(t *testing.T, parser *kong.Kong, command string) []*kong.Flag {
	t.Helper()
	for _, node := range parser.Model.Leaves(false) {
		if node.Name == command {
			return node.Flags
		}
	}
	t.Fatalf("there is no command %s", command)
	return nil
}

func TestSizes(t *testing.T) {
	for text, want := range map[string]int64{
		"0": 0, "1073741824": 1 << 30, "1GB": 1 << 30, "1 GB": 1 << 30, "1gb": 1 << 30, "0.5GB": 1 << 29, "16MB": 16 << 20,
		"10kB": 10 << 10, "512B": 512, "1PB": 1 << 50,
		"": -1, "GB": -1, "1GiB": -1, "-1GB": -1, "1e300": -1, "NaN": -1, "9000PB": -1, "1 G B": -1, "1M": -1,
	} {
		got, ok := parseSize(text)
		if !ok {
			got = -1
		}
		if got != want {
			t.Errorf("%q is %d, want %d", text, got, want)
		}
	}
}

func TestPasswordShown(t *testing.T) {
	t.Setenv("DATABASE_URL", "postgres://u:hunter2@env/d")
	for url, want := range map[string]bool{
		"":                                      false,
		"postgres://u:hunter2@env/d":            false, // the URL is from the environment, and not from the command line
		"postgres://u:hunter2@h/d":              true,
		"postgres://u@h/d":                      false,
		"postgres://u:@h/d":                     false,
		"postgres://u@h/d?password=hunter2":     true,
		"postgres://u@h/d?passfile=x":           false,
		"host=h password=hunter2":               true,
		"host=h password = 'hunter2' dbname=d":  true,
		"host=h passfile=/run/pass sslmode=off": false,
	} {
		if got := (databaseConfig{DatabaseURL: url}).passwordOnCommandLine(); got != want {
			t.Errorf("%q: %t, want %t", url, got, want)
		}
	}
}
