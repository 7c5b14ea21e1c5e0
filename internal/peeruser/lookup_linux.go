package peeruser

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"sync"

	"golang.org/x/sys/unix"
)

// Sizes of the messages of sock_diag(7), from linux/netlink.h and linux/inet_diag.h.
const (
	headerSize   = unix.SizeofNlMsghdr // struct nlmsghdr
	socketIDSize = 48                  // struct inet_diag_sockid
	requestSize  = 8 + socketIDSize    // struct inet_diag_req_v2
	answerSize   = 4 + socketIDSize + 20
)

// States of a TCP socket in which the socket's owner can still read what the server sends, from linux/tcp_states.h.
const (
	tcpEstablished = 1
	tcpFinWait1    = 4 // the owner has stopped sending
	tcpFinWait2    = 5
)

// Lookup returns the ID of the user who owns the caller's socket. That socket is one end of the connection from caller to
// server. The error is ErrNoSocket if there is no such socket. Any other error means that the lookup failed.
//
// The kernel finds the socket in its hash table of connections, so the time of a lookup does not depend on the number of
// connections. Lookup needs no capability. For a user who is not in the process's user namespace, the kernel returns the
// overflow user; see [IsOwnUser].
func Lookup(caller, server netip.AddrPort) (uid uint32, err error) {
	caller, server = unmap(caller), unmap(server)
	if caller.Addr().Is4() != server.Addr().Is4() {
		return 0, ErrNoSocket
	}
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_SOCK_DIAG)
	if err != nil {
		return 0, fmt.Errorf("open a netlink socket: %w", err)
	}
	defer unix.Close(fd)
	if err := unix.Sendto(fd, request(caller, server), 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return 0, fmt.Errorf("ask the kernel for the caller's socket: %w", err)
	}
	// The kernel puts the answer into the socket before Sendto returns, so there is nothing to wait for.
	buf := make([]byte, 4096)
	n, from, err := unix.Recvfrom(fd, buf, unix.MSG_DONTWAIT)
	if err != nil {
		return 0, fmt.Errorf("read the kernel's answer about the caller's socket: %w", err)
	}
	if sender, ok := from.(*unix.SockaddrNetlink); !ok || sender.Pid != 0 {
		return 0, errors.New("read the kernel's answer about the caller's socket: the answer is not the kernel's")
	}
	return parseAnswer(buf[:n], caller, server)
}

// unmap converts an IPv4 address that is written as an IPv6 address to an IPv4 address. The kernel stores a connection between
// such addresses as an IPv4 connection, even if the sockets are IPv6 sockets.
func unmap(a netip.AddrPort) netip.AddrPort {
	return netip.AddrPortFrom(a.Addr().Unmap().WithZone(""), a.Port())
}

// request returns a netlink request for the caller's socket: its local address is caller, and its remote address is server.
func request(caller, server netip.AddrPort) []byte {
	native := binary.NativeEndian
	b := make([]byte, headerSize+requestSize)
	native.PutUint32(b[0:], uint32(len(b)))
	native.PutUint16(b[4:], unix.SOCK_DIAG_BY_FAMILY)
	native.PutUint16(b[6:], unix.NLM_F_REQUEST) // without NLM_F_DUMP, the kernel returns one socket, not all sockets
	r := b[headerSize:]
	r[0] = unix.AF_INET6
	if caller.Addr().Is4() {
		r[0] = unix.AF_INET
	}
	r[1] = unix.IPPROTO_TCP
	native.PutUint32(r[4:], 1<<tcpEstablished|1<<tcpFinWait1|1<<tcpFinWait2)
	id := r[8:]
	binary.BigEndian.PutUint16(id[0:], caller.Port())
	binary.BigEndian.PutUint16(id[2:], server.Port())
	copy(id[4:20], caller.Addr().AsSlice())
	copy(id[20:36], server.Addr().AsSlice())
	native.PutUint64(id[40:], ^uint64(0)) // INET_DIAG_NOCOOKIE
	return b
}

// parseAnswer returns the owner of the socket that the kernel's answer b describes.
func parseAnswer(b []byte, caller, server netip.AddrPort) (uid uint32, err error) {
	native := binary.NativeEndian
	if len(b) < headerSize+4 {
		return 0, fmt.Errorf("the kernel's answer about the caller's socket has %d bytes", len(b))
	}
	kind, body := native.Uint16(b[4:]), b[headerSize:]
	switch {
	case kind == unix.NLMSG_ERROR:
		errno := unix.Errno(-int32(native.Uint32(body)))
		if errno == unix.ENOENT {
			return 0, ErrNoSocket
		}
		return 0, fmt.Errorf("ask the kernel for the caller's socket: %w", errno)
	case kind != unix.SOCK_DIAG_BY_FAMILY || len(body) < answerSize:
		return 0, fmt.Errorf("the kernel's answer about the caller's socket has the type %d and %d bytes", kind, len(body))
	}
	family, state, id, owner := body[0], body[1], body[4:], body[4+socketIDSize+12:]
	uid, inode := native.Uint32(owner), native.Uint32(owner[4:])
	// If the connection does not exist, the kernel can return another socket with the caller's address: a socket that
	// listens, or a socket that is only beginning to connect. Such a socket may belong to another user, so only three states
	// are accepted.
	switch state {
	case tcpEstablished, tcpFinWait1, tcpFinWait2:
	default:
		return 0, ErrNoSocket
	}
	from := netip.AddrPortFrom(address(family, id[4:20]), binary.BigEndian.Uint16(id[0:]))
	to := netip.AddrPortFrom(address(family, id[20:36]), binary.BigEndian.Uint16(id[2:]))
	if from != caller || to != server {
		return 0, ErrNoSocket
	}
	// A socket that no process holds any more has no inode. Many kernels report user 0 (root) as the owner of such a socket,
	// whoever created it, so uid can be wrong.
	if inode == 0 {
		return 0, ErrNoSocket
	}
	return uid, nil
}

// address decodes an address in struct inet_diag_sockid.
func address(family uint8, b []byte) netip.Addr {
	if family == unix.AF_INET {
		return netip.AddrFrom4([4]byte(b))
	}
	return netip.AddrFrom16([16]byte(b)).Unmap()
}

// IsOwnUser reports whether uid, as Lookup returns it, is this process's own user.
//
// If a user namespace lacks some users of the machine, it shows each of them as the overflow user (user_namespaces(7)). If
// this process itself runs as the overflow user in such a namespace, it cannot distinguish its own sockets from the sockets of
// those users. In that case IsOwnUser returns false for the overflow user.
func IsOwnUser(uid uint32) bool {
	return int64(uid) == int64(os.Geteuid()) && !(int64(uid) == overflowUser() && !hasAllUsers())
}

// overflowUser returns the ID of the user that stands for all users who are not in the user namespace.
var overflowUser = sync.OnceValue(func() int64 {
	text, err := os.ReadFile("/proc/sys/kernel/overflowuid")
	if err == nil {
		if uid, err := strconv.ParseInt(strings.TrimSpace(string(text)), 10, 64); err == nil {
			return uid
		}
	}
	return 65534 // the kernel's default
})

// hasAllUsers reports whether this process's user namespace contains every user of the machine.
var hasAllUsers = sync.OnceValue(func() bool {
	text, err := os.ReadFile("/proc/self/uid_map")
	return err == nil && strings.Join(strings.Fields(string(text)), " ") == "0 0 4294967295"
})
