package peeruser

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"
)

// TestMain also runs the helper processes of the tests. With PEERUSER_TEST_DIAL, the process is a caller that can belong to
// another user; see startCaller. With PEERUSER_TEST_OWN, the process prints what TestOverflowUserIsNotOwn compares.
func TestMain(m *testing.M) {
	if address := os.Getenv("PEERUSER_TEST_DIAL"); address != "" {
		c, err := net.Dial("tcp", address)
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		io.Copy(io.Discard, c) // until the server closes the connection
		os.Exit(0)
	}
	if os.Getenv("PEERUSER_TEST_OWN") != "" {
		fmt.Println(os.Geteuid(), Check() == nil, IsOwnUser(uint32(os.Geteuid())))
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// startCaller starts a process with the given user ID. The process connects to address and holds the connection open.
func startCaller(t *testing.T, uid uint32, address string) *exec.Cmd {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("only root can start a process of another user")
	}
	cmd := exec.Command("/proc/self/exe") // the test's own path may lie in a folder that the user cannot enter
	cmd.Env = []string{"PEERUSER_TEST_DIAL=" + address}
	cmd.Stderr = os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uid, Gid: uid}}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { cmd.Process.Kill(); cmd.Wait() })
	return cmd
}

// listen listens on address until the test ends. It skips the test if address needs IPv6 and this machine has none, as in many
// containers.
func listen(t *testing.T, address string) net.Listener {
	t.Helper()
	l, err := net.Listen("tcp", address)
	if err != nil && strings.HasPrefix(address, "[") {
		t.Skip("no IPv6 here: ", err)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l
}

func accept(t *testing.T, l net.Listener) net.Conn {
	t.Helper()
	c, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

// connect connects to l at the given address and returns both ends of the connection.
func connect(t *testing.T, l net.Listener, address string) (client *net.TCPConn, server net.Conn) {
	t.Helper()
	c, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c.(*net.TCPConn), accept(t, l)
}

// lookupCaller looks up the caller as a server does: by the remote and the local address of the connection that the server
// has accepted.
func lookupCaller(server net.Conn) (uint32, error) {
	return Lookup(addrPort(server.RemoteAddr()), addrPort(server.LocalAddr()))
}

func TestCheck(t *testing.T) {
	if err := Check(); err != nil {
		t.Fatal(err)
	}
}

func TestLookupOfOwnSocket(t *testing.T) {
	own := uint32(os.Geteuid())
	for _, c := range []struct{ name, listen, dial string }{
		{"IPv4", "127.0.0.1:0", "127.0.0.1"},
		{"another loopback address", "0.0.0.0:0", "127.9.8.7"},
		{"IPv6", "[::1]:0", "::1"},
		{"IPv4 at a socket for both", "[::]:0", "127.0.0.1"},
		{"IPv6 at a socket for both", "[::]:0", "::1"},
	} {
		t.Run(c.name, func(t *testing.T) {
			l := listen(t, c.listen)
			_, port, _ := net.SplitHostPort(l.Addr().String())
			client, server := connect(t, l, net.JoinHostPort(c.dial, port))
			if uid, err := lookupCaller(server); err != nil || uid != own {
				t.Errorf("user %d, %v", uid, err)
			}
			if err := client.CloseWrite(); err != nil {
				t.Fatal(err)
			}
			if uid, err := lookupCaller(server); err != nil || uid != own {
				t.Errorf("half closed: user %d, %v", uid, err)
			}
		})
	}
}

// TestLookupOfMappedSocket checks that Lookup finds an IPv6 socket that has connected to an IPv4 address. The addresses of
// such a socket have the form ::ffff:127.0.0.1.
func TestLookupOfMappedSocket(t *testing.T) {
	l := listen(t, "127.0.0.1:0")
	fd, err := syscall.Socket(syscall.AF_INET6, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Skip("no IPv6 here: ", err)
	}
	defer syscall.Close(fd)
	mapped := netip.AddrFrom4([4]byte{127, 0, 0, 1})
	if err := syscall.Connect(fd, &syscall.SockaddrInet6{Port: int(addrPort(l.Addr()).Port()), Addr: mapped.As16()}); err != nil {
		t.Fatal(err)
	}
	server := accept(t, l)
	if uid, err := lookupCaller(server); err != nil || uid != uint32(os.Geteuid()) {
		t.Errorf("user %d, %v", uid, err)
	}
	caller := addrPort(server.RemoteAddr())
	caller = netip.AddrPortFrom(netip.AddrFrom16(caller.Addr().As16()), caller.Port())
	if uid, err := Lookup(caller, addrPort(server.LocalAddr())); err != nil || uid != uint32(os.Geteuid()) {
		t.Errorf("by the mapped address: user %d, %v", uid, err)
	}
}

func TestLookupOfAnotherUser(t *testing.T) {
	l := listen(t, "127.0.0.1:0")
	startCaller(t, 4711, l.Addr().String())
	server := accept(t, l)
	if uid, err := lookupCaller(server); err != nil || uid != 4711 {
		t.Errorf("user %d, %v", uid, err)
	}
}

// TestClosedSocketBelongsToNobody checks that Lookup returns ErrNoSocket for a socket that no process holds any more. Many
// kernels return user 0 (root) as the owner of such a socket.
func TestClosedSocketBelongsToNobody(t *testing.T) {
	l := listen(t, "127.0.0.1:0")
	caller := startCaller(t, 4711, l.Addr().String())
	server := accept(t, l)
	caller.Process.Kill()
	caller.Wait()
	for range 20 {
		if uid, err := lookupCaller(server); !errors.Is(err, ErrNoSocket) {
			t.Fatalf("user %d, %v", uid, err)
		}
		time.Sleep(time.Millisecond) // the caller's socket goes from FIN_WAIT1 to FIN_WAIT2
	}
	server.Close() // the caller's socket goes to TIME_WAIT
	for range 20 {
		if uid, err := lookupCaller(server); !errors.Is(err, ErrNoSocket) {
			t.Fatalf("after the server's close: user %d, %v", uid, err)
		}
		time.Sleep(time.Millisecond)
	}
}

// TestListenerIsNotTheCaller checks that Lookup does not return the owner of a listening socket. If the connection does not
// exist, the kernel returns the socket that listens on the caller's address.
func TestListenerIsNotTheCaller(t *testing.T) {
	for _, address := range []string{"127.0.0.1:0", "0.0.0.0:0", "[::1]:0"} {
		t.Run(address, func(t *testing.T) {
			l := listen(t, address)
			port := addrPort(l.Addr()).Port()
			loopback := netip.MustParseAddr("127.0.0.1")
			if address == "[::1]:0" {
				loopback = netip.IPv6Loopback()
			}
			if uid, err := Lookup(netip.AddrPortFrom(loopback, port), netip.AddrPortFrom(loopback, 9)); !errors.Is(err, ErrNoSocket) {
				t.Errorf("user %d, %v", uid, err)
			}
		})
	}
	if _, err := Lookup(netip.MustParseAddrPort("127.0.0.1:1"), netip.MustParseAddrPort("[::1]:1")); !errors.Is(err, ErrNoSocket) {
		t.Errorf("two families: %v", err)
	}
}

func TestIsOwnUser(t *testing.T) {
	if !IsOwnUser(uint32(os.Geteuid())) || IsOwnUser(uint32(os.Geteuid())+1) {
		t.Error("the own user is not recognized")
	}
}

// TestOverflowUserIsNotOwn checks IsOwnUser in a user namespace. There, all users without a mapping appear as the overflow
// user (65534). A process that runs as this user cannot distinguish its own sockets from the sockets of users without a
// mapping, so IsOwnUser must return false.
func TestOverflowUserIsNotOwn(t *testing.T) {
	for _, c := range []struct {
		uid  int
		want string
	}{{4711, "4711 true true"}, {65534, "65534 true false"}} {
		cmd := exec.Command("/proc/self/exe")
		cmd.Env = []string{"PEERUSER_TEST_OWN=1"}
		cmd.SysProcAttr = &syscall.SysProcAttr{
			Cloneflags:  syscall.CLONE_NEWUSER,
			UidMappings: []syscall.SysProcIDMap{{ContainerID: c.uid, HostID: os.Geteuid(), Size: 1}},
			GidMappings: []syscall.SysProcIDMap{{ContainerID: c.uid, HostID: os.Getegid(), Size: 1}},
		}
		out, err := cmd.CombinedOutput()
		if errors.Is(err, syscall.EPERM) || errors.Is(err, syscall.ENOSPC) {
			t.Skip("this system does not let the user make user namespaces")
		}
		if err != nil || string(out) != c.want+"\n" {
			t.Errorf("as user %d: %q, %v", c.uid, out, err)
		}
	}
}

func BenchmarkLookup(b *testing.B) {
	client, server, err := connectToSelf()
	if err != nil {
		b.Fatal(err)
	}
	defer client.Close()
	defer server.Close()
	for b.Loop() {
		if _, err := lookupCaller(server); err != nil {
			b.Fatal(err)
		}
	}
}
