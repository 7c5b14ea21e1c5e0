// Command capture keeps a live JSON fallback of one Postgres table.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"regexp"
	"runtime/debug"
	"strings"
	"syscall"

	"github.com/alecthomas/kong"

	"capture/internal/postgres"
)

// Exit codes of every command.
const (
	exitDone   = 0
	exitFailed = 1
	exitUsage  = 2
)

// cli is the whole command line: one field a command, in the order of the help.
type cli struct {
	Run      runCmd      `cmd:"" help:"Follow the table and keep feedback.json equal to it."`
	Snapshot snapshotCmd `cmd:"" help:"Write feedback.json now, with all that is committed by now."`
	Restore  restoreCmd  `cmd:"" help:"Put feedback.json back into a table."`
	Verify   verifyCmd   `cmd:"" help:"Check feedback.json against its manifest and the table."`
	Status   statusCmd   `cmd:"" help:"Say how the daemon is; exit 0 only when it is ready."`
	Doctor   doctorCmd   `cmd:"" help:"Check the database and this machine before first use."`
	Setup    setupCmd    `cmd:"" help:"Create what capture needs in the database."`
	Teardown teardownCmd `cmd:"" help:"Remove all that capture keeps in the database."`
	Demo     demoCmd     `cmd:"" help:"Show it all against a throwaway Postgres of its own."`
	Version  versionCmd  `cmd:"" help:"Print version, commit and Go version."`
}

// streams are where a command's answer (out) and its messages (err) go.
type streams struct {
	out, err io.Writer
}

// usageError is a command line or environment that can't be used: exit 2.
type usageError struct{ error }

func (e usageError) Unwrap() error { return e.error }

// reportedError has been said already, in the log: main only sets the exit code.
type reportedError struct{ error }

func (e reportedError) Unwrap() error { return e.error }

func main() {
	postgres.ProgramVersion, _ = build()
	// The first signal asks for a clean stop; the second finds the default handling and ends the process at once.
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	context.AfterFunc(ctx, stop)
	os.Exit(execute(ctx, os.Args[1:], streams{os.Stdout, os.Stderr}))
}

// execute runs the command that args name and returns the exit code.
func execute(ctx context.Context, args []string, std streams) int {
	var app cli
	parser := newParser(&app, std)
	if len(args) == 0 {
		return printOverview(parser, std)
	}
	unsetEmpty(parser.Model.Node)
	parsed, err := parser.Parse(args)
	if err != nil {
		return report(usageError{named(err)}, command(parser, args), args, std)
	}
	parsed.BindTo(ctx, (*context.Context)(nil))
	parsed.Bind(std)
	err = guarded(func() error { return parsed.Run() })
	return report(err, "capture "+parsed.Selected().Name, args, std)
}

func newParser(app *cli, std streams) *kong.Kong {
	parser := kong.Must(app,
		kong.Name("capture"),
		kong.Description("Keep a live JSON fallback of one Postgres table."),
		kong.Writers(std.out, std.err),
		kong.ConfigureHelp(kong.HelpOptions{Compact: true, WrapUpperBound: 100}),
		kong.ValueFormatter(describeFlag),
		kong.Help(printHelp),
		// With a resolver present, kong lets a flag win over an environment variable that does not parse.
		kong.Resolvers(kong.ResolverFunc(func(*kong.Context, *kong.Path, *kong.Flag) (any, error) { return nil, nil })),
	)
	parser.Model.HelpFlag.Help = "Show this."
	return parser
}

// printOverview answers a bare "capture" with the help, as a mistake: on stderr, exit 2.
func printOverview(parser *kong.Kong, std streams) int {
	parser.Stdout = std.err
	parser.Exit = func(int) {}
	_, _ = parser.Parse([]string{"--help"}) // fails for the lack of a command, after it has printed
	return exitUsage
}

// command is the part of args that names a command, for messages about the rest of them.
func command(parser *kong.Kong, args []string) string {
	for _, node := range parser.Model.Leaves(true) {
		if args[0] == node.Name {
			return "capture " + node.Name
		}
	}
	return "capture"
}

// report says err on stderr and returns the exit code for it.
func report(err error, command string, args []string, std streams) int {
	var usage usageError
	var reported reportedError
	switch {
	case err == nil:
		return exitDone
	case errors.As(err, &reported):
		return exitFailed
	}
	fmt.Fprintf(std.err, "%s: %s\n", command, redact(err.Error(), args))
	if errors.As(err, &usage) {
		fmt.Fprintf(std.err, "Run \"%s --help\" for what it takes.\n", command)
		return exitUsage
	}
	return exitFailed
}

// named puts the environment variable in front of kong's message about a bad value where the value came from there.
func named(err error) error {
	message, origin, ok := strings.Cut(err.Error(), " (from envar ")
	if !ok {
		return err
	}
	name, _, _ := strings.Cut(origin, "=")
	flag, message, _ := strings.Cut(message, ": ")
	return fmt.Errorf("%s (%s): %s", name, flag, message)
}

// secrets finds what may carry a password in a message: database URLs, and libpq's key=value words.
var secrets = regexp.MustCompile(`(?i)\bpostgres\w*(\+\w+)?://[^\s"]*|\bpassword\s*=\s*('[^']*'|[^\s"]*)`)

// redact hides what may carry a password in a message, where a value of the command line ended up in the wrong place.
func redact(message string, args []string) string {
	for _, arg := range args {
		_, value, _ := strings.Cut(arg, "=")
		for _, s := range []string{arg, value} {
			if secrets.MatchString(s) {
				message = strings.ReplaceAll(message, s, "(hidden)")
			}
		}
	}
	return secrets.ReplaceAllString(message, "(hidden)")
}

// guarded turns a panic of f into an error, so that it ends as a line in the log and exit 1.
func guarded(f func() error) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("internal error, please report it: %v\n%s", p, strings.TrimSpace(string(debug.Stack())))
		}
	}()
	return f()
}
