// Package postgres is the database side of capture: connections whose sessions print every value the same way, what
// the catalog says of a table, the publication and triggers that capture needs there, and words for what goes wrong.
//
// A connection starts with [ParseConfig] and [Connect] (or [ConnectReplication] for the stream). [LoadTable] reads a
// table's shape and the facts that decide how it can be followed; [LoadServerAndTable] does so together with what there is to
// know of the server. [EnsurePublication] says whether the stream can be had without harm to the application. [Explain] turns a server's or the network's error into a
// [Problem]: what happened, why, and what mends it.
package postgres
