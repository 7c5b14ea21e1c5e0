// Package rowjson converts rows between Postgres' text form and JSON.
//
// A [Shape] describes a table: its columns, how row_to_json writes each of their types, and the key. An [Encoder] receives a
// row as the text that the types' output functions print, and encodes it as one line of JSON and as a [Key]. The byte order of
// keys is the order of the rows in feedback.json. [AppendText] is the inverse: it converts a JSON value to text that the type's
// input function reads.
//
// Every line must equal the result of Postgres' own row_to_json in a session with TimeZone UTC. The tests compare the two.
package rowjson
