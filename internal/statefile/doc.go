// Package statefile reads feedback.json one row at a time. The file may be plain, compressed by gzip or zstd, or a pipe.
// capture writes one row per line. Another program may have written the file with other white space, as JSON lines, or in
// UTF-16. compression.go recognizes the compression and UTF-16 by the file's first bytes. signature.go recognizes the kinds
// of files that are refused.
//
// [Open] opens a file and its manifest. A [Reader] yields the rows. Only the current row is in memory, regardless of the size
// of the file. [File.CheckManifest] then compares everything that was read with the manifest. A [KeyReader] computes the keys
// of the rows. [LoadView] does all of this in one call, for a daemon that starts while the database is down.
//
// This is a separate package because restore, verify and the daemon read the same file by the same rules. It is not part of
// package store, which writes the file: reading needs a JSON decoder and the types of the columns, and writing needs neither.
//
// Values stay exact: a [Member] holds the bytes of the file, so digits, escapes, the order of names and repeated names stay as
// they are.
//
// Errors give a line and a reason. They never quote the file, because its rows contain users' texts.
package statefile
