package logical

import (
	"sync/atomic"

	"github.com/jackc/pglogrepl"

	"capture/snapshot"
)

// horizons moves the horizon of the rows in memory forward while the stream is followed.
//
// The regular check, and each Barrier, reads an xmin and then a WAL position. Every transaction below that xmin had ended, so
// its commit record is below that position. Once the stream has been applied up to the position, the Table has everything that
// these transactions committed. Only then does the moment become the Table's horizon. A walsender sends only WAL that is
// flushed, so this remains true after a crash of the server.
type horizons struct {
	place    snapshot.Place // place of the horizon with which the stream began; zero if there is none
	proposed atomic.Pointer[snapshot.Horizon]
}

// start sets the horizon with which the stream begins, or nil.
func (p *horizons) start(h *snapshot.Horizon) {
	if h != nil {
		p.place = h.Place
	}
}

// propose proposes h as the next horizon, if it is not nil. It keeps a proposed horizon that the stream has not passed yet: a
// stream that always lags a little would never pass the newest one. It ignores a horizon of another server or database, whose
// WAL position means nothing for this stream.
func (p *horizons) propose(h *snapshot.Horizon) {
	if h != nil && h.Started == p.place.Started && h.DatabaseOID == p.place.DatabaseOID {
		p.proposed.CompareAndSwap(nil, h)
	}
}

// passed returns the proposed horizon once the stream has been applied up to its position, and nil otherwise.
func (p *horizons) passed(applied pglogrepl.LSN) *snapshot.Horizon {
	h := p.proposed.Load()
	if h == nil || applied < h.LSN {
		return nil
	}
	p.proposed.CompareAndSwap(h, nil)
	return h
}
