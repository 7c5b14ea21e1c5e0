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
	Status   func() capture.Status                                 // returns the daemon's status
	Flush    func(context.Context) (capture.SnapshotResult, error) // writes feedback.json now
	Path     string                                                // path of feedback.json
	Registry *prometheus.Registry                                  // metrics of the process, to which New adds the server's metrics
	Logger   hclog.Logger

	TokenFile string // path of the file with the bearer token; if "", only capture's own user and root on this machine are answered
	// IsOwn reports whether an open file is feedback.json as capture wrote it. Any other file is not sent. A nil IsOwn allows any
	// regular file.
	IsOwn      func(fs.FileInfo) bool
	Version    string // capture's version, for the metric capture_build_info
	Title      string // title of the page; if "", the title is made from the table's name
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
