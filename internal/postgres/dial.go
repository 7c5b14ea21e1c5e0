package postgres

import (
	"context"
	"net"
	"strings"
	"time"
)

// These limits determine when a connection to a dead server fails. An idle connection fails after keepAliveIdle plus
// keepAliveCount probes, which are keepAliveInterval apart. A connection with unacknowledged data fails after
// tcpUserTimeout.
const (
	keepAliveIdle     = 15 * time.Second
	keepAliveInterval = 5 * time.Second
	keepAliveCount    = 3
	tcpUserTimeout    = 20 * time.Second
)

func dialServer(ctx context.Context, network, address string) (net.Conn, error) {
	d := net.Dialer{KeepAliveConfig: net.KeepAliveConfig{
		Enable: true, Idle: keepAliveIdle, Interval: keepAliveInterval, Count: keepAliveCount,
	}}
	if strings.HasPrefix(network, "tcp") {
		d.Control = setUserTimeout
	}
	return d.DialContext(ctx, network, address)
}
