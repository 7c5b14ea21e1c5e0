package capture

import (
	"context"
	"errors"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/jackc/pglogrepl"

	"capture/snapshot"
	"capture/snapshot/rowjson"
	"capture/store"
	"capture/store/manifest"
)

// storedRows loads the file of an earlier run into the Table at the first connection to the database. The source then reads
// only what has changed since the state in the file. Only one source runs at a time, so load is never called concurrently.
type storedRows struct {
	file *store.File
	log  hclog.Logger
	done bool   // whether the file has been read or does not exist
	why  string // last logged reason why the rows were not used
}

// loader returns the function that a source of this kind gets as [source.Env.LoadRows]. If the source cannot bring the state
// in the file up to date, the function logs the reason and leaves the Table empty.
func (s *storedRows) loader(kind string, maxRow int64) func(context.Context, *snapshot.Table, *rowjson.Shape, *snapshot.Place) {
	return func(ctx context.Context, t *snapshot.Table, shape *rowjson.Shape, place *snapshot.Place) {
		s.load(ctx, t, shape, place, kind, maxRow)
	}
}

func (s *storedRows) load(ctx context.Context, t *snapshot.Table, shape *rowjson.Shape, place *snapshot.Place, kind string, maxRow int64) {
	if s.done || t.View() != nil {
		return
	}
	m, found := s.file.Existing()
	if !found {
		s.done = true
		return
	}
	start := time.Now()
	l, why := newLoading(&m, shape, place, kind)
	if why == "" {
		s.done, l.MaxRow = true, maxRow
		if err := s.file.Load(ctx, t, l); err != nil {
			why = err.Error()
		}
	}
	switch {
	case ctx.Err() != nil:
	case why == "":
		t.SetHorizon(&m.Horizon.Horizon)
		s.log.Info("loaded the rows of the file", "rows", m.Rows, "bytes", m.Bytes, "lsn", m.LSN, "ms", millis(time.Since(start)))
	case why != s.why:
		s.why = why
		s.log.Info("rows of the file not used", "reason", why)
	}
}

// newLoading returns what the file must contain to be loaded, or the reason why the source cannot bring the file's rows up
// to date.
func newLoading(m *manifest.Manifest, shape *rowjson.Shape, place *snapshot.Place, kind string) (_ store.Loading, why string) {
	if m.Horizon == nil {
		return store.Loading{}, "its manifest does not say how old the rows are"
	}
	if m.Horizon.RowFormat != rowjson.FormatVersion {
		return store.Loading{}, "another version of capture wrote the rows in another form"
	}
	if m.Source != kind {
		return store.Loading{}, "the rows come from the source " + m.Source
	}
	if difference := m.Horizon.Difference(place); difference != "" {
		return store.Loading{}, difference
	}
	position, err := positionOf(m)
	if err != nil {
		return store.Loading{}, err.Error()
	}
	return store.Loading{
		Manifest: *m, Shape: shape, Position: position,
		Origin: snapshot.Origin{Source: m.Source, Database: m.Database, SystemID: m.SystemID, Timeline: m.Timeline, ServerVersion: m.ServerVersion},
	}, ""
}

// positionOf returns the WAL position of the state in the file. It returns an error if this position is below the position of
// the horizon, because a horizon is valid only for states at or after its position. Only the source logical requires a
// position.
func positionOf(m *manifest.Manifest) (snapshot.Position, error) {
	p := snapshot.Position{CommitTime: m.CommitTime}
	if m.LSN == "" {
		if m.Source == "logical" {
			return p, errors.New("its manifest has no position in the WAL")
		}
		return p, nil
	}
	var err error
	if p.LSN, err = pglogrepl.ParseLSN(m.LSN); err != nil || p.LSN < m.Horizon.LSN {
		return p, errors.New("its manifest has a wrong position in the WAL")
	}
	return p, nil
}

// dropHorizon removes the horizon from the manifest, because the rows of v may be wrong. Without a horizon, a later run
// copies the whole table instead of reading only what has changed.
func (s *storedRows) dropHorizon(v *snapshot.View) {
	if err := s.file.DropHorizon(v); err != nil {
		s.log.Warn("the file's rows are in doubt, and its manifest could not be changed to say so", "error", err)
	}
}
