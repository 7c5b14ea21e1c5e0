package remote

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"path"
	"time"

	"capture/store/manifest"
)

// latest is the content of latest.json.
type latest struct {
	Format    int       `json:"format"`   // version of the format: 1
	State     string    `json:"state"`    // name of the state's data
	Manifest  string    `json:"manifest"` // name of the state's manifest
	Rows      int       `json:"rows"`
	Bytes     int64     `json:"bytes"` // length of the JSON in bytes
	SHA256    string    `json:"sha256"`
	LSN       string    `json:"lsn,omitempty"`
	Timeline  int       `json:"timeline,omitempty"` // timeline of the LSN; absent if it is not known
	WrittenAt time.Time `json:"written_at"`
}

const (
	latestName  = "latest.json"
	latestBytes = 64 << 10 // maximum length of latest.json

	// moveAttempts limits how often MoveLatest tries to replace latest.json, because a service might refuse each attempt.
	// The pause between two attempts is random: at most movePause after the first attempt, at most twice as long after the
	// second attempt, and so on.
	moveAttempts = 20
	movePause    = 50 * time.Millisecond
)

// MoveLatest makes latest.json name the state s, unless latest.json names a newer state. It reports whether it has replaced
// latest.json. If two captures replace latest.json at the same time, one of them tries again.
func (f *Folder) MoveLatest(ctx context.Context, s State, m manifest.Manifest) (moved bool, err error) {
	next := latest{
		Format: 1, State: path.Base(s.data()), Manifest: path.Base(s.manifest()), Rows: m.Rows, Bytes: m.Bytes, SHA256: m.SHA256,
		LSN: m.LSN, Timeline: m.Timeline, WrittenAt: m.WrittenAt,
	}
	data, err := json.MarshalIndent(next, "", "  ")
	if err != nil {
		return false, err
	}
	data = append(data, '\n')
	for attempt := range moveAttempts {
		if attempt > 0 { // another capture process changed latest.json during the last attempt
			select {
			case <-ctx.Done():
				return false, ctx.Err()
			case <-time.After(rand.N(time.Duration(attempt) * movePause)):
			}
		}
		now, version, err := f.readLatest(ctx)
		c := condition{version: version}
		switch {
		case errors.Is(err, errMissing):
			c = condition{absent: true}
		case err != nil:
			return false, fmt.Errorf("read %s of %s: %w", latestName, f.Location, err)
		case now.isNewer(&m):
			return false, nil
		}
		if !f.limits.Conditional {
			c = condition{}
		}
		_, err = f.put(ctx, f.name+latestName, data, c)
		if errors.Is(err, errChanged) || c.version != "" && errors.Is(err, errMissing) {
			continue
		}
		if err != nil {
			return false, fmt.Errorf("write %s of %s: %w", latestName, f.Location, err)
		}
		return true, nil
	}
	return false, fmt.Errorf("write %s of %s: the service has refused it %d times because of its condition; see whether a policy forbids that objects are replaced",
		latestName, f.Location, moveAttempts)
}

// readLatest returns the content of latest.json and its version. A file that is too large or cannot be parsed counts as empty,
// and so MoveLatest replaces it.
func (f *Folder) readLatest(ctx context.Context) (l latest, version string, err error) {
	data, version, err := f.read(ctx, f.name+latestName, latestBytes)
	if errors.Is(err, errTooLarge) {
		return latest{}, version, nil
	}
	if err == nil && json.Unmarshal(data, &l) != nil {
		l = latest{}
	}
	return l, version, err
}

// isNewer reports whether the state that l names is newer than the state that m describes. Both are of the same cluster.
func (l *latest) isNewer(m *manifest.Manifest) bool {
	named := manifest.Manifest{SystemID: m.SystemID, LSN: l.LSN, Timeline: l.Timeline, WrittenAt: l.WrittenAt}
	return named.IsLaterThan(m)
}
