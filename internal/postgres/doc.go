// Package postgres is the database side of capture: connections whose sessions print every value in the same way, what the
// catalog says of a table, the publication and the triggers that capture needs, and explanations of what goes wrong.
//
// # How it is used
//
// [ParseConfig] turns a URL into a configuration, [Connect] opens a session, and [ConnectReplication] opens the connection
// for the stream. [LoadTable] reads a table's shape and what decides how it can be followed. [LoadServerAndTable] does so
// together with what there is to know of the server. [EnsurePublication] returns a publication to stream from, unless
// publishing the table would harm the application. [CheckTriggers] checks that triggers notify of every change. [SetupSQL] and
// [LoadTeardown] return the statements of capture setup and capture teardown; [Diagnose] is capture doctor.
//
// [Explain] turns an error into a [Problem]: what happened, why, and what to do. [Classify] returns what an error means for the
// choice of a source.
//
// # What is where
//
// Connections:
//
//   - config.go, config_check.go: connection URLs, DSNs and libpq's environment; which of them are refused
//   - dial.go, dial_linux.go, dial_other.go: TCP keepalive and timeouts
//   - connect.go, connect_replication.go: ordinary and replication connections; wal_sender_timeout
//   - session_settings.go: the settings that every session pins, and transactions behind a pooler
//   - queryconn.go: a shared connection for short queries next to a stream
//   - idletimeout.go: how long a server may send nothing
//   - lsn.go: WAL positions
//
// The server and the table:
//
//   - server.go: the server's version, settings and limits, and whether it can publish
//   - table.go, table_checks.go: a table, and which tables are refused
//   - resolve.sql, own_names.sql, catalog.sql, catalog.go: the statements that find a table and read its catalog, and the table
//     that the result becomes
//   - types.go: how the values of a type become JSON
//   - queries.go: the select list, COPY, rows by key, generated columns
//   - replica_identity.go: whether UPDATE and DELETE of a published table would work
//   - fingerprint.go: whether the table's shape or its publication has changed
//   - table_name.go, quote.go: names as people write them, and quoted for SQL
//
// What capture creates in a database:
//
//   - object_names.go: the names of the publication, the trigger function and the channel; comments
//   - publication.go: finds, creates, repairs and drops the publication
//   - triggers.go, notification.go: triggers and what they send (their bodies are in deploy/sql)
//   - setup.go, teardown.go: capture setup and capture teardown
//   - ddl.go: runs such statements, with their lock timeout
//   - provider.go: how managed services grant rights and change settings
//
// What goes wrong:
//
//   - problem.go: Problem
//   - explain.go, explain_network.go: explanations of errors, of the network and of TLS
//   - sqlstate.go: the SQLSTATEs with their class, reason and hint
//   - redact.go: errors of rows, without the rows' values
//   - open_transactions.go: transactions that a new slot waits for
//   - doctor.go, doctor_sources.go: capture doctor; what each source needs
package postgres
