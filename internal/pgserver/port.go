package pgserver

import (
	"fmt"
	"net"
	"os"
	"strconv"
	"sync"
	"sync/atomic"
)

// Ports of servers and proxies. They are below the range from which the system takes ports for outgoing connections. So no
// outgoing connection can take the port of a server that is stopped for a moment. Also, a client that dials such a port
// never gets this port for its own end, so it cannot connect to itself.
const (
	firstPort     = 15000
	portsPerShare = 170
	portShares    = 100
)

// takeShare takes a share of the ports that no other process has taken, and returns a listener on the share's first port.
// The listener keeps the share until the process ends. Without shares, two processes could take the same port before one of
// them listens. A process could also take the port of a server that another process has stopped for a moment.
var takeShare = sync.OnceValues(func() (net.Listener, error) {
	var err error
	for i := range portShares {
		var l net.Listener
		if l, err = listen(firstPort + (os.Getpid()+i)%portShares*portsPerShare); err == nil {
			return l, nil
		}
	}
	return nil, err
})

// portsTried is the number of ports that FreePort has tried.
var portsTried atomic.Uint32

// FreePort returns a port that nobody listens on. It tries the ports of the process's share in turn, so that it seldom returns
// the port of a server that another test has stopped for a moment.
func FreePort() (int, error) {
	share, err := takeShare()
	if err != nil {
		return 0, fmt.Errorf("find a free port: %w", err)
	}
	first := share.Addr().(*net.TCPAddr).Port
	for range portsPerShare - 1 {
		port := first + 1 + int(portsTried.Add(1)%(portsPerShare-1))
		var l net.Listener
		if l, err = listen(port); err == nil {
			return port, l.Close()
		}
	}
	return 0, fmt.Errorf("find a free port: %w", err)
}

func listen(port int) (net.Listener, error) {
	return net.Listen("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(port)))
}
