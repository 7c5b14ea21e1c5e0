package main

import (
	"errors"
	"fmt"
	"regexp"
	"runtime/debug"
	"strings"

	"capture/internal/foreign"
)

// Exit codes of every command.
const (
	exitDone   = 0
	exitFailed = 1
	exitUsage  = 2
)

// usageError is an error in the command line or the environment. Its exit code is exitUsage.
type usageError struct{ error }

func (e usageError) Unwrap() error { return e.error }

// reportedError is an error that the log or the result has already shown to the user. For such an error, main only sets the
// exit code.
type reportedError struct{ error }

func (e reportedError) Unwrap() error { return e.error }

// linesError is an error whose text has several lines on purpose, and contains no names that others have chosen.
type linesError struct{ error }

func (e linesError) Unwrap() error { return e.error }

// errorText returns the text of an error in a form that is safe to display. The text has one line, unless err is a linesError.
func errorText(err error, args []string) string {
	text := redactSecrets(err.Error(), args)
	if errors.As(err, new(linesError)) {
		return foreign.Lines(text)
	}
	return foreign.Line(text)
}

// nameEnvVar rewrites kong's error about a bad value that came from an environment variable. The new message begins with the
// name of the variable. nameEnvVar returns any other error unchanged.
func nameEnvVar(err error) error {
	message, origin, ok := strings.Cut(err.Error(), " (from envar ")
	if !ok {
		return err
	}
	name, _, _ := strings.Cut(origin, "=")
	flag, message, _ := strings.Cut(message, ": ")
	return fmt.Errorf("%s (%s): %s", name, flag, message)
}

// secretPattern matches the parts of a message that may contain a secret: database URLs, other URLs with a password or a
// signature, and pairs such as password=value, as libpq accepts them.
var secretPattern = regexp.MustCompile(`(?i)\bpostgres\w*(\+\w+)?://[^\s"]*|\b[a-z][a-z0-9+.-]*://[^\s"/]*@[^\s"]*|\b[a-z][a-z0-9+.-]*://[^\s"]*[?&](sig|[\w-]*(signature|token|key))=[^\s"]*|` +
	`\b(password|sig|accountkey|sharedaccesssignature)\s*=\s*('[^']*'|[^\s"]*)`)

// redactSecrets hides passwords in a message. The message may quote an argument that the user gave in the wrong place, such
// as a database URL instead of a table name. If such an argument may contain a password, redactSecrets hides the whole
// argument.
func redactSecrets(message string, args []string) string {
	for _, arg := range args {
		_, value, _ := strings.Cut(arg, "=")
		for _, s := range []string{arg, value} {
			if secretPattern.MatchString(s) {
				message = strings.ReplaceAll(message, s, "(hidden)")
			}
		}
	}
	return secretPattern.ReplaceAllString(message, "(hidden)")
}

// catchPanic calls f. If f panics, catchPanic returns the panic as an error, so that the panic is reported and the exit code
// is 1.
func catchPanic(f func() error) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = linesError{fmt.Errorf("internal error, please report it: %v\n%s", p, strings.TrimSpace(string(debug.Stack())))}
		}
	}()
	return f()
}
