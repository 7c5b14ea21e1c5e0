// Package deploy holds what runs capture elsewhere: units, manifests, monitoring, and SQL. Go code uses the SQL only.
package deploy

import _ "embed"

// NotifyPerStatement and NotifyPerRow are the bodies of trigger functions that send the keys of changed rows: one fires once
// per statement, the other once per row. Before use, replace what depends on the table by SQL expressions: {channel} by the
// channel's name, {counter} by the name of a setting that counts a transaction's rows, and {key of r}, {key of NEW} and
// {key of OLD} by a row's key as JSON text.
var (
	//go:embed sql/notify_per_statement.sql
	NotifyPerStatement string
	//go:embed sql/notify_per_row.sql
	NotifyPerRow string
)
