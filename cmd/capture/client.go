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
	"net/netip"
	"os"
	"slices"
	"syscall"
	"time"

	"capture/internal/foreign"
	"capture/store"
)

// maxResponse is the maximum number of bytes that are read from a response. A program other than capture may answer at the
// address, and may send any amount.
const maxResponse = 1 << 20

// findDaemon returns the address of the daemon that writes the file at path, or "" if the daemon has not published one yet. It
// also reports whether a daemon is running.
//
// Requests to the address may carry the token, which a server of another user must not get. Therefore, findDaemon uses the
// address in the lock file only if no other user can have written that file. The address must also belong to this machine, or
// equal the address of --listen. If this user cannot read the lock file, or if another user can have written it, findDaemon
// tries the address of --listen instead.
func findDaemon(ctx context.Context, path, listen string) (address string, running bool, err error) {
	asked := dialAddress(listen, "")
	owner, held, err := store.ReadOwner(path)
	notTrusted := errors.Is(err, store.ErrLockNotTrusted)
	switch {
	case errors.Is(err, fs.ErrPermission), notTrusted:
		conn, dialErr := (&net.Dialer{Timeout: statusTimeout}).DialContext(ctx, "tcp", asked)
		if dialErr == nil {
			conn.Close()
		} else if notTrusted {
			return "", held, fmt.Errorf("%w, and nothing answers on %s; give the daemon's address with --listen", err, asked)
		} else if errors.Is(dialErr, syscall.ECONNREFUSED) {
			return "", false, nil
		}
		return asked, true, nil // the caller's request will show any other problem
	case err != nil || !held || owner.Listen == "":
		return "", held, err
	}
	host := ""
	if here, err := os.Hostname(); err == nil && owner.Host != here {
		host = owner.Host // the daemon runs in another container or on another machine that shares the volume
	}
	address = dialAddress(owner.Listen, host)
	if address != asked && !isThisMachine(address) {
		return "", true, fmt.Errorf("the daemon that writes %s is process %d on host %s and listens on %s, which is not this machine; if you trust that address, give it with --listen %s",
			path, owner.PID, foreign.Text(owner.Host), foreign.Text(owner.Listen), foreign.ShellWord(foreign.Text(address)))
	}
	return address, true, nil
}

// isThisMachine reports whether the host of an address is localhost or an IP address of this machine. It does not look up
// host names.
func isThisMachine(address string) bool {
	host, _, err := net.SplitHostPort(address)
	if err != nil {
		return false
	}
	if host == "localhost" {
		return true
	}
	ip, err := netip.ParseAddr(host)
	if err != nil {
		return false
	}
	if ip = ip.Unmap(); ip.IsLoopback() {
		return true
	}
	own, err := net.InterfaceAddrs()
	return err == nil && slices.ContainsFunc(own, func(a net.Addr) bool {
		prefix, err := netip.ParsePrefix(a.String())
		return err == nil && prefix.Addr().Unmap() == ip.WithZone("")
	})
}

// dialAddress returns the address at which a client reaches a server. The server listens on listenAddress. If this address has no
// host, or an unspecified IP address such as 0.0.0.0, dialAddress puts host in its place, or 127.0.0.1 if host is "".
func dialAddress(listenAddress, host string) string {
	name, port, err := net.SplitHostPort(listenAddress)
	if err != nil {
		return listenAddress
	}
	ip := net.ParseIP(name)
	switch {
	case name != "" && (ip == nil || !ip.IsUnspecified()):
		return listenAddress
	case host != "":
		return net.JoinHostPort(host, port)
	}
	return net.JoinHostPort("127.0.0.1", port)
}

// askDaemon sends a request to the daemon and returns the status code and the body of the response.
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
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, syscall.ECONNRESET), errors.Is(err, syscall.EPIPE):
		return fmt.Errorf("ask the daemon at %s: it ended the connection without a response; if it has not just been stopped, %s", address, otherProgram)
	case errors.As(err, new(*net.OpError)):
		return fmt.Errorf("ask the daemon at %s: %w", address, err)
	}
	// Do not show err, because it quotes what the other program has sent.
	return fmt.Errorf("ask the daemon at %s: the response is not HTTP: %s", address, otherProgram)
}

// otherProgram says that the address belongs to a program that is not capture, and what to do.
const otherProgram = "another program than capture answers there; give the daemon's address with --listen"

// refusalReason returns the error in the daemon's response. If the response contains no error, refusalReason returns the status
// code, and says that the response may come from a program other than capture.
func refusalReason(code int, body []byte) string {
	var response struct {
		Error string `json:"error"`
	}
	if err := json.Unmarshal(body, &response); err != nil || response.Error == "" {
		return fmt.Sprintf("%d %s, without a reason: perhaps %s", code, http.StatusText(code), otherProgram)
	}
	return foreign.Text(response.Error)
}
