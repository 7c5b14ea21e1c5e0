package store

import "testing"

// TestIsOnDisk checks that IsOnDisk reports false for a network share and for a file system in memory, so that rows are not
// spilled there.
func TestIsOnDisk(t *testing.T) {
	real := fileSystemAt
	defer func() { fileSystemAt = real }()
	f := &File{paths: newPaths(t.TempDir() + "/feedback.json")}
	for magic, want := range map[uint32]bool{0xef53: true, 0x58465342: true, 0x01021994: false, 0x858458f6: false, 0x6969: false, 0xff534d42: false} {
		fs := fileSystems[magic]
		fileSystemAt = func(string) FileSystem { return fs }
		if got := f.IsOnDisk(); got != want {
			t.Errorf("%s: %v, want %v", fs.Name, got, want)
		}
	}
}
