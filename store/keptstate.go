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

// Kept is what the manifest of a kept state has more than that of feedback.json.
type Kept struct {
	Loss    *Loss  `json:"loss,omitempty"`    // nil for an ordinary state
	Damaged string `json:"damaged,omitempty"` // how the state differs from what was written; "" if it does not
	Other   bool   `json:"other,omitempty"`   // whether it was replaced by a state of another table, database or cluster
}

// KeptState is an earlier state of feedback.json beside it.
type KeptState struct {
	Time         time.Time // when the state was written, as its name has it
	Reason       string    // why it was written, or "loss" for the state before a loss
	Rows         int
	Bytes        int64  // length of its JSON
	SHA256       string // of its JSON; "" until it is compressed, for a file that was large
	Path         string // of its data
	DiskBytes    int64  // length of its data on disk
	Loss         *Loss  // the loss before which it was kept; nil for an ordinary state
	Acknowledged bool   // whether the loss is acknowledged or has ended
	Damaged      string // how it differs from what was written; "" if it does not
	Other        bool   // whether it was replaced by a state of another table, database or cluster

	names keptNames
	id    keptID
	inode os.FileInfo
}

// ListKept returns the kept states of the file at path, newest first. It needs no lock. A state that is just being made or
// dropped may be missing.
func ListKept(path string) ([]KeptState, error) {
	states, err := newKeptNames(followLink(path)).states()
	if err != nil {
		return nil, fmt.Errorf("list the kept states of %s: %w", path, volume.WithHint(err))
	}
	return states, nil
}

// KeptAt returns the newest of the states that are from t or earlier. states are in the order of [ListKept].
func KeptAt(states []KeptState, t time.Time) (KeptState, bool) {
	for _, s := range states {
		if !s.Time.After(t) {
			return s, true
		}
	}
	return KeptState{}, false
}

// RestoreCommand returns the command that brings back what the loss after s took: rows that are gone, or else values that changed.
func (s KeptState) RestoreCommand() string {
	conflict := "skip"
	if s.Loss != nil && s.Loss.RowsChanged > 0 && s.Loss.RowsLost == 0 {
		conflict = "overwrite"
	}
	return "capture restore --on-conflict " + conflict + " " + s.Path
}

// Acknowledge records beside the state that its loss was meant or has been dealt with. It needs no lock and may be called while a
// daemon runs. Acknowledging a state twice, or one without a loss, changes nothing.
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

// Drop removes the state for good.
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

// state returns one kept state. It reports false if the state has been dropped meanwhile.
func (n keptNames) state(id keptID) (KeptState, bool) {
	s := KeptState{Time: id.time(), names: n, id: id}
	manifestPath := n.manifest(id)
	var info fs.FileInfo
	var err error
	for tries := 0; ; tries++ { // a state is compressed before its plain file is removed, so one of the two is there
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

// tidy removes what a crash has left of kept states: temporary files, manifests and marks without data, and plain data that have been
// compressed. Only the owner of the lock may call it, and not while it makes a kept state.
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
