package logical

import (
	"sync"

	"github.com/jackc/pglogrepl"

	"capture/snapshot"
)

// horizons moves the horizon of the rows in memory forward while capture follows the stream.
//
// capture reads an xmin and then a WAL position at each regular check, at each Barrier and when it stops. Every transaction
// below this xmin had already ended, so its commit record is below this WAL position. When the stream has been applied up to
// the position, the Table contains the changes of all these transactions. The xmin and the position then become the Table's
// horizon. A walsender sends only WAL that is flushed, so the horizon remains valid after a crash of the server.
type horizons struct {
	place snapshot.Place // server and table of the horizon with which the stream began; zero if the stream began without a horizon

	mu   sync.Mutex
	last snapshot.Horizon // last horizon that the Table got; zero if the Table got none

	// These two proposed horizons have not been passed by the stream yet. A newer proposal replaces only the second of them. If
	// it also replaced the first, a stream that always lags a little would never pass a proposed horizon.
	first, second *snapshot.Horizon
}

// start records the horizon with which the stream begins. h is nil if the stream begins without a horizon.
func (p *horizons) start(h *snapshot.Horizon) {
	if h != nil {
		p.place, p.last = h.Place, *h
	}
}

// propose proposes h as the next horizon, if h is not nil and newer than the last horizon and all proposed horizons. It ignores
// a horizon of another server or database, because the WAL position of such a horizon means nothing for this stream.
func (p *horizons) propose(h *snapshot.Horizon) {
	p.mu.Lock()
	defer p.mu.Unlock()
	switch {
	case h == nil || h.Started != p.place.Started || h.DatabaseOID != p.place.DatabaseOID:
	case p.first == nil:
		if h.XID > p.last.XID || h.LSN > p.last.LSN {
			p.first = h
		}
	case h.XID > p.first.XID && (p.second == nil || h.XID > p.second.XID):
		p.second = h
	}
}

// passed returns the newest proposed horizon whose position is not after the applied position, or nil if there is none.
func (p *horizons) passed(applied pglogrepl.LSN) (h *snapshot.Horizon) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for p.first != nil && applied >= p.first.LSN {
		h, p.first, p.second = p.first, p.second, nil
		p.last = *h
	}
	return h
}

// awaited returns the position of the newest proposed horizon, or 0 if the stream has passed all of them.
func (p *horizons) awaited() pglogrepl.LSN {
	p.mu.Lock()
	defer p.mu.Unlock()
	switch {
	case p.second != nil:
		return p.second.LSN
	case p.first != nil:
		return p.first.LSN
	}
	return 0
}
