package restore

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5"

	"capture/internal/foreign"
	"capture/internal/postgres"
	"capture/store/manifest"
)

// creation creates a table from a manifest. The manifest is untrusted: anybody may have written it. Therefore capture quotes
// the manifest's names, and lets the server resolve the type names. capture uses only expressions that can do no harm,
// unless the user asked for all expressions.
type creation struct {
	tx          pgx.Tx
	name        postgres.Name
	manifest    *manifest.Manifest
	expressions bool // whether the user asked for all expressions: see [Options]
	virtual     bool // whether the server supports virtual generated columns

	schema     string   // schema in which the table was created
	collations []string // SQL name of each column's collation; "" for the type's default
	period     bool     // whether the key is created WITHOUT OVERLAPS
	partition  bool     // whether the table is created with the manifest's partitions
	partitions int      // number of partitions that were created so far

	names     typeNames
	types     []serverType // type of each column
	generated []bool       // whether each column is created as a generated column
	leftOut   bool         // whether capture left out an expression that --expressions would have included
	notes     []string     // sentences for the user about differences from the manifest
}

// serialType returns the pseudo-type, such as serial, with which CREATE TABLE creates a sequence for column i. It returns ""
// if the column's default does not call nextval.
func (c *creation) serialType(i int) string {
	types := map[string]string{"smallint": "smallserial", "integer": "serial", "bigint": "bigserial"}
	column := &c.manifest.Columns[i]
	if !strings.HasPrefix(column.Default, "nextval(") || column.Generated != "" || column.Identity != "" {
		return ""
	}
	return types[c.types[i].sql]
}

// leaveOut adds a note that column i is created without its expression, and why. canInclude is true if the user can include
// the expression with --expressions.
func (c *creation) leaveOut(i int, reason string, canInclude bool) {
	column := &c.manifest.Columns[i]
	what := "is created without its default, "
	if column.Generated != "" {
		what = "is created as an ordinary column with the file's values, not GENERATED ALWAYS AS "
	}
	c.leftOut = c.leftOut || canInclude
	c.notes = append(c.notes, fmt.Sprintf("column %s %s%s: %s", foreign.Text(postgres.QuoteIdentifier(column.Name)), what, foreign.Text(column.Default), reason))
}

// noteRefused returns nil and records a note if the server, or capture itself, has refused a part of the manifest with err.
// It returns any other error unchanged.
func (c *creation) noteRefused(err error, what string) error {
	var unknown *typeError
	switch {
	case err == nil:
		return nil
	case errors.Is(err, errNotSimple), errors.As(err, &unknown):
		c.notes = append(c.notes, what+": "+foreign.Text(err.Error()))
	case isRefusal(err) && !slices.Contains([]string{invalidSchemaName, insufficientPrivilege}, postgres.SQLState(err)):
		c.notes = append(c.notes, what+": "+postgres.RedactedMessage(err))
	default:
		return err
	}
	return nil
}

func (c *creation) noteOnce(note string) {
	if !slices.Contains(c.notes, note) {
		c.notes = append(c.notes, note)
	}
}
