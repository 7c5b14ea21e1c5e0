package kept

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"time"

	"capture/store/disk"
)

// timeLayout is the layout of the UTC time in the names of a kept state's files.
const timeLayout = "20060102T150405Z"

// names makes the names of the kept states of one file. The files of one state of feedback.json are:
//
//	feedback-20261123T160000Z.json.gz             an ordinary state
//	feedback-20261123T160000Z-loss.json.gz        the state before a loss; .json until it is compressed
//	feedback-20261123T160000Z[-loss].manifest.json  the manifest of either state
//	feedback-20261123T160000Z-loss.acknowledged   means that the loss is acknowledged (an empty file) or its rows are back (see rowsBackMark)
//	.feedback-20261123T160000Z.json               an ordinary state that is not compressed yet; its manifest also begins with a dot
//	.feedback-20261123T160000Z….tmp               a file that is being written; ….json.gz-WORD.tmp on a network share
type names struct {
	folder string // folder of the current file and of its kept states
	base   string // name of the current file without .json, such as feedback

	tmpWord string // word that only this process uses in temporary names; "" on a local file system (see networkshare.go in package store)
}

func newNames(dataPath string) names {
	return names{folder: filepath.Dir(dataPath), base: strings.TrimSuffix(filepath.Base(dataPath), ".json")}
}

// stateID identifies a kept state of one file.
type stateID struct {
	stamp string // time of the state, as in the names of its files
	loss  bool   // whether it is the state before a loss
}

func newStateID(t time.Time, loss bool) stateID { return stateID{t.UTC().Format(timeLayout), loss} }

// time returns the time of the state.
func (id stateID) time() time.Time {
	t, _ := time.Parse(timeLayout, id.stamp) // valid, because parseName and newStateID make only valid stamps
	return t
}

func (id stateID) String() string {
	if id.loss {
		return id.stamp + "-loss"
	}
	return id.stamp
}

// stem returns the beginning of the paths of a state's files, up to the suffix.
func (n names) stem(id stateID) string { return filepath.Join(n.folder, n.base+"-"+id.String()) }

func (n names) compressed(id stateID) string   { return n.stem(id) + ".json.gz" }
func (n names) manifest(id stateID) string     { return n.stem(id) + ".manifest.json" }
func (n names) acknowledged(id stateID) string { return n.stem(id) + ".acknowledged" }

// plain returns the path of a state's data while the data are not compressed yet. For an ordinary state, the name begins
// with a dot, because the uncompressed file is temporary.
func (n names) plain(id stateID) string { return n.hideOrdinary(id, n.stem(id)+".json") }

// plainManifest returns the path of the manifest of a state that is not compressed yet.
func (n names) plainManifest(id stateID) string { return n.hideOrdinary(id, n.manifest(id)) }

func (n names) hideOrdinary(id stateID, path string) string {
	if id.loss {
		return path
	}
	return disk.Hidden(path)
}

// tmp returns the temporary path under which a file is written before it is renamed to path.
func (n names) tmp(path string) string {
	if !strings.HasPrefix(filepath.Base(path), ".") {
		path = disk.Hidden(path)
	}
	if n.tmpWord != "" {
		path += "-" + n.tmpWord
	}
	return path + ".tmp"
}

// filePaths returns the paths of all files that a state may have. The paths of the data come first, so that removeState removes
// the data first: without data, the other files do not count as a state.
func (n names) filePaths(id stateID) []string {
	return []string{n.plain(id), n.compressed(id), n.manifest(id), n.plainManifest(id), n.acknowledged(id)}
}

var fileName = regexp.MustCompile(`^-(\d{8}T\d{6}Z)(-loss)?\.(json\.gz|json|manifest\.json|acknowledged)((?:-[0-9a-f]{16})?\.tmp)?$`)

// stateFile describes a file of a kept state, as parsed from its name.
type stateFile struct {
	id     stateID
	suffix string // json.gz, json, manifest.json or acknowledged
	hidden bool   // whether the name begins with a dot
	tmp    string // suffix of a temporary name: .tmp, or -WORD.tmp on a share; "" for other names
}

// parseName parses the name of a file in the folder. It reports false if no file of a kept state can have this name.
func (n names) parseName(name string) (stateFile, bool) {
	name, isHidden := strings.CutPrefix(name, ".")
	rest, ok := strings.CutPrefix(name, n.base)
	match := fileName.FindStringSubmatch(rest)
	if !ok || match == nil {
		return stateFile{}, false
	}
	f := stateFile{id: stateID{stamp: match[1], loss: match[2] != ""}, suffix: match[3], hidden: isHidden, tmp: match[4]}
	if t, err := time.Parse(timeLayout, f.id.stamp); err != nil || t.Format(timeLayout) != f.id.stamp || f.tmp != "" && !isHidden {
		return stateFile{}, false
	}
	return f, true
}

// FindMoved returns the path of a kept state's compressed data. path is where the state's plain (uncompressed) data were
// before. FindMoved reports false in three cases: there still is a file at path, path cannot be the path of plain data, or the
// state is gone.
func FindMoved(path string) (compressed string, ok bool) {
	match := plainName.FindStringSubmatch(filepath.Base(path))
	if match == nil || !isGone(path) {
		return "", false
	}
	n := names{folder: filepath.Dir(path), base: match[1]}
	f, ok := n.parseName(filepath.Base(path))
	if !ok || !f.isData() || !disk.Exists(n.compressed(f.id)) {
		return "", false
	}
	return n.compressed(f.id), true
}

// plainName matches the names of the data of kept states that are not compressed yet. The submatch is the name of the
// current file without .json, such as feedback (see [names]).
var plainName = regexp.MustCompile(`^\.?(.+)-\d{8}T\d{6}Z(?:-loss)?\.json$`)

// FileOfLoss derives two results from the path of a state that was kept before a loss: the path of the file that the state
// was kept for, and the time of the state. It reports false if path cannot be the path of such a state. The state itself may
// be gone.
func FileOfLoss(path string) (dataPath string, at time.Time, ok bool) {
	name := strings.TrimSuffix(filepath.Base(path), ".gz")
	match := plainName.FindStringSubmatch(name)
	if match == nil {
		return "", time.Time{}, false
	}
	n := names{folder: filepath.Dir(path), base: match[1]}
	f, ok := n.parseName(name)
	return filepath.Join(n.folder, n.base+".json"), f.id.time(), ok && f.id.loss && f.tmp == ""
}

// isData reports whether the file has the data of a state.
func (f stateFile) isData() bool {
	switch {
	case f.tmp != "":
		return false
	case f.suffix == "json":
		return f.hidden != f.id.loss
	}
	return f.suffix == "json.gz" && !f.hidden
}

// list returns the files of all kept states, by state. It ignores everything that is not a regular file.
func (n names) list() (map[stateID][]stateFile, error) {
	entries, err := os.ReadDir(n.folder)
	if err != nil && !disk.IsMissing(err) {
		return nil, err
	}
	files := map[stateID][]stateFile{}
	for _, e := range entries {
		if f, ok := n.parseName(e.Name()); ok && e.Type().IsRegular() {
			files[f.id] = append(files[f.id], f)
		}
	}
	return files, nil
}

// free returns the ID for a new state with the time t. If t's second is taken, the ID has the next second that is free.
func (n names) free(t time.Time, loss bool) stateID {
	for ; ; t = t.Add(time.Second) {
		if !n.isTaken(newStateID(t, false)) && !n.isTaken(newStateID(t, true)) {
			return newStateID(t, loss)
		}
	}
}

func (n names) isTaken(id stateID) bool {
	for _, path := range n.filePaths(id) {
		if disk.Exists(path) {
			return true
		}
	}
	return false
}

// removeState removes all files of a state. It removes the data first, so that a crash leaves no data without a manifest.
// The caller syncs the folder.
func (n names) removeState(id stateID) error {
	var failed error
	for _, path := range n.filePaths(id) {
		if err := os.Remove(path); err != nil && !disk.IsMissing(err) {
			failed = errors.Join(failed, fmt.Errorf("remove a kept state: %w", err))
		}
	}
	return failed
}

// removePlain removes the plain data of a state that has been compressed. It also removes the manifest of an ordinary plain
// state, because the compressed state has another manifest.
func (n names) removePlain(id stateID) {
	os.Remove(n.plain(id)) // if this fails, tidy tries again
	if !id.loss {
		os.Remove(n.plainManifest(id))
	}
}
