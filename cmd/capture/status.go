package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"strings"
	"syscall"
	"time"

	"capture/capture"
	"capture/internal/foreign"
	"capture/store/disk"
	"capture/store/manifest"
)

// statusTimeout is the maximum time to wait for the daemon's response. It is short, because the daemon only has to read its own
// memory.
const statusTimeout = 3 * time.Second

type statusCmd struct {
	outputConfig
	listenConfig
	TokenFile string `placeholder:"FILE" env:"CAPTURE_TOKEN_FILE" help:"File with the bearer token for HTTP. On a terminal, the address of the feedback page is shown with the token."`
	JSON      bool   `name:"json" help:"Print the JSON of /readyz."`
	Watch     bool   `short:"w" help:"Show the status again each second, until interrupted."`
}

func (statusCmd) Help() string {
	return "Finds the daemon through the lock file beside --output, or at --listen if there is none or it belongs to another user. Exit code 0 means that " +
		"feedback.json follows the table, so the command can be a health check. It does not connect to the database."
}

func (statusCmd) Examples() string {
	return `
	capture status
	capture status --watch
	capture status --json | jq .checks`
}

func (c statusCmd) Run(ctx context.Context, std streams) error {
	path, err := c.filePath()
	if err != nil && disk.Exists(c.Output+".lock") {
		path, err = c.Output, nil // the lock file shows that capture has run with this path, so the folder has replaced the file since
	}
	if err != nil {
		return err
	}
	if c.Watch {
		return c.watch(ctx, path, std)
	}
	text, err := c.fetchText(ctx, path, std)
	if _, werr := io.WriteString(std.out, text); werr != nil {
		return werr
	}
	return err
}

// fetchText returns the status as plain text or JSON. It also returns an error if the daemon is not ready.
func (c statusCmd) fetchText(ctx context.Context, path string, std streams) (string, error) {
	status, raw, address, err := c.fetchStatus(ctx, path)
	if err != nil {
		return "", err
	}
	if !status.Ready {
		err = reportedError{errors.New("not ready")}
	}
	if c.JSON {
		var b strings.Builder
		err = cmp.Or(printJSON(&b, json.RawMessage(raw), ""), err)
		return b.String(), err
	}
	page := ""
	if isTerminal(std.out) { // the address may contain the token, so it is for terminals only
		token, _ := tokenFile(c.TokenFile).readToken()
		page = pageAddress(address, token)
	}
	return statusText(status, page, paletteFor(std.out), screenOf(std.out), time.Now()), err
}

// pageAddress returns the address of the feedback page. The token, if there is one, is in the fragment of the address,
// because browsers do not send the fragment to a server.
func pageAddress(address, token string) string {
	if token == "" {
		return "http://" + address + "/"
	}
	return "http://" + address + "/#token=" + url.QueryEscape(token)
}

// fetchStatus requests the daemon's status. It also returns the body of the response and the daemon's address.
func (c statusCmd) fetchStatus(ctx context.Context, path string) (status capture.Status, raw []byte, address string, err error) {
	address, held, err := findDaemon(ctx, path, string(c.Listen))
	if err != nil {
		return status, nil, "", err
	}
	if !held || address == "" {
		address = dialAddress(string(c.Listen), "")
	}
	code, raw, err := askDaemon(ctx, http.MethodGet, address, "/readyz", "", statusTimeout)
	switch {
	case err != nil && !held && errors.Is(err, syscall.ECONNREFUSED):
		return status, nil, "", linesError{fmt.Errorf("no daemon holds the lock of %s, and none listens on %s; start one with: capture run%s",
			foreign.Line(path), address, earlierText(path, time.Now()))}
	case err != nil:
		return status, nil, "", err
	}
	if err := json.Unmarshal(raw, &status); err != nil || status.State == "" {
		return status, nil, "", fmt.Errorf("the server at %s is not capture: its response to GET /readyz (code %d) has no status: %s", address, code, otherProgram)
	}
	return status, raw, address, nil
}

// earlierText returns a line that describes the file of an earlier run, or what prevents a new run. It returns "" if there is
// no file with a manifest.
func earlierText(path string, now time.Time) string {
	if info, err := os.Stat(path); err == nil && !info.Mode().IsRegular() {
		return fmt.Sprintf("\nBut %s is not a regular file: remove it first, or name another file with --output", foreign.Line(path))
	}
	m, err := manifest.Read(path)
	switch {
	case disk.IsMissing(err):
		return ""
	case err != nil:
		return "\nThe file of an earlier run cannot be described: " + foreign.Line(err.Error())
	}
	return fmt.Sprintf("\nThe file of an earlier run has %s and was written %s ago; check it with: capture verify", rowsText(m.Rows), spanText(now.Sub(m.WrittenAt)))
}
