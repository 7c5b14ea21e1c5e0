package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"syscall"
	"time"

	"capture/store"
)

// maxAnswer bounds what is read of a daemon's answer: it may not be capture that answers.
const maxAnswer = 1 << 20

// daemonAddress is where to call the daemon that owner describes; "" where it has not said.
func daemonAddress(owner store.Owner) string {
	if owner.Listen == "" {
		return ""
	}
	here, err := os.Hostname()
	if err == nil && owner.Host != here {
		// The file is on a volume that another container or machine shares with this one.
		return reachable(owner.Listen, owner.Host)
	}
	return reachable(owner.Listen, "")
}

// reachable turns an address to listen on into one to call: all addresses of a machine become its name, or the loopback
// where it is this one (host "").
func reachable(listen, host string) string {
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

// ask sends a request to the daemon and returns the code and the body of its answer.
func ask(ctx context.Context, method, address, path, token string, timeout time.Duration) (int, []byte, error) {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, method, "http://"+address+path, nil)
	if err != nil {
		return 0, nil, err
	}
	if token != "" {
		request.Header.Set("Authorization", "Bearer "+token)
	}
	// No proxy from the environment, no redirect: the token is for this daemon only.
	client := http.Client{
		Transport:     &http.Transport{DisableKeepAlives: true},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	response, err := client.Do(request)
	if err != nil {
		return 0, nil, askError(ctx, address, timeout, err)
	}
	defer response.Body.Close()
	body, err := io.ReadAll(io.LimitReader(response.Body, maxAnswer))
	if err != nil {
		return 0, nil, askError(ctx, address, timeout, err)
	}
	return response.StatusCode, body, nil
}

func askError(ctx context.Context, address string, timeout time.Duration, err error) error {
	switch {
	case errors.Is(ctx.Err(), context.DeadlineExceeded):
		return fmt.Errorf("ask the daemon at %s: no answer within %s", address, spanText(timeout))
	case ctx.Err() != nil:
		return errors.New("interrupted")
	case errors.Is(err, syscall.ECONNREFUSED):
		return fmt.Errorf("ask the daemon at %s: nothing listens there: %w", address, err)
	}
	return fmt.Errorf("ask the daemon at %s: %w", address, err)
}

// reason is why the daemon refused: the error of its answer.
func reason(code int, body []byte) string {
	var answer struct {
		Error string `json:"error"`
	}
	if err := json.Unmarshal(body, &answer); err != nil || answer.Error == "" {
		return fmt.Sprintf("%d %s", code, http.StatusText(code))
	}
	return answer.Error
}
