package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"strings"

	"github.com/hashicorp/go-hclog"
	"github.com/jackc/pgx/v5"

	"capture/capture"
	"capture/internal/foreign"
	"capture/internal/logfile"
	"capture/internal/postgres"
	"capture/store/kept"
	"capture/store/remote"
)

// This file defines the flags that commands share, with their environment variables and defaults. The README lists the flags
// of run in a table, and a test compares the table with the flags.

// databaseConfig selects the database and the table.
type databaseConfig struct {
	DatabaseURL  string    `placeholder:"URL" env:"DATABASE_URL" help:"Database, as a URL (postgres://user@host:port/name?sslmode=…) or as libpq's key=value pairs. libpq's environment variables (PGHOST, PGUSER, PGPASSFILE, …) supply what is missing. Keep the password in the environment or in PGPASSFILE: every user of this machine can read the command line."`
	DatabaseAuth choice    `enum:"password,azure" placeholder:"password|azure" env:"CAPTURE_DATABASE_AUTH" default:"password" help:"How to authenticate: with a password (or what else libpq's parameters name), or in Azure Database for PostgreSQL with a Microsoft Entra token of this machine's identity, which needs TLS."`
	Table        tableName `placeholder:"[SCHEMA.]NAME" env:"CAPTURE_TABLE" default:"votes" help:"Table to capture."`
}

// outputConfig sets the path of feedback.json.
type outputConfig struct {
	Output string `placeholder:"FILE" env:"CAPTURE_OUTPUT" default:"data/fallback/feedback.json" help:"Fallback file. The manifest, the lock file and temporary files are in the same folder."`
}

// fileConfig selects the file that restore and verify read, and the table that they write to or compare the file with.
type fileConfig struct {
	File         string    `arg:"" optional:"" env:"CAPTURE_OUTPUT" default:"data/fallback/feedback.json" help:"File to read: feedback.json, a kept state, the URL of copies off the machine (as --copy-to of capture run, or of one cluster or state below it), or a file of another program. A JSON array or JSON lines, plain, gzip or zstd, in UTF-8 or UTF-16; - is standard input."`
	At           moment    `placeholder:"TIME" help:"Read the newest kept state of the file, or the newest copy at the URL, from this time or earlier (see capture history): RFC 3339, 2026-11-24, '2026-11-24 13:00' (UTC), or an age such as 2h or 3d."`
	Missing      choice    `enum:"fail,null" placeholder:"fail|null" default:"fail" help:"What a row of the file without one of the columns means: the file is wrong (fail), or the column is NULL in that row (null), as in files of Spark and serde."`
	DatabaseURL  string    `placeholder:"URL" env:"DATABASE_URL" help:"Database, as for capture run."`
	DatabaseAuth choice    `enum:"password,azure" placeholder:"password|azure" env:"CAPTURE_DATABASE_AUTH" default:"password" help:"How to authenticate, as for capture run."`
	Table        tableName `placeholder:"[SCHEMA.]NAME" env:"CAPTURE_TABLE" help:"Table. The default is the table in the manifest or, without a manifest, votes."`

	fetchedFrom     string            // URL from which File was downloaded; "" if File was not downloaded
	explainUnusable func(error) error // adds the command to run instead to an error; nil unless File is a downloaded state from before a loss
}

// chooseState sets File to the state that a URL, --at or the path of a kept state selects. If File changes, chooseState prints
// which state was selected. If neither --at nor a state's URL selects the state, chooseState also prints notes about losses:
// the newest losses that nobody has acknowledged and that happened before the file or the newest copy was written. remove
// deletes a downloaded file.
func (c *fileConfig) chooseState(ctx context.Context, std streams, command string) (remove func(), err error) {
	if remote.IsURL(c.File) {
		return c.fetchState(ctx, std, command)
	}
	return func() {}, c.chooseKept(std, command)
}

// chooseKept sets File to the kept state that --at selects. Without --at, it prints notes about the newest losses that happened
// before the file was written and that nobody has acknowledged. The user may name a kept state by a path that capture printed
// before it compressed the state. In this case, chooseKept sets File to the path of the compressed data.
func (c *fileConfig) chooseKept(std streams, command string) error {
	if c.At.IsZero() {
		if path, ok := kept.FindMoved(c.File); ok {
			fmt.Fprintf(std.err, "%s: reading %s, because %s has been compressed\n", command, foreign.Line(path), foreign.Line(filepath.Base(c.File)))
			c.File = path
		}
		c.noteKeptLosses(std, command)
		c.noteNamedPipe(std, command)
		return nil
	}
	if c.File == "-" || strings.HasSuffix(c.File, ".gz") {
		return usageError{fmt.Errorf("--at: it finds a kept state beside feedback.json, and %q is none; leave one of the two out", c.File)}
	}
	states, err := kept.List(c.File)
	if err != nil {
		return err
	}
	state, ok := kept.At(states, c.At.Time)
	switch {
	case len(states) == 0:
		return fmt.Errorf("--at: there are no kept states of %s", c.File)
	case !ok:
		return fmt.Errorf("--at: no kept state of %s is from %s or earlier; the oldest is from %s, the newest from %s",
			c.File, timeText(c.At.Time), timeText(states[len(states)-1].Time), timeText(states[0].Time))
	}
	fmt.Fprintf(std.err, "%s: reading the state of %s, %s\n", command, timeText(state.Time), foreign.Line(state.Path))
	c.File = state.Path
	return nil
}

// noteNamedPipe prints a note if the file is a named pipe, because the command waits until another program writes to the pipe.
func (c *fileConfig) noteNamedPipe(std streams, command string) {
	if info, err := os.Lstat(c.File); c.File != "-" && err == nil && info.Mode()&os.ModeNamedPipe != 0 {
		fmt.Fprintf(std.err, "%s: %s is a named pipe: waiting for a program that writes to it\n", command, foreign.Line(c.File))
	}
}

func (c fileConfig) database() databaseConfig {
	return databaseConfig{DatabaseURL: c.DatabaseURL, DatabaseAuth: c.DatabaseAuth}
}

// tokenConfig sets the file with the bearer token for HTTP.
type tokenConfig struct {
	TokenFile tokenFile `placeholder:"FILE" env:"CAPTURE_TOKEN_FILE" help:"File with the bearer token for HTTP. Without it, everything except health and metrics is served only to capture's own user and root on this machine."`
}

// listenConfig sets the address of the HTTP server.
type listenConfig struct {
	Listen address `placeholder:"HOST:PORT" env:"CAPTURE_LISTEN" default:"127.0.0.1:8080" help:"Address of the daemon's HTTP server."`
}

// debugConfig sets the address of the server for Go's profiles.
type debugConfig struct {
	DebugListen loopback `placeholder:"IP:PORT" env:"CAPTURE_DEBUG_LISTEN" help:"Loopback address for Go's profiles (pprof), such as 127.0.0.1:6060. Off by default."`
}

// followConfig controls how capture follows the table and when it writes the file.
type followConfig struct {
	Source        choice   `enum:"auto,logical,notify,poll" placeholder:"auto|logical|notify|poll" env:"CAPTURE_SOURCE" default:"auto" help:"How to follow changes. auto uses the best source that the database and the user allow; notify only if capture setup has created its triggers."`
	FlushDelay    duration `placeholder:"DURATION" env:"CAPTURE_FLUSH_DELAY" default:"100ms" min:"0s" max:"1h" help:"Delay between a change and the write that includes it."`
	FlushInterval duration `placeholder:"DURATION" env:"CAPTURE_FLUSH_INTERVAL" default:"1h" min:"1s" max:"168h" help:"Interval of regular writes, aligned to the clock. They happen even if nothing changed."`
	PollInterval  duration `placeholder:"DURATION" env:"CAPTURE_POLL_INTERVAL" default:"1m" min:"1s" max:"24h" help:"Interval between reads of the table by the source poll."`
	CopyRate      size     `placeholder:"SIZE" env:"CAPTURE_COPY_RATE" default:"0" min:"0" max:"1PB" help:"Bytes per second that a copy of the table may read, such as 20MB; 0 means no limit."`
	MaxWAL        size     `name:"max-wal" placeholder:"SIZE" env:"CAPTURE_MAX_WAL" default:"1GB" min:"16MB" max:"1PB" help:"Drop the slot and resync when it retains more WAL than this."`
}

// memoryConfig limits the memory of the process.
type memoryConfig struct {
	Memory memorySize `placeholder:"auto|SIZE" env:"CAPTURE_MEMORY" default:"auto" min:"64MB" max:"1PB" help:"Approximate memory limit of the process. Rows that do not fit are kept in a file in the output's folder and read back on demand. auto uses the limit of the container (cgroup) or GOMEMLIMIT; without either, all rows stay in memory."`
}

// keepConfig controls the regular comparison with the table and the retention of earlier states.
type keepConfig struct {
	VerifyInterval duration `placeholder:"DURATION" env:"CAPTURE_VERIFY_INTERVAL" default:"24h" min:"0s" max:"8760h" help:"Interval between comparisons of all rows with the table; 0s means never."`
	Keep           policy   `placeholder:"24h,7d,4w" env:"CAPTURE_KEEP" default:"24h,7d,4w" help:"Earlier states to keep beside the file, compressed: the newest of each of the last hours, days and weeks. A number alone is hours. 0 keeps only the states before a loss of rows."`
}

// pageConfig controls how the feedback page shows the table.
type pageConfig struct {
	Title      string `placeholder:"TEXT" env:"CAPTURE_TITLE" help:"Title of the feedback page. The default comes from the table's name."`
	TimeColumn string `placeholder:"COLUMN" env:"CAPTURE_TIME_COLUMN" help:"Column with the time at which a row was created: a timestamp, a date, or a number of seconds, milliseconds, microseconds or nanoseconds since 1970. The default is the first timestamp column."`
	TagsColumn string `placeholder:"COLUMN" env:"CAPTURE_TAGS_COLUMN" help:"Column with tags. The default is the first text[] column."`
}

// watchConfig controls warnings and alerts.
type watchConfig struct {
	VolumeWarn   count     `placeholder:"PERCENT" env:"CAPTURE_VOLUME_WARN" default:"80" min:"0" max:"100" help:"Warn when a volume is fuller than this, in percent; 0 means never."`
	AlertURL     secretURL `name:"alert-url" placeholder:"URL" env:"CAPTURE_ALERT_URL" help:"URL to which alerts are posted as JSON. Slack-compatible webhooks accept it."`
	AlertAfter   duration  `placeholder:"DURATION" env:"CAPTURE_ALERT_AFTER" default:"1m" min:"1s" max:"24h" help:"How long a problem must last before an alert is sent."`
	HeartbeatURL secretURL `name:"heartbeat-url" placeholder:"URL" env:"CAPTURE_HEARTBEAT_URL" help:"URL to request at most once a minute while all is well, for a service that notices when that stops."`
}

// watchedDirs returns the folders that capture writes to. WatchedDir.Name is the volume's name in the status and the metrics.
func watchedDirs(output string, logs logFiles) []capture.WatchedDir {
	dirs := []capture.WatchedDir{{Name: "fallback", Path: filepath.Dir(output)}}
	for _, log := range []struct{ name, path string }{{"usage-logs", logs.UsageLog}, {"error-logs", logs.ErrorLog}} {
		if log.path != "" && log.path != os.DevNull {
			dirs = append(dirs, capture.WatchedDir{
				Name: log.name, Path: filepath.Dir(log.path), Bytes: func() int64 { return logfile.DiskBytes(log.path) },
			})
		}
	}
	return dirs
}

// logFiles sets the paths of the log files.
type logFiles struct {
	UsageLog string `placeholder:"FILE" env:"CAPTURE_USAGE_LOG" default:"logs/usage/usage.log" help:"Log file for INFO and above, as JSON lines."`
	ErrorLog string `placeholder:"FILE" env:"CAPTURE_ERROR_LOG" default:"logs/errors/error.log" help:"Log file for ERROR only, as JSON lines."`
}

// logConfig controls what is logged, and when log files are rotated, compressed and deleted.
type logConfig struct {
	logFiles
	LogMaxSize    count  `placeholder:"MB" env:"CAPTURE_LOG_MAX_SIZE" default:"10" min:"1" max:"10240" help:"Size at which a log file is rotated, in MB."`
	LogMaxBackups count  `placeholder:"N" env:"CAPTURE_LOG_MAX_BACKUPS" default:"5" min:"0" max:"10000" help:"Rotated files to keep of each log; 0 keeps all."`
	LogMaxAge     count  `placeholder:"DAYS" env:"CAPTURE_LOG_MAX_AGE" default:"0" min:"0" max:"36500" help:"Days to keep rotated files; 0 means no limit."`
	LogCompress   bool   `env:"CAPTURE_LOG_COMPRESS" help:"Compress rotated files with gzip."`
	LogLevel      choice `enum:"trace,debug,info,warn,error" placeholder:"debug|info|warn|error" env:"CAPTURE_LOG_LEVEL" default:"info" help:"Lowest level that is logged."`
}

// printConfig makes a command print SQL instead of running it.
type printConfig struct {
	Print bool `help:"Print the SQL, for example for a DBA, and change nothing."`
}

// connConfig returns the configuration of the database connection. Its errors are usage errors. They say where a bad value
// came from, but never show the value.
func (c databaseConfig) connConfig() (*pgx.ConnConfig, error) {
	cfg, err := postgres.ParseConfig(c.DatabaseURL)
	if err != nil {
		return nil, usageError{fmt.Errorf("%s: %w", c.urlSource(), err)}
	}
	if c.DatabaseAuth == "azure" {
		if err := postgres.UseAzureTokens(cfg); err != nil {
			return nil, usageError{fmt.Errorf("--database-auth azure: %w", err)}
		}
	}
	return cfg, nil
}

// urlSource returns the flag or the environment variables that specify the database.
func (c databaseConfig) urlSource() string {
	switch c.DatabaseURL {
	case "":
		return "libpq's environment variables (PGHOST, PGPORT, …)"
	case os.Getenv("DATABASE_URL"):
		return "DATABASE_URL"
	}
	return "--database-url"
}

// passwordOnCommandLine reports whether the command line contains a password. Every user of the machine can read a password
// there.
func (c databaseConfig) passwordOnCommandLine() bool {
	if c.urlSource() != "--database-url" {
		return false
	}
	if u, err := url.Parse(c.DatabaseURL); err == nil && u.User != nil {
		if password, ok := u.User.Password(); ok && password != "" {
			return true
		}
	}
	return passwordPair.MatchString(c.DatabaseURL)
}

// warnAboutPassword warns on stderr about a password on the command line.
func (c databaseConfig) warnAboutPassword(std streams) {
	if c.passwordOnCommandLine() {
		fmt.Fprintln(std.err, "capture: "+passwordWarning)
	}
}

const passwordWarning = "every user of this machine can read the password on the command line; " +
	"use DATABASE_URL, PGPASSWORD or PGPASSFILE instead"

// passwordPair matches a password in a URL's query or in libpq's key=value pairs.
var passwordPair = regexp.MustCompile(`(?i)(^|[?&\s])password\s*=\s*[^&\s]`)

// filePath returns the path of the output, or an error if the output is standard output, a URL or a folder.
func (c outputConfig) filePath() (string, error) {
	switch {
	case c.Output == "-":
		return "", usageError{errors.New(`--output: "-" (standard output) works only with capture snapshot; give a file`)}
	case strings.Contains(c.Output, "://"):
		return "", usageError{errors.New("--output: a URL is not a file; give the path of a file, and use --copy-to to copy it off the machine")}
	case strings.HasSuffix(c.Output, "/"):
		return "", usageError{fmt.Errorf("--output: %q is a folder; give a file, such as %sfeedback.json", c.Output, c.Output)}
	}
	if info, err := os.Stat(c.Output); err == nil && info.IsDir() {
		return "", usageError{fmt.Errorf("--output: %q is a folder; give a file, such as %s/feedback.json", c.Output, c.Output)}
	}
	return c.Output, nil
}

// openLogs opens the logs. Log lines also go to stderr: as text if it is a terminal, otherwise as JSON.
func (c logConfig) openLogs(stderr io.Writer) (*logfile.Logs, error) {
	logs, err := logfile.Open(logfile.Config{
		Usage:      c.UsageLog,
		Error:      c.ErrorLog,
		MaxSizeMB:  int(c.LogMaxSize),
		MaxBackups: int(c.LogMaxBackups),
		MaxAgeDays: int(c.LogMaxAge),
		Compress:   c.LogCompress,
		Level:      hclog.LevelFromString(string(c.LogLevel)),
		Stderr:     stderr,
		Terminal:   isTerminal(stderr),
		Name:       "capture",
	})
	if err != nil {
		return nil, usageError{fmt.Errorf("--usage-log, --error-log: %w", err)}
	}
	return logs, nil
}
