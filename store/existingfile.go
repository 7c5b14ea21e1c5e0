package store

import (
	"fmt"
	"math"
	"os"
	"path/filepath"
	"time"

	"capture/store/disk"
	"capture/store/manifest"
)

// Limits in bytes that callers pass to inspectExisting. Hashing a file of more than hashAtOpen bytes would delay Open, so
// the first Write hashes such a file, just before it replaces the file.
const (
	hashAtOpen = 64 << 20
	hashAll    = math.MaxInt64
)

// existing describes the files on disk that this run has not written: what was there before the first Write, or what another
// program has put in place since the last Write.
type existing struct {
	checked    bool              // whether the file and its manifest were compared completely; if not, the first Write compares them
	intact     bool              // whether the file matches its manifest; if checked is not set, only the sizes were compared
	manifest   manifest.Manifest // manifest of the file, if intact is set
	found      standing          // the files as they were before they were compared
	quarantine string            // suffix of the name under which the next Write keeps the file; "" if it keeps none
	foreign    bool              // whether another program has put the file and its manifest in place since the last Write
}

// inspectExisting compares the file with its manifest. It hashes a file of at most hashLimit bytes; for a longer file it
// compares only the sizes. If it hashes the file and finds that a crash interrupted a Write between its two renames, it does
// the second rename. The warning describes damage or such a crash; it is "" if neither was found.
func inspectExisting(p paths, hashLimit int64) (_ existing, warning string) {
	m, merr := manifest.ReadAt(p.manifestPath)
	pending, perr := manifest.ReadAt(p.manifestTmp())
	info, err := os.Lstat(p.dataPath)
	if disk.IsMissing(err) {
		os.Remove(p.manifestTmp())
		if disk.IsMissing(merr) {
			return existing{checked: true}, ""
		}
		return planQuarantine(p, "its manifest is there without it")
	}
	if err != nil || !info.Mode().IsRegular() {
		return planQuarantine(p, "it can't be read as a file")
	}
	mayMatch := func(m manifest.Manifest, err error) bool { return err == nil && m.Bytes == info.Size() }
	var h *manifest.Hasher
	if mayMatch(m, merr) || mayMatch(pending, perr) {
		if info.Size() > hashLimit {
			return existing{intact: mayMatch(m, merr), manifest: m}, ""
		}
		if h, err = manifest.HashFile(p.dataPath, m, pending); err != nil {
			return planQuarantine(p, fmt.Sprintf("it can't be read (%v)", err))
		}
	}
	if mayMatch(pending, perr) && h.Mismatch(pending) == "" {
		return completeInterruptedRename(p, pending)
	}
	defer os.Remove(p.manifestTmp())
	switch {
	case disk.IsMissing(merr):
		return planQuarantine(p, "it has no manifest, so another program wrote it or the manifest was removed")
	case merr != nil:
		return planQuarantine(p, manifest.TruncateError(merr).Error())
	case m.Bytes != info.Size():
		return planQuarantine(p, fmt.Sprintf("it has %d bytes, and the manifest says %d", info.Size(), m.Bytes))
	}
	if mismatch := h.Mismatch(m); mismatch != "" {
		return planQuarantine(p, mismatch)
	}
	return existing{checked: true, intact: true, manifest: m}, ""
}

// completeInterruptedRename completes a Write that a crash interrupted between its two renames (see replaceBoth). The file is
// already the new version, but its manifest m still has the temporary name.
func completeInterruptedRename(p paths, m manifest.Manifest) (_ existing, warning string) {
	err := os.Rename(p.manifestTmp(), p.manifestPath)
	if err == nil {
		err = disk.SyncFolder(p.folder())
	}
	warning = fmt.Sprintf("%s is complete; a crash had left its manifest under the temporary name, and now it is in its place", p.dataPath)
	if err != nil {
		warning = fmt.Sprintf("%s is complete, but its manifest, which a crash had left under the temporary name, can't be renamed: %v", p.dataPath, err)
	}
	return existing{checked: true, intact: true, manifest: m}, warning
}

// planQuarantine returns the result of inspectExisting for a file whose content is not what capture wrote. The result tells
// the next Write to keep this file under another name. Until then the file stays as it is.
func planQuarantine(p paths, why string) (_ existing, warning string) {
	suffix := quarantineSuffix(p, time.Now())
	return existing{checked: true, quarantine: suffix}, fmt.Sprintf(
		"%s is not what capture wrote: %s; the next flush replaces it and keeps it as %s%s",
		p.dataPath, why, filepath.Base(p.dataPath), suffix)
}
