// Package statefile reads feedback.json back, one row at a time: plain, gzipped or from a pipe, written by capture (a row a
// line) or by another program (any white space).
//
// [Open] opens a file with the manifest beside it. A [Reader] yields its rows; only the current row is in memory, whatever
// the size of the file. [File.CheckManifest] then compares everything that was read with the manifest. A [KeyReader] makes
// the keys of the rows. [LoadView] does all of this at once, for a daemon that starts while the database is down.
//
// It is a package of its own because restore, verify and the daemon read the same file by the same rules. It is not part of
// package store, which writes the file: reading needs a JSON decoder and the types of the columns, writing needs neither.
//
// Values stay exact: a [Member] holds the bytes of the file, so digits, escapes, the order of names and repeated names are
// those that were written.
//
// Errors give a line and a reason. They never quote the file: its rows are what users wrote.
package statefile
