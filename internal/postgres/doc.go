// Package postgres is the database side of capture. It opens connections whose sessions print every value in the same way,
// reads a table's definition from the catalog, manages the publication and the triggers that capture needs, and explains
// errors.
//
// # Use
//
// [ParseConfig] turns a URL into a configuration, [Connect] opens a session, and [ConnectReplication] opens the connection for
// the stream. [LoadTable] reads a table's shape and the facts that decide which sources can follow the table.
// [LoadServerAndTable] also reads the server's version and settings. [FindPublication] returns a publication to stream from,
// unless publishing the table would harm the application; [EnsurePublication] also creates or repairs the publication.
// [CheckTriggers] checks that triggers notify of every change. [SetupSQL] and [LoadTeardown] return the statements of capture
// setup and capture teardown. [Diagnose] makes the checks of capture doctor.
//
// [Explain] turns an error into a [Problem]: what happened, why, and what to do. [Classify] returns what an error means for
// the choice of a source.
//
// # Files
//
// Connections:
//
//   - config.go, config_check.go, config_libpq.go: parse and check connection URLs, DSNs and libpq's environment
//   - dial.go, dial_linux.go, dial_other.go: TCP keepalive and timeouts
//   - connect.go, connect_replication.go: ordinary and replication connections; wal_sender_timeout
//   - session_settings.go: the settings that every session pins, and transactions behind a pooler
//   - queryconn.go: a shared connection for short queries alongside a stream
//   - idletimeout.go: how long a server may send nothing
//   - coalesce.go, coalesce_linux.go, coalesce_other.go: delayed reads of a busy stream
//   - readbuffer.go, rowlimit.go: large reads, and rows that do not fit into memory
//   - lsn.go: WAL positions
//
// The server and the table:
//
//   - server.go: the server's version, settings and limits, and whether it can publish
//   - table.go, table_checks.go: a table, and which tables are refused
//   - target.go: a table that is written or compared, and not followed
//   - resolve.sql, own_names.sql, catalog.sql.tmpl, catalog_query.go: find a table and read its catalog
//   - catalog.go: make a Table of the catalog's documents
//   - types.go: how the values of a type become JSON, and which types are unstable
//   - queries.go: the select list, COPY, rows by key, generated columns
//   - lock.go: locks a table's definition, and begins a transaction that reads the table
//   - horizon.go: what one snapshot of the database shows, and the rows that have changed since then
//   - replica_identity.go: whether UPDATE and DELETE of a published table would work
//   - fingerprint.go: whether the table's shape or its publication has changed
//   - storage.go: whether the table is stored as a heap
//   - table_name.go, quote.go: parse table names, and quote names and strings for SQL
//
// What capture creates in a database:
//
//   - object_names.go: the names of the publication, the trigger function and the channel; comments
//   - publication.go: finds, creates, repairs and drops the publication
//   - withdraw_publication.go: drops capture's publications that make the application's writes fail
//   - triggers.go, notification.go: triggers and what they send (their bodies are in deploy/sql)
//   - setup.go, teardown.go: capture setup and capture teardown
//   - ddl.go: runs the statements of setup and teardown, with a lock timeout
//   - azure.go: Microsoft Entra tokens in place of passwords
//   - provider.go: how managed services grant rights and change settings
//
// Errors:
//
//   - problem.go: Problem
//   - explain.go, explain_network.go: explanations of errors of the server, the network and TLS
//   - sqlstate.go: the SQLSTATEs with their class, reason and hint
//   - redact.go: errors about rows, without the rows' values
//   - open_transactions.go: transactions that a new slot waits for
//   - doctor.go, doctor_sources.go, doctor_columns.go: capture doctor; what each source needs; columns whose values in the file
//     may be stale or incomplete
//
// The text of a finding of capture doctor is in the file with the check that made it:
//
//   - table_checks.go: tables that capture refuses
//   - server.go: servers that capture refuses
//   - publication.go, replica_identity.go: publications that capture refuses
//   - triggers.go: triggers that capture refuses
//   - explain.go, sqlstate.go: errors that the server itself returns
//   - doctor.go, doctor_sources.go, doctor_columns.go: all other findings about the database
//   - cmd/capture/doctor.go: findings about this machine
//
// Each source also makes the checks in the first four items, as far as it needs them.
package postgres
