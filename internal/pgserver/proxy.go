package pgserver

import (
	"context"
	"fmt"
	"io"
	"net"
	"strconv"
	"sync"
	"time"
)

// Proxy is a TCP proxy in front of a server, for what networks do to connections. Its port is free to be refused: no
// outgoing connection of the machine takes it meanwhile.
type Proxy struct {
	addr string
	ctx  context.Context // ends with Close
	stop context.CancelFunc
	wg   sync.WaitGroup // of all goroutines

	mu       sync.Mutex
	target   string
	listener net.Listener // nil while refusing
	links    map[*link]struct{}
	open     chan struct{} // closed unless stalled
	rate     int           // bytes a second and direction, 0 for no limit
	latency  time.Duration // one way
}

// NewProxy starts a proxy to the target (host:port) on a free port of the loopback interface.
func NewProxy(target string) (*Proxy, error) {
	port, err := freePort()
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

// Addr is the proxy's host and port.
func (p *Proxy) Addr() string { return p.addr }

// URL is where a client finds a database of the server behind the proxy, as the superuser postgres.
func (p *Proxy) URL(database string) string { return connectURL(p.addr, database) }

// Target sends new connections to another server, as a failover does.
func (p *Proxy) Target(addr string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.target = addr
}

// Cut resets all connections, on both sides. New ones are welcome.
func (p *Proxy) Cut() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for l := range p.links {
		l.reset()
	}
}

// Refuse has new connections refused. Those that exist go on.
func (p *Proxy) Refuse() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.listener != nil {
		p.listener.Close()
		p.listener = nil
	}
}

// Accept ends Refuse.
func (p *Proxy) Accept() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.listener != nil || p.ctx.Err() != nil {
		return nil
	}
	l, err := net.Listen("tcp", p.addr)
	if err != nil {
		return err
	}
	p.listener = l
	p.wg.Go(func() { p.serve(l) })
	return nil
}

// Stall makes a black hole of the proxy: connections stay and new ones are taken, but nothing comes through in either
// direction, no byte and no end, but for what was on its way. Unlike in a real one, TCP's own keepalives are answered:
// only who watches for data notices.
func (p *Proxy) Stall() {
	p.mu.Lock()
	defer p.mu.Unlock()
	select {
	case <-p.open:
		p.open = make(chan struct{})
	default:
	}
}

// Unstall ends Stall; what was held back comes through.
func (p *Proxy) Unstall() {
	p.mu.Lock()
	defer p.mu.Unlock()
	select {
	case <-p.open:
	default:
		close(p.open)
	}
}

// Throttle limits each direction of each connection to bytes a second (0 for no limit) and delays it by latency.
func (p *Proxy) Throttle(bytesPerSecond int, latency time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.rate, p.latency = bytesPerSecond, latency
}

// Links is the number of connections that are open.
func (p *Proxy) Links() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.links)
}

// Close ends the proxy and its connections, and waits for all of it.
func (p *Proxy) Close() {
	p.stop()
	p.Refuse()
	p.Cut()
	p.wg.Wait()
}

func (p *Proxy) serve(l net.Listener) {
	for {
		client, err := l.Accept()
		if err != nil {
			return // Refuse closed it
		}
		p.wg.Go(func() { p.carry(client.(*net.TCPConn)) })
	}
}

// pace says how what comes now is to be passed on.
func (p *Proxy) pace() (open <-chan struct{}, rate int, latency time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.open, p.rate, p.latency
}

// link is one connection through the proxy.
type link struct {
	ctx    context.Context
	cancel context.CancelFunc
	mu     sync.Mutex
	ends   []*net.TCPConn
}

// carry serves one client until both directions have ended or the link is reset.
func (p *Proxy) carry(client *net.TCPConn) {
	l := &link{ends: []*net.TCPConn{client}}
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

	open, _, _ := p.pace()
	if !l.until(open) {
		return
	}
	conn, err := new(net.Dialer).DialContext(l.ctx, "tcp", target)
	if err != nil {
		return
	}
	server := conn.(*net.TCPConn)
	if !l.add(server) {
		return
	}
	var wg sync.WaitGroup
	wg.Go(func() { p.pump(l, client, server) })
	wg.Go(func() { p.pump(l, server, client) })
	wg.Wait()
	l.finish()
}

// chunk is what was read at once, or at last the end of the stream.
type chunk struct {
	data []byte
	due  time.Time
	end  error
}

// pump moves one direction. Between its reader and its writer lies what is on its way: a bounded amount, as on a network,
// so that who sends feels that the other side reads slowly. The system's own buffers would take megabytes.
func (p *Proxy) pump(l *link, from, to *net.TCPConn) {
	_ = from.SetReadBuffer(64 << 10)
	wire := make(chan chunk, 16)
	var wg sync.WaitGroup
	wg.Go(func() {
		defer close(wire)
		for {
			buf := make([]byte, 16<<10)
			n, err := from.Read(buf)
			_, _, latency := p.pace()
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
		if !l.sleep(time.Until(c.due)) || !p.deliver(l, to, c) {
			l.reset()
			break
		}
	}
	wg.Wait()
}

// deliver writes a chunk, in portions where the rate is limited, and says whether the link is still good.
func (p *Proxy) deliver(l *link, to *net.TCPConn, c chunk) bool {
	for data := c.data; len(data) > 0; {
		open, rate, _ := p.pace()
		if !l.until(open) {
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
	open, _, _ := p.pace()
	return l.until(open) && c.end == io.EOF && to.CloseWrite() == nil
}

// add takes the second end of a link, unless it was reset meanwhile.
func (l *link) add(conn *net.TCPConn) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.ends = append(l.ends, conn)
	return l.ctx.Err() == nil
}

// reset ends a link at once: both sides see a reset connection. After finish it does nothing.
func (l *link) reset() {
	l.cancel()
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, end := range l.ends {
		_ = end.SetLinger(0)
		_ = end.Close()
	}
	l.ends = nil
}

// finish closes both ends of a link whose directions have both ended, in the orderly way.
func (l *link) finish() {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, end := range l.ends {
		_ = end.Close()
	}
	l.ends = nil
}

// until waits for a channel to be closed and says whether the link still stands.
func (l *link) until(open <-chan struct{}) bool {
	select {
	case <-open:
		return l.ctx.Err() == nil
	case <-l.ctx.Done():
		return false
	}
}

// sleep waits and says whether the link still stands.
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
