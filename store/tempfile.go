package store

import (
	"fmt"
	"io"
	"os"
	"path/filepath"

	"capture/store/disk"
)

// tempFile manages the temporary name of feedback.json. At most one file has this name, for one of four uses:
//
//	use          what the file is                       begins in              ends in
//	*os.File     the next version, written whole        Write                  Write, which publishes it
//	*prewrite    the start of the next version          WriteAhead             Write, which finishes and publishes it
//	*shadow      the version before the current one,    Write, which retires   Write, which patches and publishes it
//	             or a copy of the current one           it, or Idle
//	*shadowCopy  a shadow file that is being copied     Idle                   Idle, which makes it the shadow
//
// There is only one name so that one rule cleans up after a crash: Open removes whatever file has it. Each new file is made by
// create, which first discards the file that has the name.
type tempFile struct {
	path   string // feedback.json.tmp, or on a share a name that only this process uses
	target string // path of feedback.json
	lock   *lock
	share  *share

	use  io.Closer   // *os.File, *prewrite, *shadow or *shadowCopy, for the file that has the temporary name; nil if no file has this name
	info os.FileInfo // identity of this file; for a shadow, also its size and modification time when it became the shadow
}

// create discards the file that has the temporary name, and creates an empty file under this name, with the mode and owner of
// the file that template describes. The new *os.File is in t.use until the caller sets t.use to something else.
func (t *tempFile) create(template os.FileInfo) (*os.File, error) {
	t.discard()
	file, err := disk.CreateLike(t.path, template)
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

// publish renames the file to its final name, so that no file has the temporary name any more. But if retired is not nil and
// the file system can exchange two names, publish exchanges the names. The old version of feedback.json then gets the
// temporary name, and publish sets t.use to retired and t.info to info, which is the identity of the old version.
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

// verify returns an error unless the temporary name still leads to our file. If the folder was replaced after the lock was
// checked, the name may lead to a file that another process is still writing.
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

// discard removes the file if it exists and is still ours.
func (t *tempFile) discard() {
	if t.use != nil && t.verify() == nil {
		os.Remove(t.path)
	}
	t.abandon()
}

// abandon closes the file but does not remove it: the name may belong to another process now.
func (t *tempFile) abandon() {
	if t.use != nil {
		t.use.Close()
	}
	t.use, t.info = nil, nil
}
