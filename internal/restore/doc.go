// Package restore writes feedback.json into a Postgres table in one transaction: it makes all changes or none.
//
// The conversion is the reverse of row_to_json: each JSON value becomes the text form of its column's type. COPY passes that
// text to the type's input function. So a value that is exact in the file is exact in the table.
//
// If the table is empty, or if the restore only inserts rows and ends at the first conflict, the rows are copied directly
// into the table. Otherwise, the rows are first copied into a temporary table and compared with the table's rows. Usually,
// one statement then deletes, updates and inserts rows: see stagedMerge. The restore also takes this way if triggers or
// other objects of the database may act on the rows, or if a dry run has to count the conflicts. All reported row counts
// come from Postgres.
//
// The file is read as a stream. Memory holds two batches of rows, of about 2 MB each unless a single row is larger.
//
// Errors name the line and the key of a row, but no other value. If the server refuses a batch, applyRows searches the batch
// for the refused row.
//
// # Files
//
// The restore:
//
//   - restore.go: Restore, and the steps of a restore
//   - restoration.go: the state of one restore
//   - targettable.go, confirm.go: the target table, the choice between copy and merge, and the questions to the user
//   - options.go: Options and Result
//   - progress.go: reports of how far the restore is
//   - locks.go, rights.go: the lock on the table, and the user's privileges
//   - denied.go: which privilege is missing if the server denies one
//   - sequences.go: sequences that supply values to columns
//   - disabletriggers.go: --disable-triggers
//   - deleteall.go: a file without rows
//
// From the file to COPY:
//
//   - columns.go, mapcolumns.go: the file's columns in the table
//   - valuecheck.go: values that a type would change
//   - encode.go, batch.go: rows in COPY's text format
//   - load.go, refused.go: sends the batches, and searches a refused batch for the refused row
//
// The merge by a temporary table:
//
//   - staging.go: stagedMerge and the staging table
//   - mergeplan.go: which rows to insert, overwrite and delete
//   - merge.go: merges the rows, in one of four ways
//   - mergesteps.go: the statements of the merge
//   - protected.go: rows that must not be deleted because of foreign keys, and whether foreign keys can be turned off
//   - diagnose.go: why the server refused the merge
//   - outcome.go: what became of the rows
//
// The creation of a table from the manifest:
//
//   - creation.go, create.go: the state and the steps of a creation
//   - create_statement.go, create_options.go, partitions.go: the table, its sequences and partitions
//   - defaults.go, generated.go: expressions that can do no harm
//   - typenames.go: the server's types by their names
//
// Used by several of these parts:
//
//   - hooks.go: triggers, rules and foreign keys that act on rows
//   - othertables.go: what changes in other tables
//   - transaction.go, sql.go, errors.go: savepoints and the search path, pieces of SQL, errors
package restore
