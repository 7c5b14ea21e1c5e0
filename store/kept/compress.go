package kept

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/klauspost/compress/gzip"

	"capture/internal/volume"
	"capture/store/disk"
	"capture/store/manifest"
)

// Compress compresses the states that are still plain, and compares each of them with its manifest. A state that does not
// match is marked as damaged and compressed, too. A state whose data cannot be read to the end is marked as damaged, but
// stays plain. Compress returns all these states. If ctx ends or a volume fails, the remaining states stay plain, and the
// next call continues with them.
//
// In three cases, a state stays plain and gets no mark: its manifest cannot be read, its data cannot be opened, or it has no
// manifest and its data cannot be read to the end. Compress then compresses the other states, and returns the last such error.
//
// Other methods may run at the same time. Compress runs at the lowest priority and, if the file system supports it, reads
// past the page cache.
func (k *States) Compress(ctx context.Context) (compressed []State, failed error) {
	k.compressing.Lock()
	defer k.compressing.Unlock()
	for _, s := range k.List() {
		if !s.isPlain() || s.isUnreadable() {
			continue
		}
		done, err := k.compress(ctx, s)
		if errors.Is(err, errDropped) || err != nil && isGone(s.Path) && isGone(k.names.compressed(s.id)) {
			// Another process dropped the state while compress ran, or just before. Remove the files that compress has written.
			// (If only the plain data are gone, compress itself may have removed them before it failed. So the condition also
			// checks the compressed data.)
			if err := k.drop(s.id); err != nil {
				return compressed, err
			}
			continue
		}
		if err == nil {
			compressed = append(compressed, done)
			continue
		}
		failed = fmt.Errorf("compress %s: %w", filepath.Base(s.Path), volume.WithHint(err))
		if !errors.As(err, new(*unreadableError)) {
			break // this state could be read, so the cause lies elsewhere, and the next state would probably fail, too
		}
	}
	return compressed, failed
}

// unreadableError means that a state cannot be compressed because its data or its manifest cannot be read. Other states may
// still be readable.
type unreadableError struct{ error }

func (e *unreadableError) Unwrap() error { return e.error }

// isGone reports whether there is no file at path. It reports false if there is a file, or if Lstat fails for another
// reason.
func isGone(path string) bool {
	_, err := os.Lstat(path)
	return disk.IsMissing(err)
}

// isUnreadable reports whether the state stays plain because it could not be read completely.
func (s *State) isUnreadable() bool {
	return s.isPlain() && strings.HasPrefix(s.Damaged, unreadable)
}

const unreadable = "it can't be read"

// isPlain reports whether the state is not compressed yet.
func (s *State) isPlain() bool { return s.Path == s.names.plain(s.id) }

// compress compresses a plain state. It syncs the compressed data under a temporary name, writes the manifest, renames the
// data, and removes the plain state last. Therefore a crash after any step leaves at least one complete state.
func (k *States) compress(ctx context.Context, s State) (State, error) {
	m, err := manifest.ReadAt(k.names.plainManifest(s.id))
	if err != nil && !disk.IsMissing(err) {
		return State{}, &unreadableError{err}
	}
	hasManifest := err == nil
	if m.Kept == nil {
		m.Kept = &manifest.Kept{}
	}
	path := k.names.compressed(s.id)
	tmp := k.names.tmp(path)
	defer os.Remove(tmp) // after a success, there is no file to remove
	var mismatch string
	like := disk.StatRegular(s.Path)
	err = disk.WithIdlePriority(func() error {
		return disk.WriteSynced(tmp, like, func(w *os.File) (err error) {
			mismatch, err = compressFile(ctx, w, s.Path, &m)
			return err
		})
	})
	if read := (*disk.ReadError)(nil); errors.As(err, &read) {
		if !hasManifest {
			return State{}, &unreadableError{err}
		}
		// The state stays plain, because somebody may still be able to use the readable part.
		m.Kept.Damaged = unreadable + ": " + read.Error()
		if err := k.writeManifest(k.names.plainManifest(s.id), m, like); err != nil {
			return State{}, err
		}
		return k.register(s.id)
	}
	if err != nil {
		return State{}, err
	}
	if hasManifest {
		m.Kept.Damaged = mismatch
		if err := k.writeManifest(k.names.manifest(s.id), m, like); err != nil {
			return State{}, err
		}
	}
	if err := os.Rename(tmp, path); err != nil {
		return State{}, err
	}
	// Another process may be dropping the state. It removes the plain data first and the compressed data later. So if the
	// plain data still exist now, that process will also remove the compressed data, which are in place already.
	if isGone(s.Path) {
		return State{}, errDropped
	}
	if err := disk.SyncFolder(k.names.folder); err != nil {
		return State{}, err
	}
	k.names.removePlain(s.id)
	return k.register(s.id)
}

// errDropped means that a state was dropped while it was being compressed.
var errDropped = errors.New("the state was dropped meanwhile")

// compressionLevel balances size against processor time. Measured with 1 GB of votes: compress/gzip makes them 2.75 times
// smaller at 137 MB/s with level 1, and 3.00 times at 57 MB/s with level 6. The klauspost package makes them 2.80 times smaller
// at 220 MB/s with level 1, and 2.99 times at 141 MB/s with level 5.
const compressionLevel = 5

// compressFile reads the file at path, and writes it to w in compressed form. If the file matches m, compressFile sets the
// SHA-256 in m. Otherwise mismatch describes how they differ.
func compressFile(ctx context.Context, w io.Writer, path string, m *manifest.Manifest) (mismatch string, err error) {
	file, err := disk.OpenRegular(path)
	if err != nil {
		return "", &unreadableError{err}
	}
	defer file.Close()
	z, err := gzip.NewWriterLevel(w, compressionLevel)
	if err != nil {
		return "", err
	}
	z.Name, z.ModTime = filepath.Base(path), m.WrittenAt
	h := manifest.NewHasher(*m)
	err = disk.ReadPastCache(ctx, file, func(b []byte) error {
		h.Write(b)
		_, err := z.Write(b)
		return err
	})
	if err != nil {
		return "", err
	}
	if mismatch = h.Mismatch(*m); mismatch == "" {
		m.SHA256, m.Blocks = h.SHA256(), nil
	}
	return mismatch, z.Close()
}
