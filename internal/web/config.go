package web

import (
	"context"
	"fmt"
	"io/fs"

	"github.com/hashicorp/go-hclog"
	"github.com/prometheus/client_golang/prometheus"

	"capture/capture"
	"capture/snapshot"
)

// Config configures a Server. The fields before TokenFile are required.
type Config struct {
	View     func() *snapshot.View                                 // last committed state of the table, nil before the first copy
	Status   func() capture.Status                                 // what the daemon is doing
	Flush    func(context.Context) (capture.SnapshotResult, error) // writes feedback.json now
	Path     string                                                // path of feedback.json
	Registry *prometheus.Registry                                  // metrics of the process; New adds the server's own
	Logger   hclog.Logger

	TokenFile string // path of the file with the bearer token; "" serves only capture's own user and root, on this machine
	// IsOwn reports whether an open file is feedback.json as capture wrote it. No other is served. nil allows any regular file.
	IsOwn      func(fs.FileInfo) bool
	Version    string // capture's version, for the metric capture_build_info
	Title      string // title of the page; "" makes one from the table's name
	TimeColumn string // column with the time of a vote; "" takes the first timestamp
	TagsColumn string // column with the tags of a vote; "" takes the first text[]
}

func (c *Config) validate() error {
	required := []struct {
		name  string
		isSet bool
	}{
		{"View", c.View != nil},
		{"Status", c.Status != nil},
		{"Flush", c.Flush != nil},
		{"Path", c.Path != ""},
		{"Registry", c.Registry != nil},
		{"Logger", c.Logger != nil},
	}
	for _, field := range required {
		if !field.isSet {
			return fmt.Errorf("configure web server: %s is missing", field.name)
		}
	}
	return nil
}
