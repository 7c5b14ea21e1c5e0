package store

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"syscall"

	"capture/internal/volume"
	"capture/snapshot"
	"capture/store/disk"
	"capture/store/manifest"
)

// WriteLines writes v to the file at path as JSON lines, with a manifest beside it, and returns once both are durable. It
// follows the steps of [File.Write]: readers see either the old file or the new one, and [manifest.OpenRead] always finds the
// manifest that belongs to the file. But WriteLines keeps no earlier states. captureVersion is the version of capture, which
// the manifest records.
func WriteLines(path string, v *snapshot.View, captureVersion string) (manifest.Manifest, error) {
	m := manifest.New(v, ReasonExport, captureVersion)
	if err := writeLines(newPaths(disk.FollowLink(path)), v, &m); err != nil {
		return manifest.Manifest{}, fmt.Errorf("write %s: %w", path, volume.WithHint(err))
	}
	return m, nil
}

func writeLines(p paths, v *snapshot.View, m *manifest.Manifest) error {
	if info, err := os.Stat(p.dataPath); err == nil && !info.Mode().IsRegular() {
		return errors.New("it exists and is not a regular file")
	}
	if err := disk.CreateFolder(p.folder()); err != nil {
		return err
	}
	unlock, err := lockFolder(p.folder())
	if err != nil {
		return err
	}
	defer unlock()
	if err := finishLines(p); err != nil {
		return err
	}
	defer os.Remove(p.dataTmp()) // after a success, no file has this name any more
	h := manifest.NewHasher()
	err = disk.WriteSynced(p.dataTmp(), disk.StatRegular(p.dataPath), func(file *os.File) error { return v.WriteLines(io.MultiWriter(file, h)) })
	if err != nil {
		return err
	}
	m.Bytes, m.SHA256 = h.Bytes(), h.SHA256()
	data, err := m.Encode()
	if err != nil {
		return fmt.Errorf("encode manifest: %w", err)
	}
	err = disk.WriteSynced(p.manifestTmp(), disk.StatRegular(p.manifestPath), func(file *os.File) error {
		_, err := file.Write(data)
		return err
	})
	if err != nil {
		return err
	}
	onShare := &share{} // its method rename tries again if a network share refuses to replace an open file
	if err := onShare.rename(p.dataTmp(), p.dataPath); err != nil {
		os.Remove(p.manifestTmp())
		return err
	}
	atRename()
	if err := onShare.rename(p.manifestTmp(), p.manifestPath); err != nil {
		return err
	}
	return disk.SyncFolder(p.folder())
}

// finishLines completes a call of WriteLines that a crash interrupted between its two renames. After such a crash, the
// pending manifest describes the file.
func finishLines(p paths) error {
	m, err := manifest.ReadAt(p.manifestTmp())
	if err != nil {
		return nil // the pending manifest is missing or incomplete, and the new one will replace it
	}
	h, err := manifest.HashFile(p.dataPath, m)
	if err != nil || h.Mismatch(m) != "" {
		return nil
	}
	if err := os.Rename(p.manifestTmp(), p.manifestPath); err != nil {
		return err
	}
	return disk.SyncFolder(p.folder())
}

// lockFolder keeps two calls of WriteLines in one folder from mixing their temporary files. The lock ends with the process. If
// the file system has no locks on folders, lockFolder locks nothing.
func lockFolder(dir string) (unlock func(), err error) {
	d, err := os.Open(dir)
	if err != nil {
		return nil, err
	}
	if err := syscall.Flock(int(d.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); errors.Is(err, syscall.EWOULDBLOCK) {
		d.Close()
		return nil, fmt.Errorf("another program writes a file in %s; try again in a moment", filepath.Clean(dir))
	}
	return func() { d.Close() }, nil
}
