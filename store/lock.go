package store

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"capture/store/disk"
)

// Owner describes the process that has the lock of a file. The process writes its Owner into the lock file.
type Owner struct {
	PID     int       `json:"pid"`
	Host    string    `json:"host"`
	Listen  string    `json:"listen,omitempty"` // host:port of its HTTP server; "" while it has none
	Version string    `json:"version"`
	Started time.Time `json:"started"`
}

// LockedError reports that another process has the lock of the file.
type LockedError struct {
	Path  string // path of the file
	Owner Owner  // owner of the lock; zero if it is not in the lock file yet
}

func (e *LockedError) Error() string {
	o := e.Owner
	var b strings.Builder
	fmt.Fprintf(&b, "%s is in use by another capture process", e.Path)
	if o.PID != 0 {
		fmt.Fprintf(&b, " (pid %d on host %q", o.PID, o.Host)
		if o.Listen != "" {
			fmt.Fprintf(&b, ", listening on %q", o.Listen)
		}
		fmt.Fprintf(&b, ", since %s)", o.Started.UTC().Format(time.RFC3339))
	}
	b.WriteString("; stop that one first, or give this one another --output")
	return b.String()
}

// lockPath returns the path of the lock file for the file at path, which must not be a symbolic link.
func lockPath(path string) string { return path + ".lock" }

// ReadOwner takes a shared lock for an instant, to test whether another process has the lock. In this instant, lockFile cannot
// lock the file. Therefore lockFile retries for up to lockPatience, with pauses of lockPause.
const (
	lockPatience = 2 * time.Second
	lockPause    = 5 * time.Millisecond
)

// lock is a lock on the lock file (flock(2)). The kernel releases it when the process ends. The lock file is never removed: if
// it were removed and created again, two processes could each have locked a file of that name.
type lock struct {
	path string // path of the file that the lock protects
	word string // random word in the lock file (see lockword.go)

	earlier Owner // owner that the lock file named when we last locked it; zero if the lock file was empty

	mu           sync.Mutex
	file         *os.File // the lock file; nil after release
	owner        Owner
	ownerWritten bool // whether the owner is in the lock file
}

func acquireLock(path string, o Owner) (*lock, error) {
	l := &lock{path: path, owner: o, word: newLockWord()}
	f, err := l.lockFile()
	if err != nil {
		return nil, err
	}
	l.file = f
	l.writeOwner()
	return l, nil
}

// lockFile opens and locks the lock file. It sets l.earlier.
func (l *lock) lockFile() (*os.File, error) {
	for start := time.Now(); ; time.Sleep(lockPause) {
		f, err := openLockFile(l.path, unix.O_RDWR|unix.O_CREAT)
		if err != nil {
			return nil, err
		}
		err = flock(f, unix.LOCK_EX)
		switch {
		case err == nil && isFileAt(f, lockPath(l.path)):
			f.Chmod(0o600) // fails only if another user owns the file; that user can read it anyway
			l.earlier = readLockContent(f).Owner
			return f, nil
		case err == nil: // the file was removed or replaced after lockFile opened it, so a lock on it protects nothing
			err = errors.New("the lock file keeps being replaced")
		case !errors.Is(err, unix.EWOULDBLOCK):
			f.Close()
			return nil, fmt.Errorf("lock %s: %w", lockPath(l.path), err)
		case flock(f, unix.LOCK_SH) != nil:
			// Not even a shared lock is possible, so another process owns the file and has an exclusive lock. A call of
			// ReadOwner takes only a shared lock, which permits other shared locks.
			err = l.lockedError(f)
			f.Close()
			return nil, err
		default:
			err = l.lockedError(f)
		}
		f.Close()
		if time.Since(start) > lockPatience {
			return nil, fmt.Errorf("lock %s: %w", lockPath(l.path), err)
		}
	}
}

func (l *lock) lockedError(f *os.File) error {
	return &LockedError{Path: l.path, Owner: readLockContent(f).Owner}
}

// reacquireIfReplaced takes the lock again if the lock file or its folder was removed or replaced. The old lock is useless
// then, because another process could lock the new file. reacquireIfReplaced reports whether it has taken the lock again.
// The error is a [*LockedError] if another process has the lock, or has written its own word (see lockword.go) into the lock
// file although we have the lock.
func (l *lock) reacquireIfReplaced() (replaced bool, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.file == nil {
		return false, os.ErrClosed
	}
	if !isFileAt(l.file, lockPath(l.path)) {
		f, err := l.lockFile()
		if err != nil {
			return false, err
		}
		l.file.Close()
		l.file, l.ownerWritten, replaced = f, false, true
	}
	if err := l.verifyWord(); errors.As(err, new(*LockedError)) {
		return replaced, err
	}
	if !l.ownerWritten {
		l.writeOwner()
	}
	return replaced, nil
}

// isOwned reports whether we have the lock and the lock file has not been replaced.
func (l *lock) isOwned() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.file != nil && isFileAt(l.file, lockPath(l.path))
}

func (l *lock) setListen(addr string) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.file == nil {
		return os.ErrClosed
	}
	l.owner.Listen = addr
	return l.writeOwner()
}

// writeOwner writes the owner into the lock file. If that fails, for example on a full disk, the lock still protects the file,
// and reacquireIfReplaced writes the owner again.
func (l *lock) writeOwner() error {
	data, err := json.Marshal(lockContent{Owner: l.owner, Word: l.word})
	if err != nil {
		return err
	}
	data = append(data, '\n')
	// The file is truncated only after the write. Between the two calls, the end of the old content may follow the new
	// content. But a reader uses only the first JSON value, so it sees either the old owner or the new one.
	if _, err = l.file.WriteAt(data, 0); err == nil {
		err = l.file.Truncate(int64(len(data)))
	}
	l.ownerWritten = err == nil
	return err
}

func (l *lock) release() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.file == nil {
		return nil
	}
	err := l.file.Truncate(0)
	// If this process has just forked a child process, the child has the file open until it executes its program. Closing the
	// file would leave the lock to the child, so the lock is released before the file is closed.
	if uerr := flock(l.file, unix.LOCK_UN); err == nil {
		err = uerr
	}
	if cerr := l.file.Close(); err == nil {
		err = cerr
	}
	l.file = nil
	return err
}

// ErrLockNotTrusted means that another user could have written the content of the lock file.
var ErrLockNotTrusted = errors.New("another user may write the lock file, so the address in it is not used")

// ReadOwner returns the owner of the lock of the file at path. locked reports whether a process has the lock; a process that
// was killed no longer has it. The owner is zero if the process has not yet written its data into the lock file.
//
// If the error is [ErrLockNotTrusted], the owner is zero but locked is valid. The error is fs.ErrPermission if only another
// user may read the lock file.
func ReadOwner(path string) (o Owner, locked bool, err error) {
	f, err := openLockFile(path, unix.O_RDONLY)
	if disk.IsMissing(err) {
		return Owner{}, false, nil
	}
	if err != nil {
		return Owner{}, false, err
	}
	defer f.Close() // releases the shared lock
	switch err := flock(f, unix.LOCK_SH); {
	case err == nil:
		return Owner{}, false, nil
	case errors.Is(err, unix.EWOULDBLOCK) && !isTrusted(f):
		return Owner{}, true, fmt.Errorf("read %s: %w", lockPath(path), ErrLockNotTrusted)
	case errors.Is(err, unix.EWOULDBLOCK):
		return readLockContent(f).Owner, true, nil
	default:
		return Owner{}, false, fmt.Errorf("test the lock %s: %w", lockPath(path), err)
	}
}

// isTrusted reports whether only this user and root can have written the open file f.
func isTrusted(f *os.File) bool {
	info, err := f.Stat()
	if err != nil {
		return false
	}
	st, ok := info.Sys().(*syscall.Stat_t)
	return ok && (st.Uid == 0 || int(st.Uid) == os.Geteuid()) && info.Mode().Perm()&0o022 == 0
}

// openLockFile opens the lock file of the file at path. It follows no symbolic link, because a link could make us write to
// another file. It does not block on a named pipe. It creates the lock file without access for other users, because whoever can
// read the lock file can lock it.
func openLockFile(path string, flags int) (*os.File, error) {
	notRegular := fmt.Errorf("lock %s: it is not a regular file; remove it", lockPath(path))
	open := func() (*os.File, error) {
		return os.OpenFile(lockPath(path), flags|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0o600)
	}
	f, err := open()
	if errors.Is(err, os.ErrPermission) && flags&unix.O_CREAT != 0 {
		disk.AddMode(lockPath(path), 0o600)
		f, err = open()
	}
	if err != nil {
		// For a link, a folder or a socket, open fails, and its error does not say what to do.
		if info, lerr := os.Lstat(lockPath(path)); lerr == nil && !info.Mode().IsRegular() {
			err = notRegular
		}
		return nil, err
	}
	if info, err := f.Stat(); err != nil || !info.Mode().IsRegular() {
		f.Close()
		return nil, notRegular
	}
	return f, nil
}

func flock(f *os.File, how int) error {
	for {
		if err := unix.Flock(int(f.Fd()), how|unix.LOCK_NB); !errors.Is(err, unix.EINTR) {
			return err
		}
	}
}

// isFileAt reports whether path names the open file f.
func isFileAt(f *os.File, path string) bool {
	opened, err := f.Stat()
	if err != nil {
		return false
	}
	there, err := os.Lstat(path)
	return err == nil && os.SameFile(opened, there)
}
