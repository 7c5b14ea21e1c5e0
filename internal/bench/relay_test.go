package main

import (
	"io"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// relay forwards connections to a server. It counts the bytes that the server sends, and records the time of the first
// connection.
type relay struct {
	target string
	addr   string
	sent   atomic.Int64 // bytes from the server since the last call to open

	mu       sync.Mutex
	listener net.Listener
	first    time.Time // time of the first connection since the last call to open
	conns    []net.Conn
}

// newRelay returns a relay to the server at target. The relay accepts no connection until open is called.
func newRelay(b *testing.B, target string) *relay {
	b.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	defer l.Close()
	r := &relay{target: target, addr: l.Addr().String()}
	b.Cleanup(r.cut)
	return r
}

// open makes the relay accept connections. It resets the number of bytes and the time of the first connection.
func (r *relay) open(b *testing.B) {
	b.Helper()
	l, err := net.Listen("tcp", r.addr)
	if err != nil {
		b.Fatal(err)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.listener, r.first = l, time.Time{}
	r.sent.Store(0)
	go func() {
		for {
			client, err := l.Accept()
			if err != nil {
				return
			}
			go r.serve(client)
		}
	}()
}

// serve forwards the data of one connection until either side ends the connection.
func (r *relay) serve(client net.Conn) {
	defer client.Close()
	server, err := net.Dial("tcp", r.target)
	if err != nil {
		return
	}
	defer server.Close()
	r.mu.Lock()
	if r.first.IsZero() {
		r.first = time.Now()
	}
	r.conns = append(r.conns, client, server)
	r.mu.Unlock()
	go func() {
		_, _ = io.Copy(server, client) // ends with the connection
		server.Close()
	}()
	_, _ = io.Copy(countingWriter{client, &r.sent}, server)
}

// cut ends all connections and accepts no more.
func (r *relay) cut() {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.listener != nil {
		r.listener.Close()
		r.listener = nil
	}
	for _, c := range r.conns {
		c.Close()
	}
	r.conns = nil
}

// since returns the time from the first connection to the given time, in seconds.
func (r *relay) since(at time.Time) float64 {
	r.mu.Lock()
	defer r.mu.Unlock()
	return at.Sub(r.first).Seconds()
}

type countingWriter struct {
	io.Writer
	n *atomic.Int64
}

func (w countingWriter) Write(p []byte) (int, error) {
	n, err := w.Writer.Write(p)
	w.n.Add(int64(n))
	return n, err
}
