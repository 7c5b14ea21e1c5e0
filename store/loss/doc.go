// Package loss finds out what would be lost if a state of the table replaced a file.
//
// A [Comparison] reads the file's rows next to the rows of a View, both in the order of their keys, and counts the rows that
// are gone or have other values. [Comparison.Loss] decides whether these rows are a loss. It also uses the [RowCounts] of the
// last hour, because rows may disappear in small steps. [IsBack] decides whether a loss has ended.
package loss
