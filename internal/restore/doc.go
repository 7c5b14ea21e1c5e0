// Package restore writes feedback.json into a Postgres table in one transaction: all of its rows or, on any error, none.
//
// The conversion is the reverse of row_to_json: each JSON value becomes the text form of its column's type. COPY passes that
// text to the type's input function. So a value that is exact in the file is exact in the table.
//
// If the table is empty, or if any conflict ends the restore, the rows are copied directly into the table. Otherwise, or if
// something in the database acts on rows, they are first copied into a temporary table and compared with the table's rows. Then
// one statement deletes, updates and inserts: see stagedMerge. The goal is a state: the table becomes what the file says, or
// nothing changes. All reported numbers of rows come from Postgres.
//
// The file is read as a stream. Memory holds two batches of rows, of about 2 MB each unless a single row is larger.
//
// Errors name the line and the key of a row, but no other value. If the server refuses a batch, applyRows searches it for the
// row.
package restore
