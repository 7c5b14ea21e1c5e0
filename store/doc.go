// Package store keeps feedback.json on disk, with its manifest, its lock and its kept states.
//
// A [File] is feedback.json. [Open] locks the file, so only one process writes it. [File.Write] replaces the file by a new
// file that is complete and synced. The [manifest.Manifest] in the same folder records which state of the table the file
// holds, and the SHA-256 of the file. With this SHA-256, anybody can distinguish a complete file from a damaged one, even if
// the writer was killed.
//
// These files implement a Write, in the order in which it uses them:
//
//	write.go            the steps, their order, and what a crash leaves after each of them
//	write_strategy.go   how a version gets to disk: when a file is patched, and when it is written whole
//	patch.go            patches the shadow file or a clone; patchinplace_linux.go explains why readers do not notice
//	writewhole.go       writes a whole file and hashes it at the same time
//	digest.go           updates the SHA-256 of a file after a small change
//	tempnames.go        the paths of the file and the manifest, and their temporary names
//	tempfile.go         manages the file that has the temporary name
//	networkshare.go     handles what differs on a network share; filesystem.go tests what the file system can do
//
// These files contain what a Write works with:
//
//	file.go             File, Open and Close; lastwritten.go has what a Write leaves on disk
//	filecontent.go      the bytes of a version
//	shadow.go           the shadow file: an earlier version or a copy of the file, which the next Write patches
//	lock.go             the lock of the file; lockword.go is for network shares, where locks may fail
//	devicechange.go     notices that the folder is on another device than at Open; mount_linux.go finds mounted files
//	birthtime_linux.go  tells a new file from a removed file with the same inode number
//	writeback_linux.go  starts to write to the disk before fsync
//
// These files do the rest:
//
//	load.go             loads the rows of the file into a Table; loadrows.go reads them, hashingreader.go hashes them
//	horizon.go          the horizon in the manifest
//	standing.go         the identities, modes and owners of the files that capture has left
//	inplace.go          notices that readers no longer find the file
//	putback.go          puts the file of an earlier run in place again before the first Write
//	existingfile.go     checks the file that Open finds, and limits how much of it is hashed
//	quarantine.go       keeps a damaged file under another name
//	adopt.go            puts a copy from elsewhere into an empty folder
//	writeahead.go       writes a file while its table is still being copied
//	idlework.go         completes the manifest and makes the shadow file while the table does not change
//	keepstate.go        decides whether the current file must be kept before it is replaced
//	diskspace.go        drops kept states for a write that lacks room
//	readback.go         reads the file and compares it with its manifest
//	reasons.go          the reasons for a Write
//	jsonlines.go        writes JSON lines to another file than feedback.json
//
// Package [capture/store/manifest] describes the file, [capture/store/loss] finds out what a Write would remove,
// [capture/store/kept] keeps earlier states, and [capture/store/disk] has the file operations that all of them use. Package
// [capture/store/placement] decides where the rows are placed in a file that is patched. Package [capture/store/retention]
// decides which earlier states stay.
package store
