package web

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/prometheus/client_golang/prometheus"

	"capture/capture"
	"capture/snapshot"
)

// IDs of two users of this machine. Neither user is root. The users need not exist.
const (
	captureUser = 4711
	otherUser   = 4712
)

// forbidNetlink makes the kernel refuse netlink sockets to this process. It is set only on Linux.
var forbidNetlink func() error

// playRole runs in a process that asUser has started, and prints one line.
func playRole(role string, args []string) int {
	err := fmt.Errorf("unknown role %q", role)
	switch role {
	case "get": // a local user with curl
		var resp *http.Response
		if resp, err = http.Get(args[0]); err == nil {
			fmt.Println(resp.StatusCode)
		}
	case "fire": // a local user whose process ends before the answer
		var c net.Conn
		if c, err = net.Dial("tcp", args[0]); err == nil {
			_, err = io.WriteString(c, "POST /snapshot HTTP/1.1\r\nHost: localhost\r\n\r\n")
			fmt.Println("sent")
		}
	case "forward": // a proxy on this machine, which passes on requests from the network
		err = forward(args[0], args[1])
	case "serve": // capture on a system that reveals a caller's user
		err = serveFileAlone(args[0], args[1])
	case "serve-sandboxed": // capture on a system that does not reveal a caller's user
		if err = forbidNetlink(); err == nil {
			err = serveFileAlone(args[0], args[1])
		}
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return 0
}

// forward passes each connection on to address, and adds the given header to the connection's first request. With an empty
// header, forward is a plain TCP forwarder.
func forward(address, header string) error {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	fmt.Println(l.Addr())
	for {
		c, err := l.Accept()
		if err != nil {
			return err
		}
		go func() {
			defer c.Close()
			up, err := net.Dial("tcp", address)
			if err != nil {
				return
			}
			defer up.Close()
			go func() {
				in := bufio.NewReader(c)
				line, _ := in.ReadString('\n')
				io.WriteString(up, line+header)
				io.Copy(up, in)
			}()
			io.Copy(c, up)
		}()
	}
}

// serveFileAlone serves the file without a daemon, and logs to logPath, until the process is killed.
func serveFileAlone(path, logPath string) error {
	log, err := os.OpenFile(logPath, os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	s, err := New(Config{
		View:   func() *snapshot.View { return nil },
		Status: func() capture.Status { return capture.Status{} },
		Flush:  func(context.Context) (capture.SnapshotResult, error) { return capture.SnapshotResult{}, nil },
		Path:   path, Registry: prometheus.NewRegistry(), Logger: hclog.New(&hclog.LoggerOptions{Output: log, Level: hclog.Info}),
	})
	if err != nil {
		return err
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	fmt.Println(l.Addr())
	return s.Run(context.Background(), l)
}

// asUser starts this test program as the user with the ID uid, and returns the first line that the program prints. role
// tells the program what to do.
func asUser(t *testing.T, uid uint32, role string, args ...string) string {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("only root can start processes of other users")
	}
	cmd := exec.Command("/proc/self/exe", args...) // the test's own path may lie in a folder that the user can't enter
	cmd.Env = []string{"WEB_TEST_ROLE=" + role}
	cmd.Dir, cmd.Stderr = "/", os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uid, Gid: uid}}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { cmd.Process.Kill(); cmd.Wait() })
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		t.Fatalf("a process of user %d that should %s: %v", uid, role, err)
	}
	return strings.TrimSpace(line)
}

// getFile requests the file from address and returns the status code. If a proxy listens at address, the server's caller is
// the proxy. Otherwise the caller is this process, which runs as root.
func getFile(t *testing.T, address string, header ...string) int {
	t.Helper()
	r, err := http.NewRequest("GET", "http://"+address+"/feedback.json", nil)
	if err != nil {
		t.Fatal(err)
	}
	r.Host = "localhost" // an attacker can send this name through a proxy
	for i := 0; i < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	return resp.StatusCode
}

// TestOtherLocalUsersAreRefused checks that capture, without a token, answers its own user and root, but no other user of
// this machine.
func TestOtherLocalUsersAreRefused(t *testing.T) {
	t.Parallel()
	path := filepath.Join("/tmp", fmt.Sprintf("capture-web-test-%d.json", os.Getpid())) // other users cannot open files in t.TempDir()
	if err := os.WriteFile(path, []byte("[]\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.Remove(path) })
	addr := asUser(t, captureUser, "serve", path, os.DevNull)
	url := "http://" + addr + "/feedback.json"
	if code := asUser(t, captureUser, "get", url); code != "200" {
		t.Errorf("capture's own user: %s", code)
	}
	if code := asUser(t, 0, "get", url); code != "200" {
		t.Errorf("root: %s", code)
	}
	for _, target := range []string{url, "http://" + addr + "/", "http://" + addr + "/api/votes"} {
		if code := asUser(t, otherUser, "get", target); code != "403" {
			t.Errorf("another user, %s: %s", target, code)
		}
	}
	if code := asUser(t, otherUser, "get", "http://"+addr+"/healthz"); code != "200" {
		t.Errorf("another user asks for health: %s", code)
	}
}

// TestProxyOfAnotherUserIsRefused: a proxy that runs as another user of this machine is refused, whatever header fields it
// adds.
func TestProxyOfAnotherUserIsRefused(t *testing.T) {
	t.Parallel()
	h := newHarness(t, nil)
	h.replace(t, "feedback.json", "[]\n")
	addr := h.serve(t)
	if code := getFile(t, addr); code != 200 {
		t.Fatalf("without a proxy: %d", code)
	}
	for name, header := range map[string]string{"a TCP forwarder": "", "HAProxy with forwardfor": "X-Forwarded-For: 192.0.2.1\r\n"} {
		if code := getFile(t, asUser(t, otherUser, "forward", addr, header)); code != 403 {
			t.Errorf("%s: %d", name, code)
		}
	}
}

// TestProxyHeadersAreRefused checks that a proxy that runs as capture's own user is refused because of the header fields
// that it adds. This must also work if the client has already sent an empty field of the same name.
func TestProxyHeadersAreRefused(t *testing.T) {
	t.Parallel()
	h := newHarness(t, nil)
	h.replace(t, "feedback.json", "[]\n")
	addr := h.serve(t)
	for _, name := range []string{"Forwarded", "Via", "X-Forwarded-For", "X-Forwarded-Host", "X-Forwarded-Proto", "X-Forwarded-Anything", "X-Real-IP",
		"CF-Connecting-IP", "CF-Ray", "True-Client-IP", "X-Client-IP", "X-Cluster-Client-IP", "X-Original-Forwarded-For", "Fastly-Client-IP",
		"X-Azure-ClientIP", "X-Envoy-External-Address", "X-Amzn-Trace-Id", "x-forwarded-for"} {
		for _, value := range []string{"", "192.0.2.1"} {
			if w := h.do("GET", "/feedback.json", name, value); w.Code != 403 || !strings.Contains(errorText(t, w), "proxy") {
				t.Errorf("%s: %q: %d", name, value, w.Code)
			}
		}
	}
	for _, name := range []string{"Accept", "User-Agent", "X-Requested-With", "DNT", "Upgrade-Insecure-Requests", "Priority", "Cache-Control"} {
		if w := h.do("GET", "/feedback.json", name, "x"); w.Code != 200 {
			t.Errorf("%s: %d", name, w.Code)
		}
	}
	if os.Geteuid() != 0 {
		return
	}
	proxy := asUser(t, 0, "forward", addr, "X-Forwarded-For: 192.0.2.1\r\n")
	if code := getFile(t, proxy, "X-Forwarded-For", ""); code != 403 {
		t.Errorf("through a proxy of capture's own user, after an empty field: %d", code)
	}
}

// TestCallerThatIsGoneIsRefused checks that a request is refused if the caller's process has ended before the request is
// read. Many kernels then report root as the owner of the caller's socket, but capture must not trust this answer.
func TestCallerThatIsGoneIsRefused(t *testing.T) {
	t.Parallel()
	var flushes atomic.Int64
	h := newHarness(t, func(c *Config) {
		c.Flush = func(context.Context) (capture.SnapshotResult, error) {
			flushes.Add(1)
			return capture.SnapshotResult{}, nil
		}
	})
	// Each caller ends before the server sees its connection, because the server starts only after all callers have ended.
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	const callers = 20
	for range callers {
		if said := asUser(t, otherUser, "fire", l.Addr().String()); said != "sent" {
			t.Fatal(said)
		}
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- h.Run(ctx, l) }()
	refused := func() int {
		body := h.do("GET", "/metrics").Body.String()
		_, rest, _ := strings.Cut(body, `capture_http_requests_total{code="403",route="/snapshot"} `)
		number, _, _ := strings.Cut(rest, "\n")
		n, _ := strconv.Atoi(number)
		return n
	}
	for deadline := time.Now().Add(patience); refused() < callers && flushes.Load() == 0 && time.Now().Before(deadline); {
		time.Sleep(time.Millisecond)
	}
	cancel()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	if refused() != callers || flushes.Load() != 0 {
		t.Errorf("%d of %d callers were refused, %d flushed", refused(), callers, flushes.Load())
	}
}

func TestHalfClosedCallerIsAnswered(t *testing.T) {
	t.Parallel()
	h := newHarness(t, nil)
	h.replace(t, "feedback.json", "[]\n")
	c := dial(t, h.serve(t)).(*net.TCPConn)
	fmt.Fprint(c, "GET /feedback.json HTTP/1.0\r\nHost: localhost\r\n\r\n")
	c.CloseWrite()
	answer, err := io.ReadAll(c)
	if err != nil || !bytes.HasPrefix(answer, []byte("HTTP/1.0 200")) {
		t.Errorf("%.50q, %v", answer, err)
	}
}

func TestCallersOverIPv6(t *testing.T) {
	t.Parallel()
	h := newHarness(t, nil)
	h.replace(t, "feedback.json", "[]\n")
	l, err := net.Listen("tcp", "[::1]:0")
	if err != nil {
		t.Skip("no IPv6 here: ", err)
	}
	l.Close()
	if l, err = net.Listen("tcp", "[::]:0"); err != nil { // for IPv4 and IPv6
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- h.Run(ctx, l) }()
	port := strconv.Itoa(l.Addr().(*net.TCPAddr).Port)
	for _, host := range []string{"::1", "127.0.0.1"} {
		if code := getFile(t, net.JoinHostPort(host, port)); code != 200 {
			t.Errorf("%s: %d", host, code)
		}
	}
	cancel()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
}

// On systems that do not reveal a caller's user, every caller over loopback is answered. Callers from the network, proxied requests
// and foreign host names are still refused.
func TestWithoutUsersLoopbackIsEnough(t *testing.T) {
	h := newHarness(t, nil)
	h.replace(t, "feedback.json", "[]\n")
	h.middleware.access.local.knowsUsers = false
	if w := h.do("GET", "/feedback.json", "Remote", "127.0.0.1:1"); w.Code != 200 {
		t.Errorf("loopback: %d", w.Code)
	}
	for _, pair := range [][]string{{"Remote", "192.0.2.1:1"}, {"X-Forwarded-For", ""}, {"Host", "evil.example"}} {
		if w := h.do("GET", "/feedback.json", pair...); w.Code != 403 {
			t.Errorf("%q: %d", pair, w.Code)
		}
	}
}
