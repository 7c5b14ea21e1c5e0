package store

import (
	"os"
	"path/filepath"
	"testing"

	"capture/store/disk"
)

// SetAtRename makes each Write call fn between its two renames.
func SetAtRename(fn func()) { atRename = fn }

// SetPatchFrom sets the smallest size of a file that is patched.
func SetPatchFrom(n int64) { patchFrom = n }

// SetBlockBytes sets the length of a block.
func SetBlockBytes(n int64) { blockBytes = n }

// SetHashPerWrite sets how many bytes a Write for a change may hash for the SHA-256 of the whole file. The limit also
// applies to each step of Idle.
func SetHashPerWrite(n int64) { hashPerWrite = n }

// SetShadowStep sets how many bytes of a shadow file are copied at a time.
func SetShadowStep(n int64) { shadowStep = n }

// KeepPriority makes WithIdlePriority call its function on the caller's thread, not on a thread of its own.
func KeepPriority() { disk.WithIdlePriority = func(f func() error) error { return f() } }

// Warning returns the warning of the next Result.
func Warning(f *File) string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.warning
}

// CanPatch reports whether files in dir can be patched. If not, every version is written whole, and the tests do not expect
// patched files.
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
	file := openShadow(path, info, path)
	if file == nil {
		t.Logf("on this file system no file can be patched")
		return false
	}
	return file.Close() == nil
}

// BeforeVerify sets a function that verify calls before it reads the lock file.
func BeforeVerify(f func()) { beforeVerify = f }

// PretendShare makes all file systems count as a network share.
func PretendShare() { fileSystemAt = func(string) FileSystem { return FileSystem{Name: "SMB"} } }
