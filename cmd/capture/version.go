package main

import (
	"cmp"
	"fmt"
	"runtime"
	"runtime/debug"
)

// version and commit are set by the linker in releases: -ldflags "-X main.version=… -X main.commit=…".
var version, commit string

type versionCmd struct{}

func (versionCmd) Examples() string { return `capture version` }

func (versionCmd) Run(std streams) error {
	v, c := buildInfo()
	_, err := fmt.Fprintf(std.out, "capture %s\ncommit  %s\n%s %s/%s\n", v, c, runtime.Version(), runtime.GOOS, runtime.GOARCH)
	return err
}

// buildInfo returns the version and commit of this binary: those set by the linker, otherwise those that the Go tool
// recorded.
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
