package capture

import (
	"context"
	"errors"
	"io"
	"time"

	"capture/internal/statefile"
	"capture/store/kept"
	"capture/store/manifest"
	"capture/store/remote"
)

// uploadLosses uploads the states before losses that are not off the machine yet, and marks those whose losses are
// acknowledged.
func (u *uploader) uploadLosses(ctx context.Context) error {
	var clusters map[string][]remote.State
	for _, local := range u.kept() {
		if local.Loss == nil {
			continue
		}
		if clusters == nil {
			clusters = map[string][]remote.State{}
		}
		if err := u.uploadLoss(ctx, &local, clusters); err != nil {
			return err
		}
	}
	u.lossesDue = false
	return nil
}

// uploadLoss uploads one state before a loss unless it is there. clusters caches the states that are there.
func (u *uploader) uploadLoss(ctx context.Context, local *kept.State, clusters map[string][]remote.State) error {
	file, err := statefile.Open(ctx, local.Path, nil)
	if err != nil {
		return nil // it was dropped in the meantime, or cannot be read; then the keeper reports it
	}
	defer file.Close()
	if file.Manifest() == nil {
		return nil // without a manifest nobody could find or check it
	}
	m := *file.Manifest()
	f := u.location.Folder(m.SystemID)
	if u.folder != nil && u.systemID == m.SystemID {
		f = u.folder
	} else if _, err := f.Probe(ctx); err != nil {
		return err
	}
	states, ok := clusters[m.SystemID]
	if !ok {
		if states, err = f.States(ctx); err != nil {
			return err
		}
		if len(states) > 0 {
			if err := u.checkOwner(ctx, states, m.Table, m.Database); err != nil {
				return err
			}
		}
		clusters[m.SystemID] = states
	}
	there := findLoss(states, local)
	if there == nil {
		m.Kept = &manifest.Kept{Loss: local.Loss, Damaged: local.Damaged, Other: local.Other}
		start := time.Now()
		state, _, err := f.Upload(ctx, remote.Source{Manifest: m, Time: local.Time, Data: fileData{file}})
		if damaged := (*remote.DamagedError)(nil); errors.As(err, &damaged) {
			u.log.Error("state before a loss is damaged and not copied off the machine", "file", local.Path, "reason", damaged.Error())
			return nil
		}
		if err != nil {
			return err
		}
		u.log.Info("copied the state before a loss off the machine", "state", state.URL, "rows", m.Rows, "bytes_sent", state.Bytes, "ms", millis(time.Since(start)))
		clusters[m.SystemID] = append(states, state)
		there = &state
	}
	if local.Acknowledged && !there.Acknowledged {
		return u.location.Acknowledge(ctx, *there)
	}
	return nil
}

// findLoss returns the copy of a state before a loss, or nil if there is none. The time of the copy may be some seconds later,
// if another state had taken its name.
func findLoss(states []remote.State, local *kept.State) *remote.State {
	for i := range states {
		s := &states[i]
		if d := s.Time.Sub(local.Time.UTC().Truncate(time.Second)); s.Loss && s.Rows == local.Rows && d >= 0 && d <= 10*time.Second {
			return s
		}
	}
	return nil
}

// fileData writes the JSON of an open file.
type fileData struct{ file *statefile.File }

func (d fileData) WriteTo(w io.Writer) (int64, error) {
	return io.CopyBuffer(w, struct{ io.Reader }{d.file}, make([]byte, 256<<10))
}
