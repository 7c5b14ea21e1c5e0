// Package rowjson converts rows between Postgres' text form and JSON.
//
// A [Shape] describes a table: its columns, how row_to_json writes each of their types, and the key. An [Encoder] turns a row,
// given as the text that the types' output functions print, into one line of JSON and into a [Key]. The byte order of keys is
// the order of the rows in feedback.json. [AppendText] is the way back, from a JSON value to the text that a type's input
// function reads.
//
// The reference for every line is Postgres' own row_to_json in a session with TimeZone UTC; the tests compare with it.
package rowjson
