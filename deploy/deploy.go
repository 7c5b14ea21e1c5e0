// Package deploy contains the files for running capture in production: service units, manifests, monitoring and SQL. Go code
// uses only the SQL.
package deploy

import _ "embed"

// NotifyPerStatement and NotifyPerRow are the bodies of trigger functions that send the keys of changed rows.
// NotifyPerStatement is for triggers that fire once per statement, NotifyPerRow for triggers that fire once per row. Before
// use, replace each placeholder with SQL: {channel} with the channel's name as a string literal, {channel identifier} with
// the same name as an identifier, {counter} with the name of a setting that counts a transaction's rows, and {key of r},
// {key of NEW} and {key of OLD} with expressions for a row's key as JSON text.
var (
	//go:embed sql/notify_per_statement.sql
	NotifyPerStatement string
	//go:embed sql/notify_per_row.sql
	NotifyPerRow string
)
