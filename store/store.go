// Package store is what capture keeps on disk: feedback.json with its manifest, its lock and its kept states.
//
// A [File] is feedback.json. [Open] takes its lock, so there is one writer, and [File.Write] replaces the file by a complete
// and synced one. The [Manifest] beside it describes which state of the table the file holds and has its SHA-256, so
// anybody can distinguish a complete file from a damaged one, whenever the writer was killed.
//
// A Write goes through these files, in this order:
//
//	write.go            the steps, their order, and what a crash leaves after each of them
//	write_strategy.go   how a version gets to disk: from which size it is patched, and when it is written whole
//	patch.go            patches the shadow file or a clone; inplace_linux.go says why readers do not notice
//	sequential.go       writes a whole file, and hashes it meanwhile
//	digest.go           the SHA-256 of a file of which little has changed
//	tempfile.go         who has the temporary name
//	share.go            what is different on a network share; filesystem.go finds out what it can do
//
// The rest goes on around it:
//
//	existing.go         what Open checks of the file that is there, and how much of it is hashed
//	quarantine.go       how a damaged file is kept
//	writeahead.go       writes a file while its table is still being copied
//	idle.go             completes the manifest and copies the shadow file while nothing changes
//	detect.go           whether the standing file must be kept before it is replaced; compare.go compares the rows
//	keep.go             keeps states, and drops them; keptcompress.go compresses them, losses.go ends losses
//	keptstate.go        lists kept states for everybody; keptnames.go has their names
//
// Package [capture/store/placement] decides where the rows lie in a file that is patched, [capture/store/retention] which earlier
// states stay.
package store
