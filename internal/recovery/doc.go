// Package recovery brings feedback.json back: [Restore] puts it into a Postgres table, all or nothing, and [Verify]
// checks it against its manifest and against the table.
//
// Both read the file as a stream, a row at a time, whatever its size: plain, gzipped or from a pipe, written by capture
// (a row a line) or by another program (any white space).
//
// Values go the way that row_to_json came: each JSON value is turned into the text form that its column's type reads, and
// Postgres' own input functions read it, through COPY. So what was exact in the file is exact in the table.
//
// Errors name the line of the file and the row's key, never what the row says.
package recovery
