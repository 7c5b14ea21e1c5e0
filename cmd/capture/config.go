package main

import (
	"errors"
	"fmt"
	"io"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/jackc/pgx/v5"
	"golang.org/x/term"

	"capture/capture"
	"capture/internal/logfile"
	"capture/internal/postgres"
)

// The configuration: each flag with its environment variable and its default, in the parts that commands share. The
// README's table is this file in prose; a test compares the two.

// databaseConfig says where the table is.
type databaseConfig struct {
	DatabaseURL string    `placeholder:"URL" env:"DATABASE_URL" help:"The database as postgres://user@host:port/name?sslmode=…, or as libpq's key=value words. What it leaves out comes from PGHOST, PGPORT, PGDATABASE, PGUSER, PGPASSWORD, PGPASSFILE, PGSERVICE, PGSSLMODE, PGSSLROOTCERT, … A password belongs in the environment or in PGPASSFILE: the command line is open to every user of the machine."`
	Table       tableName `placeholder:"[SCHEMA.]NAME" env:"CAPTURE_TABLE" default:"votes" help:"The table to keep."`
}

// outputConfig says where feedback.json is.
type outputConfig struct {
	Output string `placeholder:"FILE" env:"CAPTURE_OUTPUT" default:"data/fallback/feedback.json" help:"The fallback file. The manifest, the lock and the temporary file stand beside it."`
}

// tokenConfig says which token HTTP callers bring.
type tokenConfig struct {
	TokenFile tokenFile `placeholder:"FILE" env:"CAPTURE_TOKEN_FILE" help:"A file that holds the bearer token for HTTP. Without one, all but health and metrics is answered to this machine only."`
}

// listenConfig says where HTTP is answered.
type listenConfig struct {
	Listen address `placeholder:"HOST:PORT" env:"CAPTURE_LISTEN" default:"127.0.0.1:8080" help:"Where to answer HTTP."`
}

// debugConfig says where Go's profiles are answered.
type debugConfig struct {
	DebugListen loopback `placeholder:"IP:PORT" env:"CAPTURE_DEBUG_LISTEN" help:"Where to answer Go's profiles (pprof), on this machine's loopback only, such as 127.0.0.1:6060. Unless told, nowhere."`
}

// followConfig says how the table is followed, and when the file is written.
type followConfig struct {
	Source        source   `placeholder:"auto|logical|notify|poll" env:"CAPTURE_SOURCE" default:"auto" help:"How to learn of changes; auto takes the best that the database and the user allow."`
	FlushDelay    duration `placeholder:"DURATION" env:"CAPTURE_FLUSH_DELAY" default:"100ms" min:"0s" max:"1h" help:"From the first change that is not in the file to the next write of the file."`
	FlushInterval duration `placeholder:"DURATION" env:"CAPTURE_FLUSH_INTERVAL" default:"1h" min:"1s" max:"168h" help:"Between the regular writes, on the clock's multiples of it, whether anything changed or not."`
	PollInterval  duration `placeholder:"DURATION" env:"CAPTURE_POLL_INTERVAL" default:"1m" min:"1s" max:"24h" help:"Between reads of the whole table, where it can only be polled."`
	CopyRate      size     `placeholder:"SIZE" env:"CAPTURE_COPY_RATE" default:"0" min:"0" max:"1PB" help:"How much a copy of the table reads in a second at most, to spare the database; 0 for no limit."`
	CopyJobs      count    `placeholder:"N" env:"CAPTURE_COPY_JOBS" default:"0" min:"0" max:"64" help:"Over how many connections a large table is copied at once; 0 for as many as this machine's cores and the table's size allow, at most 4."`
	MaxWAL        size     `name:"max-wal" placeholder:"SIZE" env:"CAPTURE_MAX_WAL" default:"1GB" min:"16MB" max:"1PB" help:"How much WAL the database may hold back for capture before capture lets go and copies anew."`
}

// memoryConfig says how much memory to use.
type memoryConfig struct {
	Memory memorySize `placeholder:"auto|SIZE" env:"CAPTURE_MEMORY" default:"auto" min:"64MB" max:"1PB" help:"How much memory to use, about. Rows that do not fit lie in a file beside the output, and are read back on demand. auto is what the control group (the container) or GOMEMLIMIT allows, and all rows in memory where neither sets a limit."`
}

// keepConfig says what is checked and kept besides.
type keepConfig struct {
	VerifyInterval duration `placeholder:"DURATION" env:"CAPTURE_VERIFY_INTERVAL" default:"24h" min:"0s" max:"8760h" help:"Between comparisons of all captured rows with the table; 0s for none."`
	Keep           count    `placeholder:"N" env:"CAPTURE_KEEP" default:"0" min:"0" max:"100000" help:"Earlier states of the file to keep beside it, compressed, one at each regular write."`
	KeepDays       count    `placeholder:"DAYS" env:"CAPTURE_KEEP_DAYS" default:"0" min:"0" max:"36500" help:"Days to keep them; 0 sets no such limit."`
}

// pageConfig says how the feedback page shows the table.
type pageConfig struct {
	Title      string `placeholder:"TEXT" env:"CAPTURE_TITLE" help:"The feedback page's title. Unless told, it is made from the table's name."`
	TimeColumn string `placeholder:"COLUMN" env:"CAPTURE_TIME_COLUMN" help:"The column that says when a row was made. Unless told, the first timestamp."`
	TagsColumn string `placeholder:"COLUMN" env:"CAPTURE_TAGS_COLUMN" help:"The column of tags. Unless told, the first text[]."`
}

// watchConfig says what is worth a word to somebody.
type watchConfig struct {
	VolumeWarn count    `placeholder:"PERCENT" env:"CAPTURE_VOLUME_WARN" default:"80" min:"0" max:"100" help:"How full a volume may be before that is worth a warning; 0 for no warning."`
	AlertURL   alertURL `name:"alert-url" placeholder:"URL" env:"CAPTURE_ALERT_URL" help:"Where to post alerts as JSON, which Slack-compatible webhooks take, too."`
	AlertAfter duration `placeholder:"DURATION" env:"CAPTURE_ALERT_AFTER" default:"1m" min:"1s" max:"24h" help:"How long trouble lasts before it is posted."`
}

// watchedDirs returns the folders that capture writes to, under the names of their volumes.
func watchedDirs(output string, logs logFiles) []capture.WatchedDir {
	var dirs []capture.WatchedDir
	for _, d := range []capture.WatchedDir{{Name: "fallback", Path: output}, {Name: "usage-logs", Path: logs.UsageLog}, {Name: "error-logs", Path: logs.ErrorLog}} {
		if d.Path != "" && d.Path != os.DevNull {
			d.Path = filepath.Dir(d.Path)
			dirs = append(dirs, d)
		}
	}
	return dirs
}

// logFiles says where the logs go.
type logFiles struct {
	UsageLog string `placeholder:"FILE" env:"CAPTURE_USAGE_LOG" default:"logs/usage/usage.log" help:"Everything from INFO up, as JSON lines."`
	ErrorLog string `placeholder:"FILE" env:"CAPTURE_ERROR_LOG" default:"logs/errors/error.log" help:"ERROR lines only."`
}

// logConfig says what the logs hold, and how long they stay.
type logConfig struct {
	logFiles
	LogMaxSize    count `placeholder:"MB" env:"CAPTURE_LOG_MAX_SIZE" default:"10" min:"1" max:"10240" help:"Size in MB at which a log is rotated."`
	LogMaxBackups count `placeholder:"N" env:"CAPTURE_LOG_MAX_BACKUPS" default:"5" min:"0" max:"10000" help:"Rotated files to keep of each log; 0 keeps all."`
	LogMaxAge     count `placeholder:"DAYS" env:"CAPTURE_LOG_MAX_AGE" default:"0" min:"0" max:"36500" help:"Days to keep rotated files; 0 keeps all."`
	LogCompress   bool  `env:"CAPTURE_LOG_COMPRESS" help:"Compress rotated files with gzip."`
	LogLevel      level `placeholder:"debug|info|warn|error" env:"CAPTURE_LOG_LEVEL" default:"info" help:"The least that is logged."`
}

// roleConfig names capture's own role in the database.
type roleConfig struct {
	Role string `placeholder:"NAME" help:"Also the role that capture is to connect as: one that may do what capture needs, and nothing else."`
}

// printConfig asks for words instead of deeds.
type printConfig struct {
	Print bool `help:"Print the SQL that would run, for a DBA, and change nothing."`
}

// connection is the database to connect to. Its errors are usage errors, and name the place of the bad value, never
// the value.
func (c databaseConfig) connection() (*pgx.ConnConfig, error) {
	cfg, err := postgres.ParseConfig(c.DatabaseURL)
	if err != nil {
		return nil, usageError{fmt.Errorf("%s: %w", c.origin(), err)}
	}
	return cfg, nil
}

// origin names where the database's address comes from.
func (c databaseConfig) origin() string {
	switch c.DatabaseURL {
	case "":
		return "libpq's environment variables (PGHOST, PGPORT, …)"
	case os.Getenv("DATABASE_URL"):
		return "DATABASE_URL"
	}
	return "--database-url"
}

// passwordShown says whether a password stands on the command line, where the process list shows it.
func (c databaseConfig) passwordShown() bool {
	if c.origin() != "--database-url" {
		return false
	}
	if u, err := url.Parse(c.DatabaseURL); err == nil && u.User != nil {
		if password, ok := u.User.Password(); ok && password != "" {
			return true
		}
	}
	return passwordWord.MatchString(c.DatabaseURL)
}

// warnOfPassword says on stderr that a password on the command line is no secret.
func (c databaseConfig) warnOfPassword(std streams) {
	if c.passwordShown() {
		fmt.Fprintln(std.err, "capture: "+passwordWarning)
	}
}

const passwordWarning = "the password on the command line is open to every user of this machine; " +
	"give it by DATABASE_URL, PGPASSWORD or PGPASSFILE"

var passwordWord = regexp.MustCompile(`(?i)(^|[?&\s])password\s*=\s*[^&\s]`)

// file is the output's path, for commands that need a real file.
func (c outputConfig) file() (string, error) {
	switch {
	case c.Output == "-":
		return "", usageError{errors.New(`--output: "-" (standard output) is for capture snapshot only; give a file`)}
	case strings.HasSuffix(c.Output, "/"):
		return "", usageError{fmt.Errorf("--output: %q is a folder; give a file, such as %sfeedback.json", c.Output, c.Output)}
	}
	if info, err := os.Stat(c.Output); err == nil && info.IsDir() {
		return "", usageError{fmt.Errorf("--output: %q is a folder; give a file, such as %s/feedback.json", c.Output, c.Output)}
	}
	return c.Output, nil
}

// open opens the logs. Lines for stderr go there as text where it is a terminal.
func (c logConfig) open(stderr io.Writer) (*logfile.Logs, error) {
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

func isTerminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	return ok && term.IsTerminal(int(f.Fd()))
}

func (d duration) std() time.Duration { return time.Duration(d) }
