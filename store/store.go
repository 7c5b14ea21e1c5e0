// Package store is what capture keeps on disk: feedback.json with its manifest, its lock and its earlier states.
//
// A [File] is feedback.json. [Open] takes its lock, so there is one writer, and [File.Write] replaces the file by a complete
// and synced one. The [Manifest] beside it describes which state of the table the file holds and has its SHA-256, so
// anybody can distinguish a complete file from a damaged one, whenever the writer was killed.
package store
