// Package store is what capture keeps on disk: feedback.json with its manifest and its lock, and the logs.
//
// A [File] is feedback.json. [Open] takes its lock, so that there is one writer, and [File.Write] replaces it by a whole
// and synced one. Beside it stands the [Manifest], which says which state of the table it is and has its SHA-256, so that
// anybody can tell a whole file from a damaged one, whenever the writer was killed.
//
// [Logs] are usage.log and error.log. They never stop or hold up what is logged about.
package store
