package store

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
)

// tempFile owns the temporary name of feedback.json. There is one such name and there are four uses for it, at most one at a
// time:
//
//	use          what the file is                       begins in              ends in
//	*os.File     the next version, written whole        Write                  Write, which publishes it
//	*prewrite    the start of the next version          WriteAhead             Write, which finishes and publishes it
//	*shadow      the version before the current one,    Write, which retires   Write, which patches and publishes it
//	             or a copy of the current one           it, or Idle
//	*shadowCopy  a shadow file that is being copied     Idle                   Idle, which makes it the shadow
//
// The name is exclusive so that one rule cleans up after a crash: whatever has the name then, Open removes. Each new file goes
// through create, which discards the use before it, whichever that is.
type tempFile struct {
	path   string // feedback.json.tmp, or a name of our own on a share
	target string // feedback.json, whose mode and owner a new file gets
	lock   *lock
	share  *share

	use  io.Closer   // what the file under the name is for; nil if there is no such file
	info os.FileInfo // that file; of a shadow also its size and modification time when it was retired
}

// create creates an empty file under the temporary name and discards what has it. The file is the use until the caller sets
// another.
func (t *tempFile) create() (*os.File, error) {
	t.discard()
	file, err := createLike(t.path, t.target)
	if err != nil {
		return nil, err
	}
	info, err := file.Stat()
	if err != nil {
		file.Close()
		os.Remove(t.path)
		return nil, err
	}
	t.use, t.info = file, info
	return file, nil
}

// publish renames the file to its final name, and no longer owns it. If retired is not nil and the file system can, the two
// names are exchanged: the version that is replaced gets the temporary name and becomes the shadow retired, whose file is info.
func (t *tempFile) publish(retired *shadow, info os.FileInfo) error {
	if retired != nil {
		exchanged, err := renameExchange(t.path, t.target)
		if err != nil {
			return err
		}
		if exchanged {
			t.use, t.info = retired, info
			return nil
		}
	}
	if err := t.share.rename(t.path, t.target); err != nil {
		return err
	}
	t.use, t.info = nil, nil
	return nil
}

// verify returns an error unless the temporary name still leads to our file. The folder may have been replaced since the
// lock was checked; what has the name then is another process' half-written file.
func (t *tempFile) verify() error {
	info, err := os.Lstat(t.path)
	if err != nil {
		return err
	}
	if !os.SameFile(info, t.info) {
		return fmt.Errorf("the folder %s was replaced meanwhile", filepath.Dir(t.path))
	}
	return t.lock.verify()
}

// discard removes the file, if there is one and it is still ours.
func (t *tempFile) discard() {
	if t.use != nil && t.verify() == nil {
		os.Remove(t.path)
	}
	t.abandon()
}

// abandon closes the file and leaves it alone: the name may be another process' now.
func (t *tempFile) abandon() {
	if t.use != nil {
		t.use.Close()
	}
	t.use, t.info = nil, nil
}
