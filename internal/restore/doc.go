// Package restore puts feedback.json into a Postgres table, in one transaction: all of it or, on any error, nothing.
//
// Values take the way back that row_to_json took them: each JSON value becomes the text form of its column's type, which
// Postgres' own input function reads, through COPY. So what was exact in the file is exact in the table.
//
// A table that is empty, or of which no row may be replaced, is loaded directly. Otherwise the file goes into a temporary
// table first (see stagedMerge), is compared with the table there, and rows are deleted, overwritten and inserted in that
// order.
//
// The file is read as a stream. Memory holds two batches of rows, of some megabytes.
//
// Errors name the line of the file and the key of the row, and no other value. If the server refuses a batch, findRefused
// searches it for the row.
package restore
