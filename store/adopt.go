package store

import (
	"fmt"
	"io"
	"os"
	"time"

	"capture/internal/volume"
	"capture/store/disk"
	"capture/store/loss"
	"capture/store/manifest"
)

// Adopt makes feedback.json from a state that comes from elsewhere, if there is no feedback.json yet. m describes the state,
// and data yields its JSON. Adopt reports false if there is a file, or if a Write has made one in the meantime. A Write need
// not wait while Adopt copies the data. The next Write compares the adopted file with the new rows, as if an earlier run had
// left this file.
func (f *File) Adopt(m manifest.Manifest, data io.Reader) (adopted bool, err error) {
	if adopted, err = f.adopt(m, data); err != nil {
		return false, fmt.Errorf("write %s: %w", f.dataPath, volume.WithHint(err))
	}
	return adopted, nil
}

func (f *File) adopt(m manifest.Manifest, data io.Reader) (bool, error) {
	f.mu.Lock()
	lacksFile, err := f.lacksFile()
	tmp, folder, like := f.adoptTmp(), f.folder(), f.standing.dataLike()
	f.mu.Unlock()
	if err != nil || !lacksFile {
		return false, err
	}
	// The data may be decompressed while they are read, so only the manifest gives their size. The volume must have room for
	// 5/4 of this size, so that writing the data does not fill it.
	if usage, err := volume.Measure(folder); err == nil && m.Bytes > usage.Free/5*4 {
		return false, fmt.Errorf("its %d bytes need more than the %d bytes that are free on the volume", m.Bytes, usage.Free)
	}
	defer os.Remove(tmp)
	h := manifest.NewHasher(m)
	err = disk.WriteSynced(tmp, like, func(w *os.File) error {
		// Read up to one byte more than m.Bytes, so that longer data do not match the manifest.
		_, err := io.Copy(io.MultiWriter(w, h), io.LimitReader(data, m.Bytes+1))
		return err
	})
	if err != nil {
		return false, err
	}
	if mismatch := h.Mismatch(m); mismatch != "" {
		return false, fmt.Errorf("it is not what its manifest describes: %s", mismatch)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if lacksFile, err := f.lacksFile(); err != nil || !lacksFile {
		return false, err
	}
	m.Kept, m.Horizon = nil, nil // a horizon would make the next run trust rows that may differ from the table's
	f.existing.checked = false   // if one of the next steps fails, the next Write inspects the folder
	if err := f.renameBoth(tmp, m); err != nil {
		return false, err
	}
	info, err := os.Lstat(f.dataPath)
	if err != nil {
		return false, err
	}
	f.published.add(info)
	f.standing.setData(info)
	f.existing = existing{checked: true, intact: true, manifest: m}
	f.rowCounts = loss.RowCountsOf(&m, time.Now())
	return true, nil
}

// renameBoth renames the synced file at tmp to its final name, and writes m as its manifest. The order of the steps is the
// same as in replaceBoth.
func (f *File) renameBoth(tmp string, m manifest.Manifest) error {
	err := f.writeManifest(m)
	if err == nil {
		err = f.lock.verify()
	}
	if err == nil {
		err = f.share.rename(tmp, f.dataPath)
	}
	if err != nil {
		os.Remove(f.manifestTmp())
		return err
	}
	if err := f.renameManifest(); err != nil {
		return err
	}
	return disk.SyncFolder(f.folder())
}

// lacksFile reports whether three conditions are met: there is no file now, Open found no file, and this run has not written
// one.
func (f *File) lacksFile() (bool, error) {
	if err := f.ensureLocked(); err != nil {
		return false, err
	}
	return !f.hasWritten && !f.existing.intact && f.existing.quarantine == "" && !disk.Exists(f.dataPath), nil
}
