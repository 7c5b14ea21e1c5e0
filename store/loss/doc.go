// Package loss finds out what would be lost if a state of the table replaced a file.
//
// A [Comparison] reads the rows of the file and of a View, both in key order. It counts the rows that are gone or have other
// values. [Comparison.Loss] decides whether these rows are a loss. It also uses the [RowCounts] of the last hour, because
// rows may disappear in small steps. [IsBack] decides whether a loss has ended, and [IsRepair] whether a later loss is the repair of
// an earlier loss.
package loss
