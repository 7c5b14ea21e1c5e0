package store

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"time"

	"capture/internal/volume"
)

// Kept has the additional facts in the manifest of a kept state.
type Kept struct {
	Loss    *Loss  `json:"loss,omitempty"`    // loss before which the state was kept; nil for an ordinary state
	Damaged string `json:"damaged,omitempty"` // description of how the state differs from what was written; "" if it does not
	Other   bool   `json:"other,omitempty"`   // whether a state of another table, database or cluster replaced it
}

// KeptState is an earlier state of feedback.json, kept in the same folder.
type KeptState struct {
	Time         time.Time // time at which the state was written, as in its file name
	Reason       string    // reason for which it was written, or "loss" for the state before a loss
	Rows         int
	Bytes        int64  // length of its uncompressed JSON in bytes
	SHA256       string // SHA-256 of its JSON; may be "" for a large file until it is compressed
	Path         string // path of its data
	DiskBytes    int64  // length of its data on disk in bytes
	Loss         *Loss  // loss before which it was kept; nil for an ordinary state
	Acknowledged bool   // whether the loss is acknowledged or has ended
	Damaged      string // description of how it differs from what was written; "" if it does not
	Other        bool   // whether a state of another table, database or cluster replaced it

	names keptNames
	id    keptID
	inode os.FileInfo // file that has its data, to find states that share data
}

// ListKept returns the kept states of the file at path, newest first. It needs no lock. A state may be missing if it is just
// being made or dropped.
func ListKept(path string) ([]KeptState, error) {
	states, err := newKeptNames(followLink(path)).states()
	if err != nil {
		return nil, fmt.Errorf("list the kept states of %s: %w", path, volume.WithHint(err))
	}
	return states, nil
}

// KeptAt returns the newest state that is not newer than t. It reports false if there is none. states must be in the order of
// [ListKept].
func KeptAt(states []KeptState, t time.Time) (KeptState, bool) {
	for _, s := range states {
		if !s.Time.After(t) {
			return s, true
		}
	}
	return KeptState{}, false
}

// RestoreCommand returns the command that restores what the loss after s removed: the lost rows, or the old values if only
// values changed.
func (s KeptState) RestoreCommand() string {
	conflict := "skip"
	if s.Loss != nil && s.Loss.RowsChanged > 0 && s.Loss.RowsLost == 0 {
		conflict = "overwrite"
	}
	return "capture restore --on-conflict " + conflict + " " + s.Path
}

// Acknowledge creates a file that marks the loss after the state as intended or dealt with. It needs no lock and may be
// called while a daemon runs. It does nothing if the state has no loss or an acknowledged one.
func (s KeptState) Acknowledge() error {
	if s.Loss == nil || s.Acknowledged {
		return nil
	}
	path := s.names.acknowledged(s.id)
	file, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|syscall.O_NOFOLLOW, 0o640)
	if err == nil {
		err = syncAndClose(file)
	}
	if err == nil {
		err = syncFolder(s.names.folder)
	}
	if err != nil {
		return fmt.Errorf("acknowledge the loss after %s: %w", s.Path, volume.WithHint(err))
	}
	return nil
}

// Drop removes the state permanently.
func (s KeptState) Drop() error {
	err := s.names.remove(s.id)
	if err == nil {
		err = syncFolder(s.names.folder)
	}
	return volume.WithHint(err)
}

// states returns the kept states, newest first.
func (n keptNames) states() ([]KeptState, error) {
	files, err := n.list()
	if err != nil {
		return nil, err
	}
	var states []KeptState
	for id, list := range files {
		if !slices.ContainsFunc(list, keptFile.isData) {
			continue
		}
		if s, ok := n.state(id); ok {
			states = append(states, s)
		}
	}
	slices.SortFunc(states, func(a, b KeptState) int { return b.Time.Compare(a.Time) })
	return states, nil
}

// state returns one kept state. It reports false if the state does not exist any more.
func (n keptNames) state(id keptID) (KeptState, bool) {
	s := KeptState{Time: id.time(), names: n, id: id}
	manifestPath := n.manifest(id)
	var info fs.FileInfo
	var err error
	for tries := 0; ; tries++ { // a second try finds a state that was compressed during the first one
		s.Path = n.compressed(id)
		if info, err = os.Lstat(s.Path); err == nil {
			break
		}
		s.Path = n.plain(id)
		if info, err = os.Lstat(s.Path); err == nil {
			manifestPath = n.plainManifest(id)
			break
		}
		if tries > 0 {
			return KeptState{}, false
		}
	}
	s.DiskBytes, s.inode = info.Size(), info
	m, err := readManifest(manifestPath)
	switch {
	case isMissing(err):
		s.Damaged = "its manifest is missing"
	case err != nil:
		s.Damaged = err.Error()
	default:
		s.Reason, s.Rows, s.Bytes, s.SHA256 = string(m.Reason), m.Rows, m.Bytes, m.SHA256
		if m.Kept != nil {
			s.Loss, s.Damaged, s.Other = m.Kept.Loss, m.Kept.Damaged, m.Kept.Other
		}
	}
	if id.loss {
		s.Reason, s.Acknowledged = "loss", pathExists(n.acknowledged(id))
		if s.Loss == nil {
			s.Loss = &Loss{}
		}
	}
	return s, true
}

// tidy removes what a crash has left of kept states: temporary files, manifests and acknowledgements without data, and plain
// data that have been compressed. Only the owner of the lock may call it, and not while it makes a kept state.
func (n keptNames) tidy() {
	files, err := n.list()
	if err != nil {
		return
	}
	for id, list := range files {
		if !slices.ContainsFunc(list, keptFile.isData) {
			n.remove(id)
		} else if pathExists(n.compressed(id)) && pathExists(n.manifest(id)) {
			n.removePlain(id)
		}
		for _, f := range list {
			if f.tmp != "" {
				os.Remove(filepath.Join(n.folder, "."+n.base+"-"+f.id.String()+"."+f.suffix+f.tmp))
			}
		}
	}
}
