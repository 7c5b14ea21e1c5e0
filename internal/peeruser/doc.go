// Package peeruser finds the user of this machine who is at the other end of a TCP connection.
//
// A loopback address shows that a caller is on this machine, but not which user the caller is. TCP has no equivalent of the
// credentials of Unix sockets (SO_PEERCRED). However, both ends of a loopback connection are sockets of the same kernel, which
// knows the owner of each socket. On Linux, [Lookup] asks the kernel for the owner of the caller's socket. On other systems,
// and in sandboxes without netlink, [Check] returns an error.
package peeruser

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
)

// ErrNoSocket means that no process holds a socket for the caller's end of the connection. Either the caller has closed its
// socket, or something between the caller and the server translates addresses (NAT).
var ErrNoSocket = errors.New("the caller holds no socket with this address")

// Check returns nil if [Lookup] works on this system. Otherwise, its error says why Lookup does not work. Check tests Lookup
// with a connection from this process to itself.
func Check() error {
	client, server, err := connectToSelf()
	if err != nil {
		return err
	}
	defer client.Close()
	defer server.Close()
	uid, err := Lookup(addrPort(client.LocalAddr()), addrPort(client.RemoteAddr()))
	if err != nil {
		return err
	}
	if own := os.Geteuid(); int(uid) != own {
		return fmt.Errorf("the system gives user %d for a socket of user %d", uid, own)
	}
	return nil
}

// connectToSelf returns the two ends of a loopback connection.
func connectToSelf() (client, server net.Conn, err error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		if l, err = net.Listen("tcp", "[::1]:0"); err != nil {
			return nil, nil, err
		}
	}
	defer l.Close()
	if client, err = net.Dial("tcp", l.Addr().String()); err != nil {
		return nil, nil, err
	}
	// Another process may connect to the listener first. The loop closes such a connection.
	for {
		if server, err = l.Accept(); err != nil {
			client.Close()
			return nil, nil, err
		}
		if server.RemoteAddr().String() == client.LocalAddr().String() {
			return client, server, nil
		}
		server.Close()
	}
}

func addrPort(a net.Addr) netip.AddrPort { return a.(*net.TCPAddr).AddrPort() }
