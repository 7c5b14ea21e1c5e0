package store

import (
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"
)

// A file larger than verifyAtOpen bytes is not read to the end by Open, which would delay the start, but by the first
// Write, just before it is replaced.
const (
	verifyAtOpen = 64 << 20
	verifyAll    = math.MaxInt64
)

// keptAside is how many damaged files are kept.
const keptAside = 5

// disk is what was found in the place of file and manifest.
type disk struct {
	known bool     // it has been compared; else the first Write does it
	good  bool     // file and manifest agree, as far as has been looked
	found Manifest // where good
	aside string   // the suffix under which the first Write keeps what was found; "" where there is no need to
}

// Found is the manifest of the file that was there when it was opened, where the two agree. For a file of more than 64 MB
// that means its size; its digests are compared by the first Write.
func (f *File) Found() (Manifest, bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.disk.found, f.disk.good
}

// Note is a sentence about what was found on disk, for the log: a damaged file that is kept aside, a write that was cut
// short. It is given once, and is "" where there is nothing to say. Ask after Open and after each Write.
func (f *File) Note() string {
	f.mu.Lock()
	defer f.mu.Unlock()
	note := f.note
	f.note = ""
	return note
}

// learn compares file and manifest, unless that means hashing more than limit bytes.
func (f *File) learn(limit int64) {
	f.disk = disk{known: true}
	manifest, merr := readManifest(f.manifest)
	pending, perr := readManifest(f.manifestTmp())
	info, err := os.Lstat(f.path)
	if missing(err) {
		os.Remove(f.manifestTmp())
		if !missing(merr) {
			f.setAside("its manifest stands there without it")
		}
		return
	}
	if err != nil || !info.Mode().IsRegular() {
		f.setAside("it can't be read as a file")
		return
	}
	fits := func(m Manifest, err error) bool { return err == nil && m.Bytes == info.Size() }
	var sums *Hasher
	if fits(manifest, merr) || fits(pending, perr) {
		if info.Size() > limit {
			f.disk = disk{good: fits(manifest, merr), found: manifest}
			return
		}
		if sums, err = sumFile(f.path, manifest, pending); err != nil {
			f.setAside(fmt.Sprintf("it can't be read (%v)", err))
			return
		}
	}
	switch {
	case fits(pending, perr) && sums.Mismatch(pending) == "":
		f.finish(pending)
		return
	case missing(merr):
		f.setAside("it has no manifest, so another program wrote it or the manifest was removed")
	case merr != nil:
		f.setAside(brief(merr).Error())
	case manifest.Bytes != info.Size():
		f.setAside(fmt.Sprintf("it has %d bytes, and the manifest says %d", info.Size(), manifest.Bytes))
	default:
		if why := sums.Mismatch(manifest); why != "" {
			f.setAside(why)
		} else {
			f.disk.good, f.disk.found = true, manifest
		}
	}
	os.Remove(f.manifestTmp())
}

// finish ends a write that was cut between its two renames: the file is whole, its manifest has its temporary name still.
func (f *File) finish(m Manifest) {
	f.disk.good, f.disk.found = true, m
	err := os.Rename(f.manifestTmp(), f.manifest)
	if err == nil {
		err = syncFolder(filepath.Dir(f.manifest))
	}
	f.note = fmt.Sprintf("%s is whole: put its manifest in place, which a crash had kept from it", f.path)
	if err != nil {
		f.note = fmt.Sprintf("%s is whole, but its manifest can't be put in place: %v", f.path, err)
	}
}

// setAside has the first Write keep what is there under another name. Till then readers have what they had.
func (f *File) setAside(why string) {
	suffix := f.asideSuffix(time.Now())
	f.disk = disk{known: true, aside: suffix}
	f.note = fmt.Sprintf("%s is not what capture wrote: %s; the next flush replaces it and keeps it as %s",
		f.path, why, filepath.Base(f.path)+suffix)
}

// asideSuffix is for what is kept aside now. It sorts after all those of the same second, also where prune has removed the
// first of them.
func (f *File) asideSuffix(now time.Time) string {
	base := ".damaged-" + now.UTC().Format("20060102T150405Z")
	suffix := base
	taken := func(s string) bool { return exists(f.path+s) || exists(f.manifest+s) }
	for i, this := 2, base; i < 100; i++ {
		next := fmt.Sprintf("%s-%02d", base, i)
		if taken(this) {
			suffix = next
		}
		this = next
	}
	return suffix
}

func exists(path string) bool {
	_, err := os.Lstat(path)
	return err == nil
}

// keepAside gives what setAside chose its second name. The first name stays until the rename that replaces it, so that
// there is no instant without a feedback.json.
func (f *File) keepAside() error {
	if f.disk.aside == "" {
		return nil
	}
	for _, path := range []string{f.path, f.manifest} {
		if err := keep(path, path+f.disk.aside); err != nil {
			f.disk.known = !errors.Is(err, os.ErrExist) // another took its place after an earlier attempt: look again
			return fmt.Errorf("keep the damaged file aside: %w", err)
		}
	}
	prune(f.path)
	prune(f.manifest)
	return nil
}

func keep(path, aside string) error {
	info, err := os.Lstat(path)
	if missing(err) {
		return nil
	}
	if err != nil {
		return err
	}
	if !info.Mode().IsRegular() { // nothing that a reader could have used, and a folder can't be linked or replaced
		return os.Rename(path, aside)
	}
	err = os.Link(path, aside)
	if there, serr := os.Lstat(aside); serr == nil && os.SameFile(info, there) {
		return nil // an attempt that failed later did it
	}
	for _, unable := range []error{syscall.EPERM, syscall.EOPNOTSUPP, syscall.ENOSYS, syscall.EMLINK} {
		if errors.Is(err, unable) { // this file system has no hard links
			return copyFile(path, aside)
		}
	}
	return err
}

func copyFile(path, to string) error {
	from, err := os.Open(path)
	if err != nil {
		return err
	}
	defer from.Close()
	_, err = writeTmp(to, path, func(w *os.File) error {
		_, err := io.Copy(w, from)
		return err
	})
	if err != nil {
		os.Remove(to)
	}
	return err
}

// prune removes all but the newest of what was kept aside for path. The suffixes sort by time.
func prune(path string) {
	entries, err := os.ReadDir(filepath.Dir(path))
	if err != nil {
		return
	}
	var kept []string
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), filepath.Base(path)+".damaged-") {
			kept = append(kept, e.Name())
		}
	}
	slices.Sort(kept)
	for _, name := range kept[:max(0, len(kept)-keptAside)] {
		os.Remove(filepath.Join(filepath.Dir(path), name))
	}
}
