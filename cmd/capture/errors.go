package main

import (
	"fmt"
	"regexp"
	"runtime/debug"
	"strings"
)

// Exit codes of every command.
const (
	exitDone   = 0
	exitFailed = 1
	exitUsage  = 2
)

// usageError is a mistake in the command line or the environment: exit 2.
type usageError struct{ error }

func (e usageError) Unwrap() error { return e.error }

// reportedError is an error that the user has seen already, in the log or in the result: main only sets the exit code.
type reportedError struct{ error }

func (e reportedError) Unwrap() error { return e.error }

// nameEnvVar puts the environment variable first in kong's message about a bad value, if the value came from there.
func nameEnvVar(err error) error {
	message, origin, ok := strings.Cut(err.Error(), " (from envar ")
	if !ok {
		return err
	}
	name, _, _ := strings.Cut(origin, "=")
	flag, message, _ := strings.Cut(message, ": ")
	return fmt.Errorf("%s (%s): %s", name, flag, message)
}

// secretPattern matches what may carry a password in a message: database URLs, and libpq's password=value.
var secretPattern = regexp.MustCompile(`(?i)\bpostgres\w*(\+\w+)?://[^\s"]*|\bpassword\s*=\s*('[^']*'|[^\s"]*)`)

// redactSecrets hides passwords in a message. An argument that was given in the wrong place, such as a database URL
// instead of a table, may be quoted in it.
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

// catchPanic calls f and returns its panic as an error, so that a panic ends in the log and in exit 1.
func catchPanic(f func() error) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("internal error, please report it: %v\n%s", p, strings.TrimSpace(string(debug.Stack())))
		}
	}()
	return f()
}
