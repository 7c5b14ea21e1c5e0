package store

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"slices"
	"sync"
	"syscall"
	"time"

	"capture/internal/volume"
	"capture/store/retention"
)

// A state is kept in two steps. The first one precedes the replacement of the file and takes milliseconds: the current file
// gets a second name, and its manifest is written. The second one, [File.CompressKept], follows later and may run during
// Writes. A crash after an action leaves:
//
//	manifest written                a manifest without data, which Open removes
//	second name, folder synced      a complete, uncompressed (plain) state, which is compressed after the next start
//	compressed, manifest renamed    the plain state, and a manifest that the next attempt replaces
//	compressed data renamed         the state both plain and compressed; Open removes the plain files
//
// A file with two names is never patched (see canReplace), so the kept state stays as it is.

// keptStates manages the kept states of a File. Its methods may be called during a Write.
type keptStates struct {
	names    keptNames
	dataPath string // path of the file, whose mode and owner new files get

	mu     sync.Mutex
	ids    map[keptID]bool // existing states; other processes may drop states, but only the owner of the lock adds any
	policy retention.Policy
	clock  *retention.Clock
	start  time.Time // start of the monotonic time that is passed to clock
}

// open initializes k and reads which states exist. written is the time at which the existing file was written, or zero.
func (k *keptStates) open(dataPath, tmpWord string, written time.Time) {
	k.names, k.dataPath = newKeptNames(dataPath), dataPath
	k.names.tmpWord = tmpWord
	k.policy, k.start = retention.Default, time.Now()
	k.reload()
	k.clock = retention.NewClock(k.start, written, 0)
}

// reload removes what a crash has left of kept states, and reads again which states exist.
func (k *keptStates) reload() {
	k.names.tidy()
	ids := map[keptID]bool{}
	if files, err := k.names.list(); err == nil {
		for id := range files {
			ids[id] = true
		}
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	k.ids = ids
}

// list returns the states, newest first. It does not read the folder, which may have very many files of other programs.
func (k *keptStates) list() []KeptState {
	k.mu.Lock()
	ids := slices.Collect(maps.Keys(k.ids))
	k.mu.Unlock()
	var states []KeptState
	for _, id := range ids {
		if s, ok := k.names.state(id); ok {
			states = append(states, s)
		} else {
			k.set(id, false)
		}
	}
	slices.SortFunc(states, func(a, b KeptState) int { return b.Time.Compare(a.Time) })
	return states
}

func (k *keptStates) set(id keptID, there bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if there {
		k.ids[id] = true
	} else {
		delete(k.ids, id)
	}
}

// SetRetention sets the policy that [File.PruneKept] applies. Until then it is [retention.Default].
func (f *File) SetRetention(p retention.Policy) {
	f.kept.mu.Lock()
	defer f.kept.mu.Unlock()
	f.kept.policy = p
}

// isOff reports whether the policy keeps no ordinary states.
func (k *keptStates) isOff() bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.policy.IsOff()
}

// Kept returns the kept states, newest first.
func (f *File) Kept() []KeptState { return f.kept.list() }

// KeepCurrent keeps the file of the last Write as an ordinary state, unless the policy keeps none or the newest kept state is
// equal. The state stays plain until [File.CompressKept] compresses it.
func (f *File) KeepCurrent() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	switch {
	case f.kept.isOff():
		return nil
	case f.closed:
		return os.ErrClosed
	case f.last.file == nil:
		return errors.New("keep a state: the last flush failed; there is nothing new to keep")
	case !f.last.isOnDisk(f.dataPath):
		return fmt.Errorf("keep a state: %s is not what was written; another program changed it", f.dataPath)
	}
	_, err := f.kept.keep(&keepReason{manifest: f.last.manifest})
	return err
}

// keep gives the current file a second name as a kept state, and writes the state's manifest. It does nothing if an earlier
// attempt to replace the file has already kept the state, or if the state is ordinary and equals the newest one. If the state
// before a loss has been kept as an ordinary state, keep renames it. If an older state is equal, the new state shares its data.
func (k *keptStates) keep(r *keepReason) (KeptState, error) {
	s, err := k.tryKeep(r)
	if err != nil {
		return KeptState{}, fmt.Errorf("keep the state before: %w", volume.WithHint(err))
	}
	return s, nil
}

func (k *keptStates) tryKeep(r *keepReason) (KeptState, error) {
	info, err := os.Lstat(k.dataPath)
	if err != nil {
		return KeptState{}, err
	}
	m := r.manifest
	m.Kept = &Kept{Loss: r.loss, Damaged: r.damaged, Other: r.other}
	isLoss := r.loss != nil
	var equal *KeptState // an equal older state, whose data the new one shares
	for i, s := range k.list() {
		isSame := os.SameFile(info, s.inode)
		if !isSame && !isEqualState(&s, &m) {
			continue
		}
		isLast := isSame || i == 0
		switch {
		case isLoss && s.Loss == nil && isLast:
			return k.promote(s, m)
		case isLoss && s.Loss != nil && !s.Acknowledged, !isLoss && isLast:
			return s, nil
		case equal == nil && !s.isPlain():
			equal = &s
		}
	}
	id := k.names.free(m.WrittenAt, isLoss)
	if equal != nil {
		return k.add(id, m, equal.Path, k.names.compressed(id), k.names.manifest(id))
	}
	return k.add(id, m, k.dataPath, k.names.plain(id), k.names.plainManifest(id))
}

// add makes a kept state with the data of the file at from and the manifest m.
func (k *keptStates) add(id keptID, m Manifest, from, path, manifestPath string) (KeptState, error) {
	if err := k.writeManifest(manifestPath, m); err != nil {
		return KeptState{}, err
	}
	if err := k.linkOrCopy(from, path); err != nil {
		os.Remove(manifestPath)
		return KeptState{}, err
	}
	if id.loss { // such a state must be durable before the file is replaced
		if err := syncFolder(k.names.folder); err != nil {
			return KeptState{}, err
		}
	}
	return k.added(id)
}

// isEqualState reports whether s is known to equal the state that m describes.
func isEqualState(s *KeptState, m *Manifest) bool {
	return s.SHA256 != "" && s.SHA256 == m.SHA256 && s.Damaged == "" && m.Kept.Damaged == ""
}

// promote turns an ordinary state into the state before a loss, and renames its files accordingly.
func (k *keptStates) promote(s KeptState, m Manifest) (KeptState, error) {
	id := keptID{s.id.stamp, true}
	path := k.names.compressed(id)
	if s.isPlain() {
		path = k.names.plain(id)
	}
	promoted, err := k.add(id, m, s.Path, path, k.names.manifest(id))
	if err == nil {
		err = k.drop(s.id)
	}
	return promoted, err
}

// added records that the state exists now, and returns it.
func (k *keptStates) added(id keptID) (KeptState, error) {
	k.set(id, true)
	s, ok := k.names.state(id)
	if !ok {
		return KeptState{}, fs.ErrNotExist
	}
	return s, nil
}

// drop removes the state and syncs the folder.
func (k *keptStates) drop(id keptID) error {
	err := k.names.remove(id)
	if err == nil {
		k.set(id, false)
		err = syncFolder(k.names.folder)
	}
	return err
}

// writeManifest writes a manifest to path and syncs it. The caller syncs the folder.
func (k *keptStates) writeManifest(path string, m Manifest) error {
	data, err := m.encode()
	if err != nil {
		return err
	}
	tmp := k.names.tmp(path)
	err = writeSynced(tmp, k.dataPath, func(w *os.File) error {
		_, err := w.Write(data)
		return err
	})
	if err == nil {
		err = os.Rename(tmp, path)
	}
	if err != nil {
		os.Remove(tmp)
	}
	return err
}

// linkOrCopy gives the file at path a second name. If the file system can't make the hard link, it copies the file.
func (k *keptStates) linkOrCopy(path, second string) error {
	err := os.Link(path, second)
	for _, noLinks := range []error{syscall.EPERM, syscall.EOPNOTSUPP, syscall.ENOSYS, syscall.EMLINK, syscall.EXDEV} {
		if errors.Is(err, noLinks) {
			tmp := k.names.tmp(second)
			os.Remove(tmp)
			if err := copyFile(path, tmp); err != nil {
				return err
			}
			return os.Rename(tmp, second)
		}
	}
	return err
}

// PruneKept drops the kept states that the policy does not cover, and those for which there is not enough space. It returns the
// dropped states.
func (f *File) PruneKept() (dropped []KeptState, err error) {
	dropped, _, err = f.kept.prune(0)
	if err != nil {
		err = fmt.Errorf("drop kept states: %w", volume.WithHint(err))
	}
	return dropped, err
}

// prune drops the states that the policy does not cover. It then drops more states, until need bytes are freed and the rest
// fits into the budget. short is the number of bytes that it could not free, because the state before the largest
// unacknowledged loss is never dropped.
func (k *keptStates) prune(need int64) (dropped []KeptState, short int64, err error) {
	states := k.list()
	list := make([]retention.State, len(states))
	budget := retention.Budget{}
	if info, err := os.Lstat(k.dataPath); err == nil {
		budget.File = info.Size()
	}
	for i, s := range states {
		list[i] = retention.State{Time: s.Time, Rows: s.Rows, Bytes: s.DiskBytes, Loss: s.Loss != nil || s.Other, Acknowledged: s.Acknowledged || s.Other}
		if slices.ContainsFunc(states[:i], func(other KeptState) bool { return os.SameFile(other.inode, s.inode) }) {
			list[i].Bytes = 0 // an equal state shares its data with one before it
		}
		if s.Loss != nil && !s.Acknowledged {
			budget.File = max(budget.File, s.Bytes)
		}
	}
	usage, err := volume.Measure(k.names.folder)
	if err != nil {
		return nil, 0, err
	}
	budget.Size, budget.Free = usage.Size, usage.Free
	k.mu.Lock()
	now := k.clock.Now(time.Now().Round(0), time.Since(k.start))
	policy := k.policy
	k.mu.Unlock()
	drop, short := retention.Plan(list, policy, now, max(budget.Excess(list), need))
	for _, i := range drop {
		if derr := k.drop(states[i].id); derr != nil {
			err = errors.Join(err, derr)
			continue
		}
		dropped = append(dropped, states[i])
	}
	return dropped, short, err
}
