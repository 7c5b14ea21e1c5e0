package store

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// Owner is the process that keeps a file, as it says in the lock file.
type Owner struct {
	PID     int       `json:"pid"`
	Host    string    `json:"host"`
	Listen  string    `json:"listen,omitempty"` // host:port that its HTTP server answers on; "" while it has none
	Version string    `json:"version"`
	Started time.Time `json:"started"`
}

// LockedError is that another process keeps the file.
type LockedError struct {
	Path  string // of the file that is kept
	Owner Owner  // zero where the other has not said yet
}

func (e *LockedError) Error() string {
	o := e.Owner
	var b strings.Builder
	fmt.Fprintf(&b, "%s is kept by another capture", e.Path)
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

// lockPath is the lock file of the file at path, which has no link in its last place.
func lockPath(path string) string { return path + ".lock" }

// A process that only asks who holds the lock has it shared for an instant: an opener waits that long for it.
const (
	lockPatience = 2 * time.Second
	lockPause    = 5 * time.Millisecond
)

// lock is an flock on the lock file. It dies with the process. The lock file itself is never removed: between a removal
// and the next creation two processes could each hold a lock on a file of that name.
type lock struct {
	path string // of the file that is locked

	mu    sync.Mutex
	file  *os.File // nil once released
	owner Owner
	said  bool // the lock file holds owner
}

func acquire(path string, o Owner) (*lock, error) {
	l := &lock{path: path, owner: o}
	f, err := l.take()
	if err != nil {
		return nil, err
	}
	l.file = f
	l.say()
	return l, nil
}

// take opens and locks the lock file that has the name now.
func (l *lock) take() (*os.File, error) {
	for start := time.Now(); ; time.Sleep(lockPause) {
		f, err := openLock(l.path, unix.O_RDWR|unix.O_CREAT)
		if err != nil {
			return nil, err
		}
		err = flock(f, unix.LOCK_EX)
		switch {
		case err == nil && isAt(f, lockPath(l.path)):
			return f, nil
		case err == nil: // removed or replaced since it was opened: that lock is worth nothing
			err = errors.New("it is being replaced all the time")
		case !errors.Is(err, unix.EWOULDBLOCK):
			f.Close()
			return nil, fmt.Errorf("lock %s: %w", lockPath(l.path), err)
		case flock(f, unix.LOCK_SH) != nil: // not just somebody who asks
			err = l.heldBy(f)
			f.Close()
			return nil, err
		default:
			err = l.heldBy(f)
		}
		f.Close()
		if time.Since(start) > lockPatience {
			return nil, fmt.Errorf("lock %s: %w", lockPath(l.path), err)
		}
	}
}

func (l *lock) heldBy(f *os.File) error {
	return &LockedError{Path: l.path, Owner: readOwner(f)}
}

// renew makes sure that the lock is held on the file that has the name now: the lock file, or its whole folder, may have
// been removed or replaced, and then another process could hold the new one. It says whether it had to take a new one.
func (l *lock) renew() (taken bool, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.file == nil {
		return false, os.ErrClosed
	}
	if !isAt(l.file, lockPath(l.path)) {
		f, err := l.take()
		if err != nil {
			return false, err
		}
		l.file.Close()
		l.file, l.said, taken = f, false, true
	}
	if !l.said {
		l.say()
	}
	return taken, nil
}

// held says whether the lock is still on the file that has the name now.
func (l *lock) held() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.file != nil && isAt(l.file, lockPath(l.path))
}

func (l *lock) setListen(addr string) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.file == nil {
		return os.ErrClosed
	}
	l.owner.Listen = addr
	return l.say()
}

// say writes the owner. Where it can't, as on a full disk, the lock holds all the same, and renew tries again.
func (l *lock) say() error {
	data, err := json.Marshal(l.owner)
	if err != nil {
		return err
	}
	data = append(data, '\n')
	// Truncated after writing: a reader takes the first JSON value, so it sees the old owner or the new one.
	if _, err = l.file.WriteAt(data, 0); err == nil {
		err = l.file.Truncate(int64(len(data)))
	}
	l.said = err == nil
	return err
}

func (l *lock) release() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.file == nil {
		return nil
	}
	err := l.file.Truncate(0)
	if cerr := l.file.Close(); err == nil {
		err = cerr
	}
	l.file = nil
	return err
}

// ReadOwner says who keeps the file at path. held is false where nobody does, also where a process that did was killed.
// The owner is zero where the one who holds it has not said yet, or could not.
func ReadOwner(path string) (o Owner, held bool, err error) {
	path = followLink(path)
	f, err := openLock(path, unix.O_RDONLY)
	if missing(err) {
		return Owner{}, false, nil
	}
	if err != nil {
		return Owner{}, false, err
	}
	defer f.Close() // gives the shared lock back
	switch err := flock(f, unix.LOCK_SH); {
	case err == nil:
		return Owner{}, false, nil
	case errors.Is(err, unix.EWOULDBLOCK):
		return readOwner(f), true, nil
	default:
		return Owner{}, false, fmt.Errorf("ask for the lock %s: %w", lockPath(path), err)
	}
}

// openLock opens the lock file of path. It follows no link, so that nobody makes us write elsewhere, and waits for no pipe.
func openLock(path string, flags int) (*os.File, error) {
	f, err := os.OpenFile(lockPath(path), flags|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0o644)
	if err != nil {
		return nil, err
	}
	if info, err := f.Stat(); err != nil || !info.Mode().IsRegular() {
		f.Close()
		return nil, fmt.Errorf("lock %s: it is not a regular file; remove it", lockPath(path))
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

// readOwner is what the lock file says; zero where it is empty or not readable as an owner.
func readOwner(f *os.File) Owner {
	var o Owner
	const most = 64 << 10
	if err := json.NewDecoder(io.NewSectionReader(f, 0, most)).Decode(&o); err != nil {
		return Owner{}
	}
	return o
}

// isAt says whether f is the file that has the name path now.
func isAt(f *os.File, path string) bool {
	have, err := f.Stat()
	if err != nil {
		return false
	}
	there, err := os.Lstat(path)
	return err == nil && os.SameFile(have, there)
}
