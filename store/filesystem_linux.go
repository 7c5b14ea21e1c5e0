package store

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// fileSystems maps the magic numbers of statfs(2) to file systems. Any other file system counts as a network share.
var fileSystems = map[uint32]FileSystem{
	unix.EXT4_SUPER_MAGIC:      {Name: "ext4", IsLocal: true},
	unix.XFS_SUPER_MAGIC:       {Name: "XFS", IsLocal: true},
	unix.BTRFS_SUPER_MAGIC:     {Name: "Btrfs", IsLocal: true},
	unix.F2FS_SUPER_MAGIC:      {Name: "F2FS", IsLocal: true},
	unix.OVERLAYFS_SUPER_MAGIC: {Name: "overlay", IsLocal: true},
	unix.TMPFS_MAGIC:           {Name: "tmpfs", IsLocal: true},
	unix.RAMFS_MAGIC:           {Name: "ramfs", IsLocal: true},
	unix.ECRYPTFS_SUPER_MAGIC:  {Name: "eCryptfs", IsLocal: true},
	0x2fc12fc1:                 {Name: "ZFS", IsLocal: true},
	0xca451a4e:                 {Name: "bcachefs", IsLocal: true},
	unix.NFS_SUPER_MAGIC:       {Name: "NFS"},
	unix.CIFS_SUPER_MAGIC:      {Name: "SMB"},
	unix.SMB2_SUPER_MAGIC:      {Name: "SMB"},
	unix.SMB_SUPER_MAGIC:       {Name: "SMB"},
	unix.V9FS_MAGIC:            {Name: "9p"},
	unix.FUSE_SUPER_MAGIC:      {Name: "FUSE"},
	unix.CEPH_SUPER_MAGIC:      {Name: "Ceph"},
	unix.AFS_SUPER_MAGIC:       {Name: "AFS"},
}

// fileSystemAt returns the file system that holds path. Unlike ProbeFileSystem, it does not test how the file system
// behaves.
var fileSystemAt = func(path string) FileSystem {
	var st unix.Statfs_t
	if err := unix.Statfs(path, &st); err != nil {
		return FileSystem{Name: "unknown"}
	}
	fs, ok := fileSystems[uint32(st.Type)] // the type is signed on some machines
	if !ok {
		fs.Name = fmt.Sprintf("unknown (0x%x)", uint32(st.Type))
	}
	return fs
}
