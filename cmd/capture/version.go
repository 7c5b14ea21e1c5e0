package main

import (
	"cmp"
	"fmt"
	"runtime"
	"runtime/debug"
)

// version and commit are stamped in by releases: -ldflags "-X main.version=… -X main.commit=…".
var version, commit string

type versionCmd struct{}

func (versionCmd) Examples() string { return `capture version` }

func (versionCmd) Run(std streams) error {
	v, c := build()
	_, err := fmt.Fprintf(std.out, "capture %s\ncommit  %s\n%s %s/%s\n", v, c, runtime.Version(), runtime.GOOS, runtime.GOARCH)
	return err
}

// build is the version and the commit of this binary: what a release stamped in, else what the Go tool knows.
func build() (version_, commit_ string) {
	version_, commit_ = version, commit
	info, ok := debug.ReadBuildInfo()
	if ok {
		if v := info.Main.Version; v != "(devel)" {
			version_ = cmp.Or(version_, v)
		}
		settings := make(map[string]string)
		for _, s := range info.Settings {
			settings[s.Key] = s.Value
		}
		fromVCS := settings["vcs.revision"]
		if fromVCS != "" && settings["vcs.modified"] == "true" {
			fromVCS += " with changes"
		}
		commit_ = cmp.Or(commit_, fromVCS)
	}
	return cmp.Or(version_, "dev"), cmp.Or(commit_, "unknown")
}
