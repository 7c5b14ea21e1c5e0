package store

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"capture/store/disk"
)

// maxQuarantined is the maximum number of damaged files that are kept.
const maxQuarantined = 5

// quarantineInfix separates the file's name from the time in the name of a damaged file.
const quarantineInfix = ".damaged-"

// quarantineSuffix returns the suffix for a damaged file that is found now: the time in seconds, with a number if the second
// is taken. The number is higher than all numbers in use for this second, even if a lower number is free because its file
// has been removed. So the suffixes of one second sort by time.
func quarantineSuffix(p paths, now time.Time) string {
	base := quarantineInfix + now.UTC().Format("20060102T150405Z")
	suffix := base
	isTaken := func(s string) bool { return disk.Exists(p.dataPath+s) || disk.Exists(p.manifestPath+s) }
	for i, this := 2, base; i < 100; i++ {
		next := fmt.Sprintf("%s-%02d", base, i)
		if isTaken(this) {
			suffix = next
		}
		this = next
	}
	return suffix
}

// quarantine gives the file and its manifest second names that end in suffix, before a Write replaces them. A file that
// capture did not write may contain valuable data (invariant 9, docs/design.md). The first names stay until the rename, so
// feedback.json always exists. taken reports whether the error means that another file has one of the second names.
func quarantine(p paths, suffix string) (taken bool, err error) {
	for _, path := range []string{p.dataPath, p.manifestPath} {
		if err := linkOrCopy(path, path+suffix); err != nil {
			return errors.Is(err, os.ErrExist), fmt.Errorf("keep the damaged file: %w", err)
		}
	}
	pruneQuarantined(p.dataPath, suffix)
	pruneQuarantined(p.manifestPath, suffix)
	return false, nil
}

// linkOrCopy gives the file at path a second name. If the file system has no hard links, it copies the file. It does nothing if
// the file is missing.
func linkOrCopy(path, second string) error {
	info, err := os.Lstat(path)
	if disk.IsMissing(err) {
		return nil
	}
	if err != nil {
		return err
	}
	// Readers cannot use a file that is not regular, so path may name no file for a moment. A folder at path must be renamed,
	// because a folder can neither be linked nor be replaced by a file.
	if !info.Mode().IsRegular() {
		return os.Rename(path, second)
	}
	err = os.Link(path, second)
	if there, serr := os.Lstat(second); serr == nil && os.SameFile(info, there) {
		return nil // the link exists, perhaps from an earlier Write that made the link and failed later
	}
	if disk.HasNoLinks(err) {
		return disk.CopyFile(path, second)
	}
	return err
}

// pruneQuarantined keeps the newest maxQuarantined damaged files of path, and removes the older ones. Their suffixes sort by
// time, but the clock may have been set back. Therefore the file that was quarantined just now always stays. newSuffix is
// the suffix of its name.
func pruneQuarantined(path, newSuffix string) {
	entries, err := os.ReadDir(filepath.Dir(path))
	if err != nil {
		return
	}
	var kept []string
	most := maxQuarantined
	for _, e := range entries {
		switch {
		case e.Name() == filepath.Base(path)+newSuffix:
			most--
		case strings.HasPrefix(e.Name(), filepath.Base(path)+quarantineInfix):
			kept = append(kept, e.Name())
		}
	}
	slices.Sort(kept)
	for _, name := range kept[:max(0, len(kept)-most)] {
		os.Remove(filepath.Join(filepath.Dir(path), name))
	}
}
