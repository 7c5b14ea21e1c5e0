package store

import (
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// flock(2) is enough on a local file system. On a network share it may protect nothing: some servers and mount options (nobrl of SMB,
// nolock of NFS) answer every request for a lock with success, and a server that restarts may forget its locks. So the lock file also
// has a random word of its owner. It is read again before each rename: a process that finds another word there has lost the file, and
// leaves it alone.

// lockContent is what the lock file has.
type lockContent struct {
	Owner
	Word string `json:"word"` // chosen at random by the owner
}

func newLockWord() string {
	var b [8]byte
	rand.Read(b[:]) // never fails
	return hex.EncodeToString(b[:])
}

// readLockContent returns what the lock file f has. It returns zero if f is empty or has no owner's form.
func readLockContent(f io.ReaderAt) lockContent {
	var c lockContent
	const longest = 64 << 10
	if err := json.NewDecoder(io.NewSectionReader(f, 0, longest)).Decode(&c); err != nil {
		return lockContent{}
	}
	return c
}

// verify returns an error unless the lock file is still the one that we have locked, with our word in it. If it has the word of
// another process, the error is a [*LockedError].
func (l *lock) verify() error {
	beforeVerify()
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.file == nil {
		return fmt.Errorf("read the lock file of %s: it is not ours any more", l.path)
	}
	if !isFileAt(l.file, lockPath(l.path)) {
		return fmt.Errorf("the folder %s was replaced meanwhile", filepath.Dir(l.path))
	}
	return l.verifyWord()
}

// beforeVerify is a hook for tests, which change the lock file just before verify reads it.
var beforeVerify = func() {}

// verifyWord returns an error unless the lock file has our word. If our owner could not be written there, there is nothing to compare.
func (l *lock) verifyWord() error {
	if !l.ownerWritten {
		return nil
	}
	// The file is opened again because NFS and SMB only then ask the server for what others have written.
	f, err := openLockFile(l.path, unix.O_RDONLY)
	if err != nil {
		return err
	}
	defer f.Close()
	switch c := readLockContent(f); c.Word {
	case l.word:
		return nil
	case "": // the other process has ended, or somebody has emptied the file
		l.ownerWritten = false
		return errors.New("the lock file " + lockPath(l.path) + " was emptied meanwhile")
	default:
		return &LockedError{Path: l.path, Owner: c.Owner}
	}
}
