package store

import (
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"weak"

	"capture/internal/volume"
	"capture/snapshot"
	"capture/snapshot/rowjson"
)

// File is feedback.json, its manifest and its lock. Its methods may be called from any goroutine; one Write runs at a time.
type File struct {
	path     string // of feedback.json itself, links resolved
	manifest string
	version  string
	lock     *lock

	mu      sync.Mutex
	closed  bool
	disk    disk    // what was there before the first Write
	last    written // what the last Write left
	spare   spareFile
	copying *spareCopy // the spare to be; nil for none
	draft   *draft     // of the next version; nil for none
	note    string
}

// written is what the last successful Write left on disk. It is zero after one that failed, so that the next starts anew:
// after a failed fsync the kernel may have thrown away what it could not write, and says so once only.
type written struct {
	view     weak.Pointer[snapshot.View] // weak, so as not to keep a state in memory that nobody needs any more
	shape    weak.Pointer[rowjson.Shape]
	version  uint64
	rows     int64 // bytes of the View's rows
	manifest Manifest
	file     os.FileInfo
	wrote    int64   // bytes of the file that went to disk
	layout   *layout // its places
	digest   *digest // of the file, the whole's not always to its end; it is the next version's, once that is begun
}

// Open takes the lock of the file at path, whose folder it makes where it is missing, and looks at what is there: it ends
// what a crash cut short, and compares the file with its manifest. Nothing of what it finds makes it fail: see [File.Note].
// Where path is a symbolic link, all this is about the file that it leads to.
//
// The error is a [*LockedError] where another process keeps the file.
func Open(path string, o Owner) (*File, error) {
	f := &File{path: followLink(path), manifest: ManifestPath(path), version: o.Version}
	if err := f.open(o); errors.As(err, new(*LockedError)) {
		return nil, err
	} else if err != nil {
		return nil, fmt.Errorf("open %s: %w", path, volume.WithHint(err))
	}
	return f, nil
}

func (f *File) open(o Owner) error {
	if info, err := os.Stat(f.path); err == nil && !info.Mode().IsRegular() {
		return errors.New("it is not a regular file; name a file for --output, or remove what is there")
	}
	if err := makeFolder(filepath.Dir(f.path)); err != nil {
		return err
	}
	l, err := acquire(f.path, o)
	if err != nil {
		return err
	}
	f.lock = l
	os.Remove(f.dataTmp()) // where it can't be, Write says so
	f.learn(verifyAtOpen)
	return nil
}

func (f *File) dataTmp() string     { return f.path + ".tmp" }
func (f *File) manifestTmp() string { return f.manifest + ".tmp" }

// Path is where the file is, links resolved.
func (f *File) Path() string { return f.path }

// SetListen tells those who ask for the lock's [Owner] where its HTTP server answers.
func (f *File) SetListen(addr string) error {
	if err := f.lock.setListen(addr); err != nil {
		return fmt.Errorf("write the lock file of %s: %w", f.path, volume.WithHint(err))
	}
	return nil
}

// Close gives the lock back, after a Write that still runs. The lock file stays, empty.
func (f *File) Close() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.closed = true
	f.dropDraft()
	f.dropSpare()
	return f.lock.release()
}

// Write makes the file hold v, and returns its manifest once both are safe on disk. Readers see the old file or the new
// one. After an error the old file is whole, and the next Write starts anew; the error says the step, the path, and for the
// usual troubles of a disk what to do. It is a [*LockedError] where the lock file was removed and another process took it.
//
// All Views that a File is given come from one [snapshot.Table]. Where v is what the last Write wrote, and nobody has
// touched the file since, only the manifest is written anew.
//
// For ReasonChange alone, the manifest of a large file may lack the SHA-256 of the whole, which takes long: see Complete.
func (f *File) Write(v *snapshot.View, reason Reason) (Manifest, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	m, err := f.write(v, reason)
	if err != nil {
		return Manifest{}, fmt.Errorf("flush %s: %w", filepath.Base(f.path), volume.WithHint(err))
	}
	return m, nil
}

func (f *File) write(v *snapshot.View, reason Reason) (_ Manifest, err error) {
	if f.closed {
		return Manifest{}, os.ErrClosed
	}
	if err := f.claim(); err != nil {
		return Manifest{}, err
	}
	last, spare, complete := f.last, f.spare, reason != ReasonChange
	f.last, f.spare = written{}, spareFile{}
	m := describe(v, reason, f.version)
	// From here on the View is not needed as a whole: as it is written, what the Table has moved on from can be freed.
	next := written{view: weak.Make(v), shape: weak.Make(v.Shape()), version: v.Version(), rows: v.Bytes()}
	if last.holds(v) && last.untouched(f.path) {
		if complete {
			if _, err := last.hash(v, math.MaxInt64); err != nil {
				return Manifest{}, err
			}
		}
		m.Bytes = last.manifest.Bytes
		last.digest.describe(&m)
		if err := f.replaceManifest(m); err != nil {
			return Manifest{}, err
		}
		f.spare, last.wrote = spare, 0
	} else if last, err = f.replaceBoth(v, &m, last, spare, complete); err != nil {
		return Manifest{}, err
	}
	info, err := os.Lstat(f.path)
	if err != nil {
		f.dropSpare()
		return Manifest{}, err
	}
	next.manifest, next.file, next.wrote, next.layout, next.digest = m, info, last.wrote, last.layout, last.digest
	f.last = next
	return m, nil
}

// Complete goes on with the SHA-256 of the whole file, where the last Write has left it out, and puts it into the manifest.
// It takes a short step, and says whether that was the last one; m is the manifest then, as far as v, which is what the
// last Write wrote, is still what is there.
func (f *File) Complete(v *snapshot.View) (m Manifest, done bool, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	last := &f.last
	if f.closed || !last.holds(v) || last.manifest.SHA256 != "" || !last.untouched(f.path) {
		return last.manifest, true, nil
	}
	m = last.manifest
	if done, err = last.hash(v, completeBytes); done && err == nil {
		last.digest.describe(&m)
		if err = f.replaceManifest(m); err == nil {
			last.manifest = m
		}
	}
	if err != nil {
		return Manifest{}, true, fmt.Errorf("complete the manifest of %s: %w", filepath.Base(f.path), volume.WithHint(err))
	}
	return m, done, nil
}

// hash goes on with the SHA-256 of the whole for some bytes at most, and says whether it has come to the end. v is what was
// written.
func (w *written) hash(v *snapshot.View, most int64) (done bool, err error) {
	d := &w.digest.whole
	if d.n == w.manifest.Bytes {
		return true, nil
	}
	n := newVersion(v, *w, nil)
	if n.bytes != w.layout.bytes || len(n.differences(w.layout, 1)) > 0 {
		return false, errors.New("the rows that were written have other places now")
	}
	var scratch []byte
	err = n.walk(&scratch, d.n, func(b []byte) error {
		d.Write(b)
		if most -= int64(len(b)); most <= 0 {
			return errEnd
		}
		return nil
	})
	return d.n == w.manifest.Bytes, err
}

// Wrote is how many bytes of feedback.json the last Write has written: all of a small file, of a large one as a rule those
// around what had changed.
func (f *File) Wrote() int64 {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.last.wrote
}

// claim makes the folder where it is gone, holds the lock on what is there now, and knows what that is.
func (f *File) claim() error {
	if err := makeFolder(filepath.Dir(f.path)); err != nil {
		return err
	}
	taken, err := f.lock.renew()
	if err != nil {
		return err
	}
	if taken {
		f.forgetDraft()
		f.forgetSpareCopy()
		f.disk, f.last, f.spare = disk{}, written{}, spareFile{}
	}
	if !f.disk.known {
		f.learn(verifyAll)
	}
	return nil
}

// holds says whether v is the state that was written. A View whose position alone has moved on has the same rows.
func (w *written) holds(v *snapshot.View) bool {
	if w.file == nil {
		return false
	}
	return w.view == weak.Make(v) || w.shape == weak.Make(v.Shape()) && w.version == v.Version() &&
		w.manifest.Rows == v.Rows() && w.rows == v.Bytes()
}

// untouched says whether the file at path is the very one that was written.
func (w *written) untouched(path string) bool {
	info, err := os.Lstat(path)
	return err == nil && os.SameFile(info, w.file) && info.Size() == w.file.Size() && info.ModTime().Equal(w.file.ModTime())
}

// replaceBoth writes file and manifest beside the old ones, then puts both in their place. A crash between the two renames
// leaves a manifest under its temporary name that fits the file: learn ends that at the next start.
func (f *File) replaceBoth(v *snapshot.View, m *Manifest, last written, old spareFile, complete bool) (next written, err error) {
	f.dropSpareCopy() // it has the name
	renamed := false
	defer func() {
		if err != nil && f.lock.held() { // else they may be another's
			os.Remove(f.dataTmp())
			if !renamed {
				os.Remove(f.manifestTmp())
			}
		}
	}()
	new := newVersion(v, last, f.draft)
	new.complete = complete
	data, release, err := f.writeData(new, last, old)
	if err != nil {
		return written{}, err
	}
	defer release()
	m.Bytes = new.bytes
	new.digest.describe(m)
	if err := f.writeManifest(*m); err != nil {
		return written{}, err
	}
	if err := f.keepAside(); err != nil {
		return written{}, err
	}
	// The folder may have been replaced since claim, and what has our temporary name now may be another's, half written.
	if there, err := os.Lstat(f.dataTmp()); err != nil {
		return written{}, err
	} else if !f.lock.held() || !os.SameFile(data, there) {
		return written{}, fmt.Errorf("the folder %s was replaced meanwhile", filepath.Dir(f.path))
	}
	kept, err := f.replaceData(new, last)
	if err != nil {
		return written{}, err
	}
	renamed, f.disk.aside = true, "" // what was there before has its other name only
	atRename()
	if err := os.Rename(f.manifestTmp(), f.manifest); err != nil {
		return written{}, err
	}
	if err := syncFolder(filepath.Dir(f.path)); err != nil {
		return written{}, err
	}
	f.spare = kept
	return written{layout: new.layout.places(), digest: new.digest, wrote: new.wrote}, nil
}

// atRename is called between the two renames; tests pull the plug there.
var atRename = func() {}

func (f *File) replaceManifest(m Manifest) error {
	err := f.writeManifest(m)
	if err == nil {
		err = os.Rename(f.manifestTmp(), f.manifest)
	}
	if err != nil {
		os.Remove(f.manifestTmp())
		return err
	}
	return syncFolder(filepath.Dir(f.manifest))
}

func (f *File) writeManifest(m Manifest) error {
	data, err := m.encode()
	if err != nil {
		return fmt.Errorf("encode manifest: %w", err)
	}
	_, err = writeTmp(f.manifestTmp(), f.manifest, func(file *os.File) error {
		_, err := file.Write(data)
		return err
	})
	return err
}

// writeTmp makes a file by createTmp, has it filled, and syncs it.
func writeTmp(tmp, like string, fill func(*os.File) error) (os.FileInfo, error) {
	file, err := createTmp(tmp, like)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	if err := fill(file); err != nil {
		return nil, err
	}
	if err := file.Sync(); err != nil {
		return nil, err
	}
	info, err := file.Stat()
	if err != nil {
		return nil, err
	}
	return info, file.Close()
}

// createTmp makes an empty file at tmp, with the mode and, where permitted, the owner of the one at like, if there is one.
// It never opens what is there already: that may be a link.
func createTmp(tmp, like string) (*os.File, error) {
	if err := os.Remove(tmp); err != nil && !missing(err) {
		return nil, err
	}
	file, err := os.OpenFile(tmp, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
	if err != nil {
		return nil, err
	}
	if old, err := os.Stat(like); err == nil && old.Mode().IsRegular() {
		if st, ok := old.Sys().(*syscall.Stat_t); ok {
			file.Chown(int(st.Uid), int(st.Gid)) // root only; the file is as good with our own
		}
		if err := file.Chmod(old.Mode().Perm()); err != nil && !errors.Is(err, os.ErrPermission) {
			file.Close()
			return nil, err
		}
	}
	return file, nil
}
