package main

import (
	"cmp"
	"fmt"
	"runtime"
	"runtime/debug"

	"github.com/alecthomas/kong"
)

// The linker sets version and commit when a release is built: -ldflags "-X main.version=… -X main.commit=…".
var version, commit string

type versionCmd struct{}

func (versionCmd) Examples() string {
	return `
	capture version
	capture --version`
}

func (versionCmd) Run(std streams) error {
	v, c := buildInfo()
	_, err := fmt.Fprintf(std.out, "capture %s\ncommit  %s\n%s %s/%s\n", v, c, runtime.Version(), runtime.GOOS, runtime.GOARCH)
	return err
}

// versionFlag is --version, which does the same as the command version.
type versionFlag bool

// BeforeReset prints the version and ends the program. kong calls BeforeReset when it finds the flag.
func (versionFlag) BeforeReset(app *kong.Kong, std streams) error {
	if err := (versionCmd{}).Run(std); err != nil {
		return err
	}
	app.Exit(exitDone)
	return nil
}

// buildInfo returns the version and the commit of this binary. Values that the linker has set take precedence over values that
// the Go tool has recorded.
func buildInfo() (v, c string) {
	v, c = version, commit
	info, ok := debug.ReadBuildInfo()
	if ok {
		if info.Main.Version != "(devel)" {
			v = cmp.Or(v, info.Main.Version)
		}
		settings := make(map[string]string)
		for _, s := range info.Settings {
			settings[s.Key] = s.Value
		}
		fromVCS := settings["vcs.revision"]
		if fromVCS != "" && settings["vcs.modified"] == "true" {
			fromVCS += " with changes"
		}
		c = cmp.Or(c, fromVCS)
	}
	return cmp.Or(v, "dev"), cmp.Or(c, "unknown")
}
