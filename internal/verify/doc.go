// Package verify checks feedback.json, and compares a state of a table with the table itself.
//
// [Verify] checks a feedback.json: it compares the file with its manifest, and checks its JSON and the order of its keys. Given
// a database, it also compares each row with the table's row. [Compare] compares any state, such as the rows in memory, with
// the table. The daemon calls Compare regularly.
//
// A comparison reads the table in one snapshot. It sorts the keys, each with a hash of its row, because the database may order
// keys differently from the file. The sort uses up to 64 MB of memory, and beyond that a temporary file. Then the comparison
// walks the state and the sorted keys in parallel. A file without a manifest comes from another program. Its rows may be in any
// order and form: its keys are sorted, too, and its rows are compared by their values (valuehash.go). If other sessions write
// to the table during a comparison, rows that differ are only candidates, which a second snapshot must confirm: see [Compare].
// A comparison ends if another session waits for a lock on the table (lockwatch.go).
package verify
