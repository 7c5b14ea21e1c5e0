// Command capture keeps a live JSON fallback of one Postgres table.
//
// Each command has its own file; statuswatch.go implements capture status --watch. Several commands share the other files:
// flags.go defines the flags, flagtypes.go their types, help.go the output of --help, errors.go the exit codes, and
// client.go the requests to a running daemon. format.go, statustext.go, progress.go and terminal.go produce the output.
// daemon.go assembles the daemon for run and demo. copies.go lists and downloads copies. keptloss.go prints notes about
// losses. heap.go limits the memory of Go's runtime.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"reflect"
	"syscall"

	"github.com/alecthomas/kong"

	"capture/internal/postgres"
	"capture/internal/restore"
)

// cli is the command line. Its fields have the order of the commands in the help.
type cli struct {
	Run      runCmd      `cmd:"" help:"Follow the table and keep feedback.json equal to it."`
	Snapshot snapshotCmd `cmd:"" help:"Write feedback.json now, with everything committed so far."`
	Restore  restoreCmd  `cmd:"" help:"Load feedback.json into a table."`
	Verify   verifyCmd   `cmd:"" help:"Check feedback.json against its manifest and the table."`
	History  historyCmd  `cmd:"" help:"List the kept states of feedback.json."`
	Status   statusCmd   `cmd:"" help:"Show the daemon's status; exit 0 only if it is ready."`
	Doctor   doctorCmd   `cmd:"" help:"Check the database and this machine before first use."`
	Setup    setupCmd    `cmd:"" help:"Create what capture needs in the database."`
	Teardown teardownCmd `cmd:"" help:"Remove what capture created in the database."`
	Demo     demoCmd     `cmd:"" help:"Show capture at work on a temporary Postgres server."`
	Version  versionCmd  `cmd:"" help:"Print version, commit and Go version."`

	VersionFlag versionFlag `name:"version" hidden:""`
}

func main() {
	postgres.ProgramVersion, _ = buildInfo()
	// The first signal requests a clean stop. The second signal has its default effect and ends the process at once.
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	context.AfterFunc(ctx, stop)
	os.Exit(runCommand(ctx, os.Args[1:], streams{os.Stdout, os.Stderr}))
}

// runCommand runs the command that args specify and returns the exit code.
func runCommand(ctx context.Context, args []string, std streams) int {
	var app cli
	parser := newParser(&app, std)
	if len(args) == 0 {
		return printOverview(parser, std)
	}
	if args[0] == "help" { // kong knows only the flag --help
		args = append(args[1:len(args):len(args)], "--help")
	}
	unsetEmpty(parser.Model.Node)
	parsed, err := parser.Parse(args)
	if err != nil {
		return reportError(usageError{nameEnvVar(err)}, commandName(parser, args), args, std)
	}
	if err := refuseEmptyValues(parsed); err != nil {
		return reportError(usageError{err}, "capture "+parsed.Selected().Name, args, std)
	}
	parsed.BindTo(ctx, (*context.Context)(nil))
	err = catchPanic(func() error { return parsed.Run() })
	if ctx.Err() != nil && errors.Is(err, context.Canceled) && !errors.Is(err, restore.ErrUnknownOutcome) {
		err = errors.New("interrupted")
	}
	return reportError(err, "capture "+parsed.Selected().Name, args, std)
}

// refuseEmptyValues returns an error if the command line has an empty text for a flag or an argument, usually because a
// variable of the shell is not set. Without this error, a command would ignore the flag. It would, for example, connect to
// libpq's default server. Empty environment variables are no error: see unsetEmpty.
func refuseEmptyValues(parsed *kong.Context) error {
	for _, p := range parsed.Path {
		value, name := p.Positional, ""
		switch {
		case p.Flag != nil:
			value, name = p.Flag.Value, "--"+p.Flag.Name
		case value != nil:
			name = "<" + value.Name + ">"
		default:
			continue
		}
		if value.Target.Kind() == reflect.String && value.Target.String() == "" {
			return fmt.Errorf("%s: the value is empty; give one, or leave it out", name)
		}
	}
	return nil
}

func newParser(app *cli, std streams) *kong.Kong {
	parser := kong.Must(app,
		kong.Name("capture"),
		kong.Description("Keep a live JSON fallback of one Postgres table."),
		kong.Writers(std.out, std.err),
		kong.Bind(std),
		kong.ConfigureHelp(kong.HelpOptions{Compact: true, WrapUpperBound: 100}),
		kong.ValueFormatter(describeFlag),
		kong.Help(printHelp),
		// Without a resolver, kong refuses a bad environment variable even if the command line sets its flag. An empty
		// resolver prevents this error.
		kong.Resolvers(kong.ResolverFunc(func(*kong.Context, *kong.Path, *kong.Flag) (any, error) { return nil, nil })),
	)
	parser.Model.HelpFlag.Help = "Show this help."
	return parser
}

// printOverview prints the help for "capture" without a command. Like a usage error, the help goes to stderr, and the exit
// code is 2.
func printOverview(parser *kong.Kong, std streams) int {
	parser.Stdout = std.err
	parser.Exit = func(int) {}
	_, _ = parser.Parse([]string{"--help"}) // prints the help, then fails because of the missing command
	return exitUsage
}

// commandName returns "capture" and the command that args specify, for error messages.
func commandName(parser *kong.Kong, args []string) string {
	for _, node := range parser.Model.Leaves(true) {
		if args[0] == node.Name {
			return "capture " + node.Name
		}
	}
	return "capture"
}

// reportError prints err to stderr unless the user has already seen it, and returns the exit code.
func reportError(err error, command string, args []string, std streams) int {
	var usage usageError
	var reported reportedError
	switch {
	case err == nil:
		return exitDone
	case errors.As(err, &reported):
		return exitFailed
	}
	fmt.Fprintf(std.err, "%s: %s\n", command, errorText(err, args))
	if errors.As(err, &usage) {
		fmt.Fprintf(std.err, "Run \"%s --help\" for usage.\n", command)
		return exitUsage
	}
	return exitFailed
}
