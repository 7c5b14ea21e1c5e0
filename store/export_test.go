package store

import (
	"os"
	"path/filepath"
	"testing"
)

// SetAtRename has fn called between the two renames of a Write.
func SetAtRename(fn func()) { atRename = fn }

// SetPatchBytes has files be patched from that size on.
func SetPatchBytes(n int64) { patchBytes = n }

// SetBlockBytes has blocks be of that length.
func SetBlockBytes(n int64) { blockBytes = n }

// SetCompleteBytes has so many bytes be hashed for a change alone, and in a step of Complete.
func SetCompleteBytes(n int64) { completeBytes = n }

// CanPatch says whether files in dir can be patched; else they are written whole, and tests see that alone.
func CanPatch(t *testing.T, dir string) bool {
	path := filepath.Join(dir, "probe")
	if err := os.WriteFile(path, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	defer os.Remove(path)
	info, err := os.Lstat(path)
	if err != nil {
		t.Fatal(err)
	}
	file := openSpare(path, info, path)
	if file == nil {
		t.Logf("on this file system no file can be patched")
		return false
	}
	return file.Close() == nil
}

// SetSpareStep sets how much of a spare is copied at a time.
func SetSpareStep(n int64) { spareStep = n }
