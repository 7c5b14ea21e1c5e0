package kept

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"slices"
	"sync"
	"time"

	"capture/internal/volume"
	"capture/store/disk"
	"capture/store/loss"
	"capture/store/manifest"
	"capture/store/retention"
)

// States manages the kept states of one file. Only the process that has the file's lock may use a States. Any goroutine may call its
// methods, even during a Write.
type States struct {
	names    names
	dataPath string // path of the file

	mu     sync.Mutex
	ids    map[stateID]cachedManifest // existing states; other processes may drop states, but only the owner of the lock adds states
	policy retention.Policy
	clock  *retention.Clock
	start  time.Time // start of the monotonic time that is passed to clock

	compressing sync.Mutex // held while states are compressed

	// losses is held while Keep keeps a state, and while EndLosses ends losses. Without this lock, EndLosses could find that
	// the rows of a loss are back, and end the loss just after the same rows were lost again. Nothing would report the
	// second loss, because Keep does not keep the same state twice.
	losses sync.Mutex
}

// Open returns the kept states of the file at dataPath, and removes what a crash has left of them. On a network share, tmpWord
// is a word that only this process uses in its temporary names. On a local file system it is "". accepted is the time of the
// retention clock when the existing file was written, or zero if it is not known (see [States.TimeBehind]). Until SetPolicy is
// called, the policy is [retention.Default].
func Open(dataPath, tmpWord string, accepted time.Time) *States {
	k := &States{names: newNames(dataPath), dataPath: dataPath, policy: retention.Default, start: time.Now()}
	k.names.tmpWord = tmpWord
	k.clock = retention.NewClock(k.start, accepted, 0)
	k.Reload()
	return k
}

// TimeBehind returns the time of the [retention.Clock], which decides which states are dropped. It returns zero if this time is
// not behind the wall clock.
func (k *States) TimeBehind() time.Time {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.clock.Behind(time.Now().Round(0), time.Since(k.start))
}

// SetPolicy sets the policy that [States.Prune] applies.
func (k *States) SetPolicy(p retention.Policy) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.policy = p
}

// Reload removes what a crash has left of kept states, and reads again which states exist.
func (k *States) Reload() {
	k.names.tidy()
	ids := map[stateID]cachedManifest{}
	if files, err := k.names.list(); err == nil {
		for id := range files {
			ids[id] = cachedManifest{}
		}
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	k.ids = ids
}

// List returns the states, newest first. It does not read the folder, which may have very many files of other programs.
func (k *States) List() []State {
	k.mu.Lock()
	ids := slices.Collect(maps.Keys(k.ids))
	k.mu.Unlock()
	var states []State
	for _, id := range ids {
		if s, ok := k.names.state(id, k.readManifest); ok {
			states = append(states, s)
		} else {
			k.forget(id)
		}
	}
	slices.SortFunc(states, func(a, b State) int { return b.Time.Compare(a.Time) })
	return states
}

func (k *States) forget(id stateID) {
	k.mu.Lock()
	defer k.mu.Unlock()
	delete(k.ids, id)
}

// cachedManifest is the manifest of a kept state, as readManifest has last read it.
type cachedManifest struct {
	file     os.FileInfo // nil if the manifest has not been read yet
	manifest manifest.Manifest
}

// readManifest returns the manifest of s. A daemon lists its states every few seconds, and there may be a hundred, so readManifest
// reads a manifest again only if its file has changed.
func (k *States) readManifest(s State) (manifest.Manifest, error) {
	info, err := os.Stat(s.manifestPath())
	if err != nil {
		return manifest.Manifest{}, err
	}
	k.mu.Lock()
	last := k.ids[s.id]
	k.mu.Unlock()
	if f := last.file; f != nil && os.SameFile(f, info) && f.Size() == info.Size() && f.ModTime().Equal(info.ModTime()) && f.Mode() == info.Mode() {
		return last.manifest, nil
	}
	m, err := s.Manifest()
	if err != nil {
		return manifest.Manifest{}, err
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	if _, ok := k.ids[s.id]; ok {
		k.ids[s.id] = cachedManifest{info, m}
	}
	return m, nil
}

// IsOff reports whether the policy keeps no ordinary states.
func (k *States) IsOff() bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.policy.IsOff()
}

// Keep makes a kept state of the current file, which m describes: it gives the file a second name and writes the state's
// manifest. m.Kept has the reason. Keep makes no second state if the state before a loss is already kept, for example by a
// Write that failed later. But if the table has lost more since then, the second state is necessary, because its manifest
// describes the larger loss. Keep also makes no second state if an ordinary state equals the newest kept state. If the state
// before a loss is already kept as an ordinary state, Keep renames the files of the ordinary state. If an older state is
// equal and compressed, the new state shares the data of the older state. The new state's manifest gets the mode and the
// owner that the given FileInfo describes.
func (k *States) Keep(m manifest.Manifest, like os.FileInfo) (State, error) {
	k.losses.Lock()
	defer k.losses.Unlock()
	s, err := k.keep(m, like)
	if err != nil {
		return State{}, fmt.Errorf("keep the state before: %w", volume.WithHint(err))
	}
	return s, nil
}

func (k *States) keep(m manifest.Manifest, like os.FileInfo) (State, error) {
	m.Horizon, m.HigherCounts = nil, nil // of no use in a kept state: a run that begins with one copies the table
	info, err := os.Lstat(k.dataPath)
	if err == nil && !info.Mode().IsRegular() { // a hard link to a symbolic link would not keep the rows
		err = errors.New(k.dataPath + " is not a regular file")
	}
	if err != nil {
		return State{}, err
	}
	isLoss := m.Kept.Loss != nil
	states := k.List()
	newestLoss := slices.IndexFunc(states, func(s State) bool { return s.Loss != nil })
	var equal *State // an equal older state, whose data the new state shares
	for i, s := range states {
		isSame := os.SameFile(info, s.inode)
		if !isSame && !isEqualState(&s, &m) {
			continue
		}
		isLast := isSame || i == 0
		switch {
		case isLoss && s.Loss == nil && isLast:
			return k.promote(s, m, like)
		case isLoss && s.Loss != nil && (isSame || i == newestLoss) && s.coversLoss(m.Kept.Loss, isSame), !isLoss && isLast:
			return s, nil // the state is kept already
		case equal == nil && !s.isPlain():
			equal = &s
		}
	}
	id := k.names.free(timeOfNext(states, m.WrittenAt), isLoss)
	if equal != nil {
		return k.add(id, m, like, equal.Path, k.names.compressed(id), k.names.manifest(id))
	}
	return k.add(id, m, like, k.dataPath, k.names.plain(id), k.names.plainManifest(id))
}

// coversLoss reports whether the manifest of s already describes the loss l, so that the state need not be kept once more.
// isSame reports whether the current file is the file of s. If the loss after s is acknowledged, s covers l only if isSame
// is true and l loses no further rows. In that case, the first Write of l has failed, and somebody has acknowledged the loss
// before capture repeated the Write.
func (s *State) coversLoss(l *manifest.Loss, isSame bool) bool {
	more := max(l.RowsLost-s.Loss.RowsLost, newKeys(l, s.Loss))
	if loss.MayLose(more, l.RowsBefore) || s.Acknowledged && (!isSame || more > 0) {
		return false
	}
	isNew := func(column string) bool { return !slices.Contains(s.Loss.ChangedColumns, column) }
	return !slices.ContainsFunc(l.ChangedColumns, isNew) && (s.Loss.MayChangeValues() || !l.MayChangeValues()) && s.Loss.RepairOf.Equal(l.RepairOf)
}

// newKeys returns how many lost keys of l are not among the lost keys of an earlier loss (known). It returns 0 if the earlier
// loss has only a sample of its lost keys. Comparing only the numbers of lost rows would not be enough: all rows of the earlier
// loss may have come back before other rows were lost.
func newKeys(l, known *manifest.Loss) int {
	if len(known.LostKeys) < known.RowsLost {
		return 0
	}
	keys := map[string]bool{}
	for _, key := range known.LostKeys {
		keys[string(key)] = true
	}
	n := 0
	for _, key := range l.LostKeys {
		if !keys[string(key)] {
			n++
		}
	}
	return n
}

// nextTimes limits how far the names of states may be ahead of the clock. If capture keeps several states within a second,
// the names get ahead, because each name takes a second of its own. If a name is ahead by more than nextTimes, there is
// another reason: the clock was set back, or the state comes from elsewhere.
const nextTimes = time.Minute

// timeOfNext returns the time for the name of a new state whose rows were written at t. Usually this is t. If the name of
// the newest existing state has the same second, or is later than t by less than nextTimes, timeOfNext returns the next second
// after that name's time. So the name of the new state sorts last.
func timeOfNext(states []State, t time.Time) time.Time {
	if len(states) > 0 && !states[0].Time.Before(t.Truncate(time.Second)) && states[0].Time.Sub(t) < nextTimes {
		return states[0].Time.Add(time.Second)
	}
	return t
}

// add makes a kept state with the manifest m and the data of an existing file. sourcePath is the path of that file.
func (k *States) add(id stateID, m manifest.Manifest, like os.FileInfo, sourcePath, path, manifestPath string) (State, error) {
	if err := k.writeManifest(manifestPath, m, like); err != nil {
		return State{}, err
	}
	if err := k.linkOrCopy(sourcePath, path); err != nil {
		os.Remove(manifestPath)
		return State{}, err
	}
	if id.loss { // the state before a loss must be durable before a Write replaces the file
		if err := disk.SyncFolder(k.names.folder); err != nil {
			return State{}, err
		}
	}
	return k.register(id)
}

// isEqualState reports whether s is known to equal the state that m describes.
func isEqualState(s *State, m *manifest.Manifest) bool {
	return s.SHA256 != "" && s.SHA256 == m.SHA256 && s.Damaged == "" && m.Kept.Damaged == ""
}

// promote turns an ordinary state into the state before a loss, and renames its files accordingly.
func (k *States) promote(s State, m manifest.Manifest, like os.FileInfo) (State, error) {
	id := stateID{s.id.stamp, true}
	path := k.names.compressed(id)
	if s.isPlain() {
		path = k.names.plain(id)
	}
	promoted, err := k.add(id, m, like, s.Path, path, k.names.manifest(id))
	if err == nil {
		err = k.drop(s.id)
	}
	return promoted, err
}

// register records that the state exists now, and returns the state.
func (k *States) register(id stateID) (State, error) {
	k.mu.Lock()
	k.ids[id] = cachedManifest{}
	k.mu.Unlock()
	s, ok := k.names.state(id, k.readManifest)
	if !ok {
		return State{}, fs.ErrNotExist
	}
	return s, nil
}

// drop removes the state and syncs the folder.
func (k *States) drop(id stateID) error {
	err := k.names.removeState(id)
	if err == nil {
		k.forget(id)
		err = disk.SyncFolder(k.names.folder)
	}
	return err
}

// writeManifest writes a manifest to path and syncs the new file, which gets the mode and owner of the file that model
// describes. The caller syncs the folder.
func (k *States) writeManifest(path string, m manifest.Manifest, model os.FileInfo) error {
	data, err := m.Encode()
	if err != nil {
		return err
	}
	tmp := k.names.tmp(path)
	err = disk.WriteSynced(tmp, model, func(w *os.File) error {
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

// linkOrCopy gives the file at path a second name. If the file system cannot make the hard link, it copies the file to that
// name.
func (k *States) linkOrCopy(path, second string) error {
	err := os.Link(path, second)
	if !disk.HasNoLinks(err) {
		return err
	}
	tmp := k.names.tmp(second)
	if err := disk.CopyFile(path, tmp); err != nil {
		return err
	}
	return os.Rename(tmp, second)
}
