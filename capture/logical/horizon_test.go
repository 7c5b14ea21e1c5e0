package logical

import (
	"testing"

	"github.com/jackc/pglogrepl"

	"capture/snapshot"
)

// TestHorizonWaitsForStream checks that a proposed horizon is used once the stream has passed its LSN, and not earlier. Newer
// proposals do not delay its use. A proposal is ignored if it comes from a restarted server or another database, or if it
// shows no newer transactions than an earlier proposal.
func TestHorizonWaitsForStream(t *testing.T) {
	place := snapshot.Place{SystemID: "1", Timeline: 1, Started: 5, DatabaseOID: 7, TableOID: 8, Files: "f", Fingerprint: "g"}
	at := func(xid uint64, lsn pglogrepl.LSN, place snapshot.Place) *snapshot.Horizon {
		return &snapshot.Horizon{XID: xid, LSN: lsn, Place: place}
	}
	var p horizons
	p.propose(at(9, 90, place)) // ignored: the place of the stream is not known
	if h := p.passed(100); h != nil {
		t.Errorf("%+v, although the place of the stream is not known", h)
	}
	p.start(at(10, 100, place))
	restarted, another := place, place
	restarted.Started++
	another.DatabaseOID++
	p.propose(at(11, 110, restarted))
	p.propose(at(11, 110, another))
	p.propose(nil)
	if h := p.passed(1000); h != nil {
		t.Errorf("%+v, which is another place", h)
	}
	p.propose(at(10, 100, place)) // ignored: not newer than the horizon with which the stream began
	if lsn := p.awaited(); lsn != 0 {
		t.Errorf("awaits %s, although nothing is proposed", lsn)
	}
	p.propose(at(12, 120, place))
	p.propose(at(13, 200, place))
	p.propose(at(14, 210, place)) // replaces the proposal whose XID is 13
	p.propose(at(14, 220, place)) // ignored: a later position, but no newer transactions
	if h := p.passed(119); h != nil {
		t.Errorf("%+v before the stream has passed it", h)
	}
	if lsn := p.awaited(); lsn != 210 {
		t.Errorf("awaits %s, want 0/D2", lsn)
	}
	if h := p.passed(209); h == nil || h.XID != 12 {
		t.Errorf("%+v, want 12", h)
	}
	if h := p.passed(210); h == nil || h.XID != 14 {
		t.Errorf("%+v, want 14", h)
	}
	if h := p.passed(1000); h != nil || p.awaited() != 0 {
		t.Errorf("%+v a second time", h)
	}
	p.propose(at(15, 230, place))
	p.propose(at(16, 240, place))
	if h := p.passed(300); h == nil || h.XID != 16 || p.awaited() != 0 {
		t.Errorf("%+v, want 16", h)
	}
}
