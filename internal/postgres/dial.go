package postgres

import (
	"context"
	"net"
	"strings"
	"time"
)

// On an idle connection, a dead peer is detected after keepAliveIdle and keepAliveCount probes. While sent data is
// unacknowledged, a dead peer is detected after tcpUserTimeout.
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
