package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"os"
	"syscall"
	"time"

	"capture/store"
)

// maxResponse limits the bytes that are read of a response. The server may not be capture.
const maxResponse = 1 << 20

// findDaemon returns the address of the daemon that writes the file at path: "" if it has not published one yet. It reports false if
// no daemon runs. The lock file is closed to other users; one who can't read it finds the daemon at listen, the address of --listen.
func findDaemon(ctx context.Context, path, listen string) (address string, running bool, err error) {
	owner, held, err := store.ReadOwner(path)
	if errors.Is(err, fs.ErrPermission) {
		address = dialAddress(listen, "")
		conn, err := (&net.Dialer{Timeout: statusTimeout}).DialContext(ctx, "tcp", address)
		if errors.Is(err, syscall.ECONNREFUSED) {
			return "", false, nil
		}
		if err == nil {
			conn.Close()
		}
		return address, true, nil // whatever else is wrong there, the request will show
	}
	return daemonAddress(owner), held, err
}

// daemonAddress returns the address of the daemon that owner describes, or "" if the daemon has not published one.
func daemonAddress(owner store.Owner) string {
	if owner.Listen == "" {
		return ""
	}
	here, err := os.Hostname()
	if err == nil && owner.Host != here {
		// The daemon runs in another container or on another machine that shares the volume.
		return dialAddress(owner.Listen, owner.Host)
	}
	return dialAddress(owner.Listen, "")
}

// dialAddress turns an address to listen on into one to dial. An unspecified address, such as 0.0.0.0, becomes host, or
// the loopback address if host is "".
func dialAddress(listen, host string) string {
	name, port, err := net.SplitHostPort(listen)
	if err != nil {
		return listen
	}
	ip := net.ParseIP(name)
	switch {
	case name != "" && (ip == nil || !ip.IsUnspecified()):
		return listen
	case host != "":
		return net.JoinHostPort(host, port)
	}
	return net.JoinHostPort("127.0.0.1", port)
}

// askDaemon sends a request to the daemon and returns the status code and body of the response.
func askDaemon(ctx context.Context, method, address, path, token string, timeout time.Duration) (int, []byte, error) {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, method, "http://"+address+path, nil)
	if err != nil {
		return 0, nil, err
	}
	if token != "" {
		request.Header.Set("Authorization", "Bearer "+token)
	}
	// The token is for this daemon only, so the client uses no proxy and follows no redirect.
	client := http.Client{
		Transport:     &http.Transport{DisableKeepAlives: true},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	response, err := client.Do(request)
	if err != nil {
		return 0, nil, explainRequestError(ctx, address, timeout, err)
	}
	defer response.Body.Close()
	body, err := io.ReadAll(io.LimitReader(response.Body, maxResponse))
	if err != nil {
		return 0, nil, explainRequestError(ctx, address, timeout, err)
	}
	return response.StatusCode, body, nil
}

func explainRequestError(ctx context.Context, address string, timeout time.Duration, err error) error {
	switch {
	case errors.Is(ctx.Err(), context.DeadlineExceeded):
		return fmt.Errorf("ask the daemon at %s: no response within %s", address, spanText(timeout))
	case ctx.Err() != nil:
		return errors.New("interrupted")
	case errors.Is(err, syscall.ECONNREFUSED):
		return fmt.Errorf("ask the daemon at %s: nothing is listening there: %w", address, err)
	}
	return fmt.Errorf("ask the daemon at %s: %w", address, err)
}

// refusalReason returns the error in the daemon's response or, without one, the status code.
func refusalReason(code int, body []byte) string {
	var response struct {
		Error string `json:"error"`
	}
	if err := json.Unmarshal(body, &response); err != nil || response.Error == "" {
		return fmt.Sprintf("%d %s", code, http.StatusText(code))
	}
	return response.Error
}
