package restore

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"capture/internal/foreign"
	"capture/internal/postgres"
	"capture/internal/statefile"
	"capture/store/manifest"
)

// loadTable loads the table that the file is restored to. A table without a key gets the key in the manifest.
func (r *restoration) loadTable(ctx context.Context, q postgres.Querier) (*postgres.Table, error) {
	var key []string
	if m := r.file.TableManifest(); m != nil {
		key = m.Key
	}
	return postgres.LoadTarget(ctx, q, r.file.Table(r.options.Table), key)
}

// isTableMissing reports whether loadTable failed because the table does not exist.
func isTableMissing(err error) bool {
	var problem *postgres.Problem
	return errors.As(err, &problem) && problem.TableMissing()
}

// prepareTable loads or creates the table, maps the file's columns to it, and loads its hooks.
func (r *restoration) prepareTable(ctx context.Context) (err error) {
	load := func() (err error) {
		r.table, err = r.loadTable(ctx, r.tx)
		return err
	}
	err = peek(ctx, r.tx, load)
	name := r.file.Table(r.options.Table)
	switch {
	case isTableMissing(err) && !r.options.Create:
		hint := "use --create to create it from the manifest"
		if r.file.TableManifest() == nil {
			hint = r.describeCreation()
		}
		return &postgres.Problem{
			Summary: fmt.Sprintf("table %s does not exist in this database", name), Err: err,
			Hint: hint + "; or name another one with --table",
		}
	case isTableMissing(err) && r.file.TableManifest() == nil:
		return &postgres.Problem{
			Summary: fmt.Sprintf("table %s does not exist, and there is no manifest beside the file to create it from", name), Err: err,
			Reason: "the JSON does not say the columns' types, the key and the defaults",
			Hint:   r.describeCreation(),
		}
	case isTableMissing(err):
		if r.result.Notes, err = createTable(ctx, r.tx, name, r.file.TableManifest(), r.options.Expressions); err != nil {
			return err
		}
		r.result.Created = true
		err = load()
	}
	if err != nil {
		return err
	}
	r.table.UnprovenKey = r.table.UnprovenKey || r.result.Created // the key of a created table comes from the manifest
	r.result.Table, r.result.DryRun = r.table.Name().String(), r.options.DryRun
	if r.columns, err = r.mapColumns(r.table); err != nil {
		return err
	}
	if r.columns != nil {
		r.result.Notes = append(r.result.Notes, r.columns.notes...)
	}
	return peek(ctx, r.tx, func() (err error) {
		r.hooks, r.hooksDocument, err = loadHooks(ctx, r.tx, r.table)
		return err
	})
}

// describeCreation says how to create the table if the file has no manifest.
func (r *restoration) describeCreation() string {
	beside := "give the path of the file, with its manifest beside it"
	if r.options.Path != "-" {
		beside = "put a manifest of this table at " + foreign.ShellPath(manifest.Path(r.options.Path))
	}
	return "create the table as the application does, for example with its migrations, and restore without --create; or " +
		beside + ", and use --create, with --edited if the file is not the one that the manifest describes"
}

// mapColumns returns the columnMap for a table, or nil if the file has no rows.
func (r *restoration) mapColumns(table *postgres.Table) (*columnMap, error) {
	if r.rows.Rows() == 0 {
		return nil, nil
	}
	if r.options.MissingNull {
		r.rows.AddNulls(statefile.NullableColumns(table.Shape, r.file.Manifest()), &r.first)
	}
	if where := statefile.DescribeNesting(table.Shape, r.first.Members); where != "" {
		return nil, fmt.Errorf("the file has no rows of table %s at its top level: %s", table.Name(), where)
	}
	return mapColumns(table, r.first.Members, r.file.Manifest())
}

// chooseWay decides how the rows get into the table. It chooses a direct copy into the table if these conditions are met:
//
//   - Nothing in the database can leave out or change the rows.
//   - The file's values of generated columns can't differ from the results of the table's expressions.
//   - The table has no foreign key to itself that is checked at the end of each statement.
//   - The defaults and CHECK constraints compute the same with capture's settings as with the session's own: see withOwnSettings.
//   - The table is empty, or the first conflict ends the restore.
//   - A dry run does not have to count the conflicts.
//
// Otherwise the rows are first copied into a temporary table, which needs no lock on the target table.
func (r *restoration) chooseWay(ctx context.Context) error {
	o := &r.options
	err := peek(ctx, r.tx, func() error {
		if err := lockToRead(ctx, r.tx, r.table); err != nil {
			return err
		}
		return r.checkEmpty(ctx)
	})
	if err != nil {
		return err
	}
	events := triggerInsert
	if !r.empty && o.OnConflict == Overwrite {
		events |= triggerUpdate | triggerDelete
	}
	if !r.empty && o.DeleteExtra {
		events |= triggerDelete
	}
	r.hooks.dropOtherEvents(events)
	if !o.DisableTriggers {
		r.hooks.dropDisabled(false, false)
	}
	generated := r.columns != nil && r.columns.generatedDiffer(r.file.Manifest())
	plain := r.empty || o.OnConflict == Fail && !o.DeleteExtra
	mayChange := r.hooks.mayChange(!plain)
	if o.DisableTriggers { // triggers with ENABLE ALWAYS or ENABLE REPLICA may act nevertheless
		mayChange = slices.ContainsFunc(r.hooks.Triggers, func(t trigger) bool { return t.Enabled != "O" })
	}
	staged := r.columns != nil && (!plain || mayChange || r.hooks.selfReference() || generated)
	if !r.empty && !r.table.HasKey() {
		return explainNoKey(r.table)
	}
	if !staged && r.columns != nil {
		if staged, err = r.dependsOnSettings(ctx); err != nil {
			return err
		}
	}
	if err := checkRights(ctx, r.tx, r.table, r.columns, o, staged); err != nil {
		return err
	}
	// In a dry run, count all conflicts instead of only finding the first. A table with rules is an exception: rules change the
	// INSERT of a merge, but not a COPY.
	if !staged && r.columns != nil && o.DryRun && !r.empty && len(r.hooks.Rules) == 0 {
		staged = checkTemporary(ctx, r.tx, "capture counts conflicts in a temporary table") == nil
	}
	if !staged {
		return nil
	}
	return r.stage(ctx, generated)
}

// dependsOnSettingsSQL is a query that returns true if the session's own settings differ from capture's, and if the
// expression of a default or a CHECK constraint may depend on settings. Such an expression calls a function that is not
// IMMUTABLE, converts a value to or from text, or contains a keyword such as CURRENT_DATE. $1 is the table's OID, $2 the
// columns of the file.
var dependsOnSettingsSQL = `
	SELECT ` + postgres.OwnSettingsDifferSQL + ` AND EXISTS (
		SELECT FROM (
			SELECT k.conbin::text FROM pg_catalog.pg_constraint k WHERE k.contype = 'c' AND k.conrelid IN ` + postgres.TreeSQL("$1::bigint") + `
			UNION ALL
			SELECT d.adbin::text FROM pg_catalog.pg_attrdef d JOIN pg_catalog.pg_attribute a ON a.attrelid = d.adrelid AND a.attnum = d.adnum
			WHERE d.adrelid = $1::bigint::oid AND a.attgenerated = '' AND a.attname::text <> ALL ($2::text[])
		) e(tree)
		WHERE e.tree ~ '[{](COERCEVIAIO|SQLVALUEFUNCTION)' OR EXISTS (
			SELECT FROM pg_catalog.regexp_matches(e.tree, ':(?:func|opfunc)id ([0-9]+)', 'g') m JOIN pg_catalog.pg_proc p ON p.oid = m[1]::oid
			WHERE p.provolatile <> 'i'))`

// dependsOnSettings reports whether a default or a CHECK constraint may compute something else with capture's settings than with
// the session's own.
func (r *restoration) dependsOnSettings(ctx context.Context) (depends bool, err error) {
	err = r.tx.QueryRow(ctx, dependsOnSettingsSQL, int64(r.table.OID), r.columns.names).Scan(&depends)
	return depends, explain("read the constraints of table "+r.result.Table, err)
}

// stage copies the file's rows into a temporary table.
func (r *restoration) stage(ctx context.Context, generatedDiffer bool) error {
	r.merge = &stagedMerge{tx: r.tx, columns: r.columns, table: r.table, options: &r.options, result: &r.result, hooks: r.hooks, progress: r.progress,
		generatedDiffer: generatedDiffer}
	r.merge.prepare()
	if err := r.merge.createStaging(ctx); err != nil {
		return err
	}
	l := r.newLoader(stagingTable, true)
	l.numbered = !r.merge.wide
	if err := r.checkFile(ctx, l.load(ctx, r.first)); err != nil {
		return err
	}
	return nil
}

// checkEmpty records in r.empty whether the table has no rows.
func (r *restoration) checkEmpty(ctx context.Context) error {
	err := r.tx.QueryRow(ctx, "SELECT NOT EXISTS (SELECT FROM "+r.table.FromClause()+")").Scan(&r.empty)
	return explain("read table "+r.result.Table, err)
}

// lockTable locks the table, and checks that nobody has changed it in a way that the restore does not expect: see
// checkUnchanged.
func (r *restoration) lockTable(ctx context.Context) error {
	if err := lockTable(ctx, r.tx, r.table, &r.options, r.progress); err != nil {
		return err
	}
	return r.checkUnchanged(ctx)
}

// checkUnchanged is called after the table has been locked. It returns an error in three cases:
//
//   - The table's definition, or a trigger, rule or foreign key, has changed since the restore was prepared.
//   - The table has more rows than the user agreed to lose.
//   - The restore relies on an empty table, and the table is no longer empty.
func (r *restoration) checkUnchanged(ctx context.Context) error {
	if !r.result.Created {
		now, err := r.loadTable(ctx, r.tx)
		if err != nil {
			return err
		}
		if now.Fingerprint != r.table.Fingerprint {
			return &postgres.Problem{
				Summary: fmt.Sprintf("somebody changed the definition of table %s meanwhile", r.result.Table),
				Hint:    "restore again",
			}
		}
	}
	if _, now, err := loadHooks(ctx, r.tx, r.table); err != nil {
		return err
	} else if now != r.hooksDocument {
		return &postgres.Problem{
			Summary: fmt.Sprintf("somebody changed the triggers, rules or foreign keys of table %s meanwhile", r.result.Table),
			Hint:    "restore again",
		}
	}
	if r.needsConfirmation() {
		rows, err := countRows(ctx, r.tx, r.table)
		if err != nil {
			return err
		}
		if rows > r.confirmed {
			return &postgres.Problem{
				Summary: fmt.Sprintf("table %s has %d rows now, and had %d when you were asked", r.result.Table, rows, r.confirmed),
				Reason:  "the new ones could be lost",
				Hint:    "stop what writes to the table and try again, or use --yes, which does not ask",
			}
		}
	}
	wasEmpty := r.empty
	if err := r.checkEmpty(ctx); err != nil || r.empty || !wasEmpty {
		return err
	}
	if r.options.OnConflict == Fail && !r.options.DeleteExtra && r.table.HasKey() {
		return nil // a conflict ends the restore anyway
	}
	return &postgres.Problem{
		Summary: fmt.Sprintf("table %s was empty, and somebody has written to it meanwhile", r.result.Table),
		Hint:    "restore again",
	}
}
