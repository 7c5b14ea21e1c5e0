package store

import (
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// flock(2) is enough on a local file system. On a network share it may protect nothing: some servers and mount options (nobrl
// of SMB, nolock of NFS) grant every request for a lock, and a server may forget its locks when it restarts. Therefore the
// owner also writes a random word into the lock file, and reads the lock file again before each rename. A process that finds
// another word there has lost the file and stops writing it.

// lockContent is the content of the lock file.
type lockContent struct {
	Owner
	Word string `json:"word"` // random word of the owner
}

func newLockWord() string {
	var b [8]byte
	rand.Read(b[:]) // never fails
	return hex.EncodeToString(b[:])
}

// readLockContent returns the content of the lock file f. It returns the zero value if f is empty or cannot be decoded.
func readLockContent(f io.ReaderAt) lockContent {
	var c lockContent
	const longest = 64 << 10
	if err := json.NewDecoder(io.NewSectionReader(f, 0, longest)).Decode(&c); err != nil {
		return lockContent{}
	}
	return c
}

// verify returns an error unless the lock file is still the one that we have locked, and contains our random word. If it contains
// the word of another process, the error is a [*LockedError].
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

// verifyWord returns an error unless the lock file contains our word. It makes no check and returns nil if the
// word could not be written.
func (l *lock) verifyWord() error {
	if !l.ownerWritten {
		return nil
	}
	// The file is opened again, because only then do NFS and SMB ask the server for what other machines have written.
	f, err := openLockFile(l.path, unix.O_RDONLY)
	if errors.Is(err, fs.ErrPermission) { // somebody has changed the mode
		l.file.Chmod(0o600)
		f, err = openLockFile(l.path, unix.O_RDONLY)
	}
	if err != nil {
		return err
	}
	defer f.Close()
	switch c := readLockContent(f); c.Word {
	case l.word:
		return nil
	case "": // another process had taken the lock and has released it, or somebody has emptied the file
		l.ownerWritten = false
		return errors.New("the lock file " + lockPath(l.path) + " was emptied meanwhile")
	default:
		return &LockedError{Path: l.path, Owner: c.Owner}
	}
}
