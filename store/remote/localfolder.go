package remote

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"capture/store/disk"
)

// folderService is a folder, for example on another disk or on a network share. The names of temporary files begin with a dot.
type folderService struct{ root string }

// openFolder returns the service for a folder.
func openFolder(root string) service { return folderService{filepath.Clean(root)} }

func (s folderService) checksum() string { return "" }

func (s folderService) path(name string) string {
	return filepath.Join(s.root, filepath.FromSlash(name))
}

func (s folderService) list(_ context.Context, folder string) (objects []object, folders []string, err error) {
	if _, err := os.Stat(s.root); err != nil {
		return nil, nil, err // the folder of the URL must exist: if it is missing, its disk is probably not mounted
	}
	entries, err := os.ReadDir(s.path(folder))
	if err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			err = nil
		}
		return nil, nil, err
	}
	for _, e := range entries {
		switch info, err := e.Info(); {
		case strings.HasPrefix(e.Name(), ".") || err != nil:
		case e.IsDir():
			folders = append(folders, folder+e.Name()+"/")
		case info.Mode().IsRegular():
			objects = append(objects, object{name: folder + e.Name(), size: info.Size(), modified: info.ModTime()})
		}
	}
	return objects, folders, nil
}

func (s folderService) get(_ context.Context, name, version string, offset int64) (io.ReadCloser, object, error) {
	file, err := disk.OpenRegular(s.path(name))
	if err != nil {
		return nil, object{}, err
	}
	info, err := file.Stat()
	now := ""
	if err == nil {
		now, err = versionOf(file, info)
	}
	if err == nil && version != "" && version != now {
		err = errChanged
	}
	if err == nil {
		_, err = file.Seek(offset, io.SeekStart)
	}
	if err != nil {
		file.Close()
		return nil, object{}, err
	}
	return file, object{name: name, size: info.Size(), version: now, modified: info.ModTime()}, nil
}

// versionOf returns the version of an open file. For a small file it is the SHA-256, since only small files are ever replaced.
// For other files it consists of the size and the modification time.
func versionOf(file *os.File, info fs.FileInfo) (string, error) {
	const small = 1 << 20
	if info.Size() > small {
		return fmt.Sprintf("%d-%d", info.Size(), info.ModTime().UnixNano()), nil
	}
	h := sha256.New()
	_, err := io.Copy(h, io.NewSectionReader(file, 0, info.Size()))
	return hex.EncodeToString(h.Sum(nil)), err
}

func (s folderService) put(ctx context.Context, name string, data []byte, c condition) (string, error) {
	if c.version != "" {
		unlock, err := s.lock(ctx, name)
		if err != nil {
			return "", err
		}
		defer unlock()
		body, _, err := s.get(ctx, name, c.version, 0)
		if errors.Is(err, fs.ErrNotExist) {
			return "", errChanged
		}
		if err != nil {
			return "", err
		}
		body.Close()
	}
	u, err := s.create(ctx, name)
	if err != nil {
		return "", err
	}
	defer u.abort(ctx)
	if err := u.part(ctx, 1, data); err != nil {
		return "", err
	}
	sum := sha256.Sum256(data)
	return hex.EncodeToString(sum[:]), u.(*folderUpload).publish(c.absent)
}

// lockPatience is how long folderService.lock waits for another process. A process needs the lock only to replace one small
// file. lockPause is the time between two attempts.
const (
	lockPatience = time.Second
	lockPause    = 10 * time.Millisecond
)

// lock locks the folder that contains the file with the given name, and returns a function that unlocks the folder. While the
// folder is locked, no other capture replaces a file in it. If another process keeps the lock, lock fails after lockPatience,
// and [Location.retry] tries again. When retry gives up, the error says which process to look for.
func (s folderService) lock(ctx context.Context, name string) (unlock func(), err error) {
	file, err := os.OpenFile(filepath.Join(filepath.Dir(s.path(name)), ".lock"), os.O_CREATE|os.O_RDWR|unix.O_NOFOLLOW, 0o640)
	if err != nil {
		return nil, err
	}
	for start := time.Now(); ; {
		// Without LOCK_NB, flock would wait even after ctx has ended.
		err := unix.Flock(int(file.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		if err == nil {
			return func() { file.Close() }, nil
		}
		if !errors.Is(err, unix.EWOULDBLOCK) && !errors.Is(err, unix.EINTR) {
			file.Close()
			return nil, os.NewSyscallError("flock", err)
		}
		if time.Since(start) > lockPatience {
			file.Close()
			return nil, fmt.Errorf("lock %s: another process holds it and does not let go; it may be a capture that was paused: find it with fuser, and continue or end it", file.Name())
		}
		select {
		case <-ctx.Done():
			file.Close()
			return nil, ctx.Err()
		case <-time.After(lockPause):
		}
	}
}

func (s folderService) remove(_ context.Context, name string) error { return os.Remove(s.path(name)) }

const partSuffix = ".part" // end of the names of files that are being written

func (s folderService) removeAbandoned(_ context.Context, folder string, before time.Time) error {
	entries, err := os.ReadDir(s.path(folder))
	for _, e := range entries {
		name := e.Name()
		info, ierr := e.Info()
		if strings.HasPrefix(name, ".") && strings.HasSuffix(name, partSuffix) && ierr == nil && info.ModTime().Before(before) {
			err = cmp.Or(err, os.Remove(filepath.Join(s.path(folder), name)))
		}
	}
	return err
}

func (s folderService) create(_ context.Context, name string) (upload, error) {
	path := s.path(name)
	if _, err := os.Stat(s.root); err != nil {
		return nil, err
	}
	if err := disk.CreateFolder(filepath.Dir(path)); err != nil {
		return nil, err
	}
	tmp := filepath.Join(filepath.Dir(path), "."+filepath.Base(path)+"-"+randomWord()+partSuffix)
	file, err := os.OpenFile(tmp, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o640)
	return &folderUpload{file: file, path: path}, err
}

// folderUpload is a file that still has a temporary name.
type folderUpload struct {
	file *os.File
	path string // final path
	ends []int64
}

func (u *folderUpload) part(_ context.Context, number int, data []byte) error {
	off := int64(0)
	if number > 1 {
		off = u.ends[number-2]
	}
	_, err := u.file.WriteAt(data, off)
	if err == nil {
		u.ends = append(u.ends[:number-1], off+int64(len(data)))
	}
	return err
}

func (u *folderUpload) commit(_ context.Context, c condition) error { return u.publish(c.absent) }

// publish syncs the file and gives it its final name. If absent is set, the name must be free.
func (u *folderUpload) publish(absent bool) error {
	err := u.file.Sync()
	if absent && err == nil {
		if err = os.Link(u.file.Name(), u.path); errors.Is(err, fs.ErrExist) {
			return errChanged
		}
		if disk.HasNoLinks(err) {
			err = u.renameIfAbsent() // a file system without hard links, such as an SMB share
		}
	} else if err == nil {
		err = os.Rename(u.file.Name(), u.path)
	}
	if err != nil {
		return err
	}
	return disk.SyncFolder(filepath.Dir(u.path))
}

// renameIfAbsent renames the file unless its final name is taken. If another process takes the name between the check and the
// rename, the rename replaces the file of the other process. This is almost always harmless, because the name contains the
// second, the position and the number of rows of the state. The replaced file is therefore equal, unless two different states
// agree in all three.
func (u *folderUpload) renameIfAbsent() error {
	if _, err := os.Lstat(u.path); err == nil {
		return errChanged
	}
	return os.Rename(u.file.Name(), u.path)
}

func (u *folderUpload) abort(context.Context) {
	u.file.Close()
	os.Remove(u.file.Name()) // fails, harmlessly, if publish has already renamed the file
}
