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
	View     func() *snapshot.View                                 // returns the last committed state; nil before the first copy
	Status   func() capture.Status                                 // returns what the daemon is doing
	Flush    func(context.Context) (capture.SnapshotResult, error) // writes feedback.json now
	Path     string                                                // path of feedback.json
	Registry *prometheus.Registry                                  // metrics of the process; New adds those of the server
	Logger   hclog.Logger

	TokenFile string // path of the file with the bearer token; "" answers only capture's own user and root, on this machine
	// IsOwn reports whether an open file is feedback.json as capture wrote it. Other files are not sent. A nil IsOwn allows any
	// regular file.
	IsOwn      func(fs.FileInfo) bool
	Version    string // capture's version, for the metric capture_build_info
	Title      string // title of the page; if "", it is made from the table's name
	TimeColumn string // name of the column with a vote's time; "" means the first timestamp
	TagsColumn string // name of the column with a vote's tags; "" means the first text[]
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
