package restore

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"capture/internal/postgres"
)

// merge merges the staged rows into the table. fileRows is the number of rows in the file. All of them must be
// staged.
func (m *stagedMerge) merge(ctx context.Context, fileRows int) error {
	m.rows = fileRows
	steps := []struct {
		doing string
		step  func(context.Context) error
	}{{"comparing", m.analyze}, {"comparing", m.refuseDuplicates}, {"comparing", m.planRows}, {"comparing", m.planDeletes}, {"writing", m.write}}
	for _, s := range steps {
		if err := m.progress.reportDuring(s.doing, func() error { return s.step(ctx) }); err != nil {
			return err
		}
	}
	return nil
}

func (m *stagedMerge) analyze(ctx context.Context) error {
	_, err := m.tx.Exec(ctx, "ANALYZE "+stagingTable)
	return explain("analyze the temporary table", err)
}

// isDisplaced reports whether a statement failed because rows block each other: a unique or exclusion constraint that
// is checked row by row found a new value that another row still had.
func isDisplaced(err error) bool {
	state := postgres.SQLState(err)
	ownRows := postgres.ErrorContext(err) == "" // an error with a context comes from a function, such as a trigger function, and may be about another table
	return errors.Is(err, errDisplaced) || ownRows && (state == uniqueViolation || state == exclusionViolation)
}

// write carries out the plan. It begins with the way that has the fewest side effects. If rows block each other, write tries
// the next way:
//
//  1. Update the rows that differ. Only rows that UPDATE can't change are deleted and inserted again.
//  2. Delete and insert again the rows that differ, except rows on which another row depends by a foreign key with an action,
//     such as ON DELETE CASCADE or ON UPDATE CASCADE. Update the excepted rows.
//  3. Do the same as in 2, but first set the columns of unique and exclusion constraints to NULL in the rows that differ. Leave
//     out columns that can't be NULL. A foreign key that would pass the NULL on, as with ON UPDATE CASCADE, rules this way out.
//  4. If the user may turn triggers and foreign keys off, turn them off, and delete and insert again all rows that differ.
//     Check the foreign keys afterwards.
func (m *stagedMerge) write(ctx context.Context) error {
	if err := m.saveSkipped(ctx); err != nil {
		return explain("compare the file with "+m.table.Name().String(), err)
	}
	const parking = 2 // index of the third way, which may violate constraints that the fourth way does not violate
	ways := []func(context.Context) (written, error){m.mergeRows, m.moveAndMerge, m.parkAndMerge, m.mergeWithoutTriggers}
	var first error // first violation of a unique or exclusion constraint; nil or errDisplaced before the first violation
	for i, way := range ways {
		var done written
		err := retryLocked(ctx, func() error {
			return withSavepoint(ctx, m.tx, func() (err error) {
				if m.baseline, err = loadCounts(ctx, m.tx, m.table); err == nil {
					done, err = way(ctx)
				}
				return err
			})
		})
		switch {
		case err == nil:
			return m.finish(ctx, done)
		case ctx.Err() != nil:
			return err
		case errors.As(err, new(*postgres.Problem)): // such as a missing right or a violated foreign key; no other way would help
			return err
		case m.planned.overwritten == 0, !isDisplaced(err) && i != parking:
			// No row is overwritten, or the rows do not block each other. So no other way would help.
			return m.explainRefused(ctx, err)
		case first == nil, errors.Is(first, errDisplaced) && isDisplaced(err):
			first = err
		}
	}
	return m.explainDisplaced(ctx, first)
}

// mergeRows is the first of the ways that [stagedMerge.write] tries.
func (m *stagedMerge) mergeRows(ctx context.Context) (w written, err error) {
	if m.moved, err = m.countMoved(ctx); err != nil {
		return w, err
	}
	if m.moved > 0 {
		if len(m.hooks.Rules) > 0 {
			return w, &postgres.Problem{
				Summary: fmt.Sprintf("%s, and table %s has rules", m.describeFixed(), m.table.Name()),
				Reason:  "such a row can only be deleted and inserted again, which rules may rewrite",
				Hint:    "use --disable-triggers, as a superuser or the table's owner",
			}
		}
		if blocked, err := m.areMovedProtected(ctx); err != nil || blocked {
			return w, errors.Join(err, errDisplaced)
		}
		if err := checkDeleteRight(ctx, m.tx, m.table); err != nil {
			return w, err
		}
	}
	return m.runSteps(ctx, m.steps())
}

// moveAndMerge is the second of the ways that [stagedMerge.write] tries. It marks the rows that must be deleted and inserted
// again, and then merges as mergeRows does.
func (m *stagedMerge) moveAndMerge(ctx context.Context) (w written, err error) {
	if len(m.hooks.Rules) > 0 {
		return w, errDisplaced
	}
	condition := "NOT p.new AND NOT p.moved"
	if protected := m.protected(); protected != "" {
		condition += fmt.Sprintf(" AND NOT EXISTS (SELECT FROM %s s JOIN %s t ON %s WHERE %s OPERATOR(pg_catalog.=) p.number AND (%s))",
			stagingTable, m.table.FromClause(), m.same(), m.number, protected)
	}
	if err := m.markMoved(ctx, condition); err != nil {
		return w, err
	}
	return m.mergeRows(ctx)
}

// parkAndMerge is the third of the ways that [stagedMerge.write] tries.
func (m *stagedMerge) parkAndMerge(ctx context.Context) (w written, err error) {
	columns, err := m.parkingColumns(ctx)
	if err != nil || len(columns) == 0 {
		return w, errors.Join(err, errDisplaced)
	}
	for i := range columns {
		columns[i] = postgres.QuoteIdentifier(columns[i]) + " = NULL"
	}
	sql := fmt.Sprintf("UPDATE %s t SET %s FROM %s AND %s", m.table.FromClause(), strings.Join(columns, ", "), m.staged("NOT p.new AND NOT p.moved"), m.same())
	err = withOwnSettings(ctx, m.tx, func() error {
		_, err := m.tx.Exec(ctx, sql)
		return err
	})
	if err != nil {
		return w, err
	}
	return m.moveAndMerge(ctx)
}

// parkingColumnsSQL lists the columns of those unique and exclusion indexes of a table that are checked row by row. It leaves
// out generated columns and columns that can't be NULL.
const parkingColumnsSQL = `
	SELECT DISTINCT a.attname::pg_catalog.text
	FROM pg_catalog.pg_index i
	JOIN pg_catalog.pg_attribute a ON a.attrelid = i.indrelid AND a.attgenerated = '' AND NOT a.attnotnull
		AND EXISTS (SELECT FROM pg_catalog.generate_series(0, i.indnkeyatts - 1) k WHERE i.indkey[k] = a.attnum)
	WHERE i.indrelid = $1::bigint::oid AND (i.indisunique OR i.indisexclusion) AND i.indimmediate`

// parkingColumns returns the columns that parkAndMerge sets to NULL. The file has values for all of these columns.
func (m *stagedMerge) parkingColumns(ctx context.Context) ([]string, error) {
	columns, err := queryTexts(ctx, m.tx, parkingColumnsSQL, int64(m.table.OID))
	// A foreign key with ON UPDATE could pass the NULL on to other rows. The foreign key may even refer to another column,
	// whose value a trigger or an expression computes from a column that is set to NULL.
	if slices.ContainsFunc(m.hooks.ForeignKeys, func(k foreignKey) bool { return k.followsUpdates() }) {
		return nil, err
	}
	return slices.DeleteFunc(columns, func(name string) bool { return !slices.Contains(m.columns.writableNames(), name) }), err
}

// mergeWithoutTriggers is the fourth of the ways that [stagedMerge.write] tries. It makes two deletes. The first
// deletes the rows to be overwritten, while foreign keys are off. These rows may refer to rows that the file lacks, so they must
// go first. The second deletes the rows that the file lacks, while foreign keys are on, so that ON DELETE actions change the
// rows of other tables.
func (m *stagedMerge) mergeWithoutTriggers(ctx context.Context) (w written, err error) {
	if !m.mayTurnOffTriggers() {
		return w, errDisplaced
	}
	if _, err := m.tx.Exec(ctx, "SET LOCAL session_replication_role = replica"); postgres.IsDenied(err) {
		return w, errDisplaced
	} else if err != nil {
		return w, err
	}
	for i := range m.hooks.ForeignKeys {
		if k := &m.hooks.ForeignKeys[i]; !k.readable() {
			return w, m.explainUnreadable(k, "some rows can only be overwritten while foreign keys do not act, and the foreign keys must be checked afterwards")
		}
	}
	if err := m.checkFollowers(ctx); err != nil {
		return w, err
	}
	if err := checkDeleteRight(ctx, m.tx, m.table); err != nil {
		return w, err
	}
	if err := m.markMoved(ctx, "NOT p.new"); err != nil {
		return w, err
	}
	m.moved = m.planned.overwritten
	if err := m.saveDangling(ctx); err != nil {
		return w, err
	}
	keep := fmt.Sprintf("CREATE TEMPORARY TABLE capture_restore_removed ON COMMIT DROP AS SELECT p.number AS %s%s FROM %s t, %s AND %s",
		m.removedNumber(), commaColumns("t", m.lacking), m.table.FromClause(), m.staged("p.moved"), m.same())
	if _, err := m.tx.Exec(ctx, keep); err != nil {
		return w, err
	}
	steps := m.steps()
	steps[3].sql = m.insertReturned("pg_temp.capture_restore_removed", m.removedNumber())
	run := func(role string, steps ...step) {
		if err != nil {
			return
		}
		if _, err = m.tx.Exec(ctx, "SET LOCAL session_replication_role = "+role); err != nil {
			return
		}
		var part written
		part, err = m.runSteps(ctx, steps)
		w.deleted, w.removed, w.updated = w.deleted+part.deleted, w.removed+part.removed, w.updated+part.updated
		w.returned, w.inserted = w.returned+part.returned, w.inserted+part.inserted
	}
	run("replica", steps[1])
	run("origin", steps[0])
	run("replica", steps[2:]...)
	run("origin")
	if err == nil {
		err = m.checkForeignKeys(ctx)
	}
	w.withoutTriggers = true
	return w, err
}
