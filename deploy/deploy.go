// Package deploy holds what runs capture elsewhere. Go needs only the SQL of it.
package deploy

import _ "embed"

// NotifyStatements is the body of the trigger function that sends changed keys once a statement, NotifyRows of the one
// that does so once a row. SQL expressions stand for what depends on the table: {channel} for the channel's name,
// {counter} for that of a setting that counts, {key of r}, {key of NEW}, {key of OLD} for a row's key as JSON text.
var (
	//go:embed sql/notify_statements.sql
	NotifyStatements string
	//go:embed sql/notify_rows.sql
	NotifyRows string
)
