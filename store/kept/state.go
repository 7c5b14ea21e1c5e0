package kept

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"time"

	"capture/internal/foreign"
	"capture/internal/volume"
	"capture/store/disk"
	"capture/store/manifest"
)

// State is an earlier state of feedback.json, kept in the same folder.
type State struct {
	Time         time.Time // time at which the state was written, as in its file name
	Reason       string    // reason for which it was written, or "loss" for the state before a loss
	Rows         int
	Bytes        int64          // length of its uncompressed JSON in bytes
	SHA256       string         // SHA-256 of its JSON; may be "" for a large file until it is compressed
	Path         string         // path of its data
	DiskBytes    int64          // length of its data on disk in bytes
	Loss         *manifest.Loss // loss before which it was kept; nil for an ordinary state
	Acknowledged bool           // whether the loss is acknowledged or has ended
	RowsBack     bool           // whether the loss has ended because its rows are back; nobody had to acknowledge the loss
	Damaged      string         // how the state differs from what was written; "" if it does not
	Other        bool           // whether a state of another table, database, cluster or program has replaced this state
	Remote       bool           // whether the state is off the machine; Path is then its URL

	names names
	id    stateID
	inode os.FileInfo // file with the data of the state; two states share data if they have the same file
}

// noManifest is the value of State.Damaged if the state has no manifest. `capture restore` reads such a state.
const noManifest = "its manifest is missing"

// List returns the kept states of the file at path, newest first. It needs no lock. The list
// may lack a state that a daemon is keeping or dropping at the same moment.
func List(path string) ([]State, error) {
	states, err := newNames(disk.FollowLink(path)).states()
	if err != nil {
		return nil, fmt.Errorf("list the kept states of %s: %w", path, volume.WithHint(err))
	}
	return states, nil
}

// At returns the newest state that is not newer than t. It reports false if there is none. states must be in the order of
// [List].
func At(states []State, t time.Time) (State, bool) {
	for _, s := range states {
		if !s.Time.After(t) {
			return s, true
		}
	}
	return State{}, false
}

// HasOpenLoss reports whether s is the state before a loss that has not ended and that nobody has acknowledged.
func (s State) HasOpenLoss() bool { return s.Loss != nil && !s.Acknowledged }

// equalsFile reports whether s is known to equal the file at path.
func (s State) equalsFile(path string) bool {
	if info, err := os.Stat(path); err == nil && s.SharesData(info) {
		return true
	}
	m, err := manifest.Read(path)
	return err == nil && m.SHA256 != "" && m.SHA256 == s.SHA256
}

// RestoreHint returns the command that restores what was lost after s: the lost rows, and the old values if values changed, a
// column was dropped, or rows could not be compared. If s is damaged, RestoreHint refers to the documentation instead, because
// `capture restore` refuses s.
func (s State) RestoreHint() string {
	if s.isRefused() {
		return foreign.ShellPath(s.Path) + ` is damaged, and capture restore refuses it; see "When it refuses" in docs/recovery.md`
	}
	if s.Loss != nil && s.Loss.MayChangeValues() {
		return s.overwriteHint()
	}
	return "capture restore --on-conflict skip " + foreign.ShellPath(s.Path)
}

// overwriteHint returns the command that restores the rows and the values of s.
func (s State) overwriteHint() string {
	return "capture restore --on-conflict overwrite " + foreign.ShellPath(s.Path)
}

// isRefused reports whether `capture restore` refuses s, because s is damaged. A state whose manifest is missing is not
// refused.
func (s State) isRefused() bool { return s.Damaged != "" && s.Damaged != noManifest }

// CompressedPath returns the path of the state's data once they are compressed.
func (s State) CompressedPath() string { return s.names.compressed(s.id) }

// Manifest reads the state's manifest. If there is none, the error is fs.ErrNotExist.
func (s State) Manifest() (manifest.Manifest, error) { return manifest.ReadAt(s.manifestPath()) }

// manifestPath returns the path of the manifest, which depends on whether the state is compressed.
func (s *State) manifestPath() string {
	if s.isPlain() {
		return s.names.plainManifest(s.id)
	}
	return s.names.manifest(s.id)
}

// SharesData reports whether the state's data are the file that info describes.
func (s State) SharesData(info os.FileInfo) bool { return os.SameFile(s.inode, info) }

// Acknowledge creates a file that marks the loss after the state as acknowledged: somebody intended the loss, or has dealt with
// it. It needs no lock and may be called while a daemon runs. It does nothing for an ordinary state, or if the loss is already
// acknowledged.
func (s State) Acknowledge() error { return s.endLoss("") }

// rowsBackMark is the content of the file that marks a loss whose rows are back. The file of an acknowledged loss is empty.
const rowsBackMark = "the rows are back\n"

// endLoss creates the file that marks the loss after the state as over. mark is the content of this file.
func (s State) endLoss(mark string) error {
	if !s.HasOpenLoss() {
		return nil
	}
	path := s.names.acknowledged(s.id)
	file, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|syscall.O_NOFOLLOW, 0o640)
	if err == nil {
		_, _ = file.WriteString(mark) // fails on a full disk, but even an empty file ends the loss
		err = disk.SyncAndClose(file)
	}
	if err == nil {
		err = disk.SyncFolder(s.names.folder)
	}
	if err != nil {
		return fmt.Errorf("mark the loss after %s as over: %w", s.Path, volume.WithHint(err))
	}
	return nil
}

// Drop removes the state permanently.
func (s State) Drop() error {
	err := s.names.removeState(s.id)
	if err == nil {
		err = disk.SyncFolder(s.names.folder)
	}
	return volume.WithHint(err)
}

// states returns the kept states, newest first.
func (n names) states() ([]State, error) {
	files, err := n.list()
	if err != nil {
		return nil, err
	}
	var states []State
	for id, list := range files {
		if !slices.ContainsFunc(list, stateFile.isData) {
			continue
		}
		if s, ok := n.state(id, State.Manifest); ok {
			states = append(states, s)
		}
	}
	slices.SortFunc(states, func(a, b State) int { return b.Time.Compare(a.Time) })
	return states, nil
}

// state returns one kept state. It calls read to get the state's manifest. It reports false if the state does not
// exist any more.
func (n names) state(id stateID, read func(State) (manifest.Manifest, error)) (State, bool) {
	s := State{Time: id.time(), names: n, id: id}
	var info fs.FileInfo
	var err error
	for tries := 0; ; tries++ { // the second try finds a state that was compressed during the first try
		s.Path = n.compressed(id)
		if info, err = os.Lstat(s.Path); err == nil && info.Mode().IsRegular() {
			break
		}
		s.Path = n.plain(id)
		if info, err = os.Lstat(s.Path); err == nil && info.Mode().IsRegular() {
			break
		}
		if tries > 0 {
			return State{}, false
		}
	}
	s.DiskBytes, s.inode = info.Size(), info
	m, err := read(s)
	switch {
	case disk.IsMissing(err):
		s.Damaged = noManifest
	case err != nil:
		s.Damaged = err.Error()
	default:
		s.Reason, s.Rows, s.Bytes, s.SHA256 = string(m.Reason), m.Rows, m.Bytes, m.SHA256
		if m.Kept != nil {
			s.Loss, s.Damaged, s.Other = m.Kept.Loss, m.Kept.Damaged, m.Kept.Other
		}
	}
	if id.loss {
		mark, err := os.Lstat(n.acknowledged(id))
		s.Reason, s.Acknowledged = "loss", err == nil
		s.RowsBack = err == nil && mark.Mode().IsRegular() && mark.Size() == int64(len(rowsBackMark))
		if s.Loss == nil {
			s.Loss = &manifest.Loss{}
		}
	}
	return s, true
}

// tidy removes what a crash has left of kept states: temporary files, manifests and acknowledgements without data, and plain
// data that have been compressed. Only the owner of the lock may call tidy, and not while a kept state is being made.
func (n names) tidy() {
	files, err := n.list()
	if err != nil {
		return
	}
	for id, list := range files {
		if !slices.ContainsFunc(list, stateFile.isData) {
			n.removeState(id)
		} else if disk.Exists(n.compressed(id)) && disk.Exists(n.manifest(id)) {
			n.removePlain(id)
		}
		for _, f := range list {
			if f.tmp != "" {
				os.Remove(filepath.Join(n.folder, "."+n.base+"-"+f.id.String()+"."+f.suffix+f.tmp))
			}
		}
	}
}
