// Package faultproxy provides a TCP proxy that imitates the faults of networks: it cuts, refuses, stalls, slows and
// redirects connections. Tests put it between capture and a Postgres server.
package faultproxy

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"
	"sync"
	"syscall"
	"time"

	"capture/internal/pgserver"
)

// Proxy is a TCP proxy in front of a server.
type Proxy struct {
	addr string
	ctx  context.Context // canceled by Close
	stop context.CancelFunc
	wg   sync.WaitGroup // all goroutines of the proxy

	mu       sync.Mutex
	target   string
	listener net.Listener // nil while the proxy refuses connections
	links    map[*link]struct{}
	open     chan struct{} // an open channel while the proxy is stalled, otherwise a closed one
	rate     int           // bytes per second in each direction; 0 means no limit
	latency  time.Duration // delay of the data in each direction
}

// New starts a proxy to target (host:port) on a free port of the loopback interface.
func New(target string) (*Proxy, error) {
	// While the proxy refuses connections, nobody listens on its port. Use FreePort, because the system never gives a port of
	// FreePort to an outgoing connection.
	port, err := pgserver.FreePort()
	if err != nil {
		return nil, fmt.Errorf("start a proxy: %w", err)
	}
	p := &Proxy{
		addr:   net.JoinHostPort("127.0.0.1", strconv.Itoa(port)),
		target: target,
		links:  make(map[*link]struct{}),
		open:   make(chan struct{}),
	}
	close(p.open)
	p.ctx, p.stop = context.WithCancel(context.Background())
	if err := p.Accept(); err != nil {
		return nil, fmt.Errorf("start a proxy: %w", err)
	}
	return p, nil
}

// Addr returns the proxy's host and port.
func (p *Proxy) Addr() string { return p.addr }

// URL returns the URL of a database of the server behind the proxy, for the superuser postgres.
func (p *Proxy) URL(database string) string { return pgserver.URL(p.addr, database) }

// Target sends new connections to another server, as a failover does.
func (p *Proxy) Target(addr string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.target = addr
}

// Cut resets all connections on both sides. New connections work.
func (p *Proxy) Cut() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for l := range p.links {
		l.reset()
	}
}

// Refuse makes the proxy refuse new connections. Existing connections continue.
func (p *Proxy) Refuse() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.listener != nil {
		p.listener.Close()
		p.listener = nil
	}
}

// Accept makes the proxy accept connections again after Refuse.
func (p *Proxy) Accept() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.listener != nil || p.ctx.Err() != nil {
		return nil
	}
	l, err := net.Listen("tcp", p.addr)
	// FreePort or Refuse has closed a listener on this address. If Go was forking a process at that moment, the new process
	// has a copy of the listener until it executes its program. Until then, the address is in use.
	for tries := 0; errors.Is(err, syscall.EADDRINUSE) && tries < 500; tries++ {
		time.Sleep(20 * time.Millisecond)
		l, err = net.Listen("tcp", p.addr)
	}
	if err != nil {
		return err
	}
	p.listener = l
	p.wg.Go(func() { p.acceptLoop(l) })
	return nil
}

// Stall makes the proxy a black hole: it keeps connections open and accepts new ones, but forwards neither data nor the end
// of a stream. Data that it has already sent still arrives. Unlike a real black hole, the proxy answers TCP keepalives, so
// only a peer that expects data notices the stall.
func (p *Proxy) Stall() {
	p.mu.Lock()
	defer p.mu.Unlock()
	select {
	case <-p.open:
		p.open = make(chan struct{})
	default:
	}
}

// Unstall ends the effect of Stall and forwards the data that was held back.
func (p *Proxy) Unstall() {
	p.mu.Lock()
	defer p.mu.Unlock()
	select {
	case <-p.open:
	default:
		close(p.open)
	}
}

// Throttle limits each direction of each connection to a rate in bytes per second (0 means no limit), and delays the data by
// the given latency.
func (p *Proxy) Throttle(bytesPerSecond int, latency time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.rate, p.latency = bytesPerSecond, latency
}

// Links returns the number of open connections.
func (p *Proxy) Links() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.links)
}

// Close closes the proxy and its connections, and waits for its goroutines.
func (p *Proxy) Close() {
	p.stop()
	p.Refuse()
	p.Cut()
	p.wg.Wait()
}

func (p *Proxy) acceptLoop(l net.Listener) {
	for {
		client, err := l.Accept()
		if err != nil {
			return // Refuse has closed the listener
		}
		p.wg.Go(func() { p.serveClient(client.(*net.TCPConn)) })
	}
}

// conditions returns the current values of the fields open, rate and latency.
func (p *Proxy) conditions() (open <-chan struct{}, rate int, latency time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.open, p.rate, p.latency
}

// link is one connection through the proxy.
type link struct {
	ctx    context.Context
	cancel context.CancelFunc
	mu     sync.Mutex
	conns  []*net.TCPConn
}

// serveClient serves one client until both directions have ended or the link is reset.
func (p *Proxy) serveClient(client *net.TCPConn) {
	l := &link{conns: []*net.TCPConn{client}}
	l.ctx, l.cancel = context.WithCancel(p.ctx)
	defer l.reset()
	p.mu.Lock()
	p.links[l] = struct{}{}
	target := p.target
	p.mu.Unlock()
	defer func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		delete(p.links, l)
	}()

	open, _, _ := p.conditions()
	if !l.waitOpen(open) {
		return
	}
	conn, err := new(net.Dialer).DialContext(l.ctx, "tcp", target)
	if err != nil {
		return
	}
	server := conn.(*net.TCPConn)
	if !l.addConn(server) {
		return
	}
	var wg sync.WaitGroup
	wg.Go(func() { p.copyDirection(l, client, server) })
	wg.Go(func() { p.copyDirection(l, server, client) })
	wg.Wait()
	l.closeConns()
}

// chunk is the result of one read.
type chunk struct {
	data []byte
	due  time.Time // earliest time to forward the data
	end  error     // error of the read, such as io.EOF; nil while the stream continues
}

// copyDirection copies one direction of a link. As a network does, it limits the data in transit, so that a sender notices a
// slow reader. Without this limit, the system's buffers would hold megabytes.
func (p *Proxy) copyDirection(l *link, from, to *net.TCPConn) {
	_ = from.SetReadBuffer(64 << 10)
	wire := make(chan chunk, 16)
	var wg sync.WaitGroup
	wg.Go(func() {
		defer close(wire)
		for {
			buf := make([]byte, 16<<10)
			n, err := from.Read(buf)
			_, _, latency := p.conditions()
			select {
			case wire <- chunk{data: buf[:n], due: time.Now().Add(latency), end: err}:
			case <-l.ctx.Done():
				return
			}
			if err != nil {
				return
			}
		}
	})
	for c := range wire {
		if !l.sleep(time.Until(c.due)) || !p.writeChunk(l, to, c) {
			l.reset()
			break
		}
	}
	wg.Wait()
}

// writeChunk writes a chunk, in portions if the rate is limited. If the stream ends with the chunk, writeChunk also ends the
// stream on the other side. It reports whether the link still works.
func (p *Proxy) writeChunk(l *link, to *net.TCPConn, c chunk) bool {
	for data := c.data; len(data) > 0; {
		open, rate, _ := p.conditions()
		if !l.waitOpen(open) {
			return false
		}
		portion := data
		if rate > 0 {
			portion = data[:min(len(data), max(rate/20, 1))]
		}
		if _, err := to.Write(portion); err != nil {
			return false
		}
		if rate > 0 && !l.sleep(time.Duration(len(portion))*time.Second/time.Duration(rate)) {
			return false
		}
		data = data[len(portion):]
	}
	if c.end == nil {
		return true
	}
	open, _, _ := p.conditions()
	return l.waitOpen(open) && c.end == io.EOF && to.CloseWrite() == nil
}

// addConn adds conn, which leads to the server, to the link. It reports whether the link still works.
func (l *link) addConn(conn *net.TCPConn) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.conns = append(l.conns, conn)
	return l.ctx.Err() == nil
}

// reset aborts a link, so both sides see a connection reset. If closeConns has already closed the connections, reset does
// not affect them.
func (l *link) reset() {
	l.cancel()
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, conn := range l.conns {
		_ = conn.SetLinger(0)
		_ = conn.Close()
	}
	l.conns = nil
}

// closeConns closes both connections of a link without a reset, after both directions have ended.
func (l *link) closeConns() {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, conn := range l.conns {
		_ = conn.Close()
	}
	l.conns = nil
}

// waitOpen waits while the proxy is stalled. It returns when the given channel is closed or the link ends, and reports
// whether the link still works.
func (l *link) waitOpen(open <-chan struct{}) bool {
	select {
	case <-open:
		return l.ctx.Err() == nil
	case <-l.ctx.Done():
		return false
	}
}

// sleep waits for d, or until the link ends. It reports whether the link still works.
func (l *link) sleep(d time.Duration) bool {
	if d <= 0 {
		return l.ctx.Err() == nil
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-l.ctx.Done():
		return false
	}
}
