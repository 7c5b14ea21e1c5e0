// Package verify compares a state of a table with its file and with the table itself.
//
// [Verify] checks a feedback.json: against its manifest, its JSON and the order of its keys and, if it is given a database,
// each row against the table's. [Compare] compares any state, such as the rows in memory, with the table; the daemon runs it
// regularly.
//
// A comparison reads the table once, in one snapshot. It sorts the keys with a hash of each row, since the database's order of
// keys is not the file's: in memory up to 64 MB, beyond that in a temporary file. Then it walks both in order. If others write
// to the table meanwhile, rows that differ are only candidates, which a second snapshot confirms: see [Comparison].
package verify
