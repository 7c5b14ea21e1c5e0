package restore

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5/pgconn"

	"capture/internal/foreign"
	"capture/internal/postgres"
)

// explainRefused returns the error for a merge that the server has refused. If the server refused a row, the error names that
// row.
func (m *stagedMerge) explainRefused(ctx context.Context, err error) error {
	action := "write to " + m.table.Name().String()
	if len(m.hooks.Rules) > 0 && strings.HasPrefix(postgres.SQLState(err), "XX") {
		return &postgres.Problem{
			Summary: fmt.Sprintf("%s: %s", action, postgres.RedactedMessage(err)), Err: err,
			Reason: m.hooks.suspects() + " rewrites the statements of foreign keys, too",
			Hint:   "use --disable-triggers, as a superuser or the table's owner; or ALTER TABLE … DISABLE RULE …",
		}
	}
	if !postgres.IsRowRefused(err) {
		return explain(action, err)
	}
	if isForeignKeyViolation(err) {
		if found := m.explainForeignKey(ctx, err); found != nil {
			return found
		}
	}
	if place, refused := m.findRefused(ctx, err); place != "" {
		return &rowError{place: place, err: refused}
	}
	return explain(action, err)
}

// findRefused searches for a row that makes the server refuse the merge, and returns the row's place and the server's error. It
// runs the steps one after the other for smaller and smaller parts of the rows, and rolls everything back.
func (m *stagedMerge) findRefused(ctx context.Context, err error) (place string, refused error) {
	constraint := func(err error) string {
		var pg *pgconn.PgError
		errors.As(err, &pg)
		if pg == nil {
			return ""
		}
		return pg.Code + pg.ConstraintName
	}
	_ = withSavepoint(ctx, m.tx, func() error {
		// Count the moved rows again: the last count may come from a way of merging that was rolled back.
		var countErr error
		if m.moved, countErr = m.countMoved(ctx); countErr != nil {
			return countErr
		}
		for _, s := range m.steps() {
			if !s.needed || s.name == "removed" || s.name == "returned" {
				continue
			}
			if s.name == "deleted" {
				if _, err := m.runSteps(ctx, []step{s}); err != nil {
					return err
				}
				continue
			}
			i, found := applyRows(0, m.rows, func(lo, hi int) error {
				return withSavepoint(ctx, m.tx, func() error {
					part := s
					part.sql += m.inRange(lo, hi)
					_, err := m.runSteps(ctx, []step{part})
					return err
				})
			})
			if found == nil {
				continue
			}
			if constraint(found) == constraint(err) {
				place, refused = m.findPlace(ctx, stagingTable+" s WHERE true"+m.inRange(i, i+1)), found
			}
			break
		}
		return errTakeBack
	})
	return place, refused
}

// inRange returns an SQL condition, with AND before it, that selects the staged rows lo to hi-1, counted from 0.
func (m *stagedMerge) inRange(lo, hi int) string {
	if !m.wide {
		return fmt.Sprintf(" AND %s OPERATOR(pg_catalog.>) %d AND %[1]s OPERATOR(pg_catalog.<=) %[3]d", m.number, lo, hi)
	}
	row := func(i int) string {
		return fmt.Sprintf("(SELECT b.ctid FROM %s b ORDER BY b.ctid OFFSET %d LIMIT 1)", stagingTable, i)
	}
	return fmt.Sprintf(" AND s.ctid OPERATOR(pg_catalog.>=) %s AND s.ctid OPERATOR(pg_catalog.<=) %s", row(lo), row(hi-1))
}

// explainForeignKey returns the error for a foreign key that the merge violates. If a row of the file violates it, the error
// names this row. explainForeignKey returns nil if it does not find the cause.
func (m *stagedMerge) explainForeignKey(ctx context.Context, err error) error {
	var pg *pgconn.PgError
	if !errors.As(err, &pg) {
		return nil
	}
	child := postgres.QuoteIdentifier(pg.SchemaName) + "." + postgres.QuoteIdentifier(pg.TableName)
	i := slices.IndexFunc(m.hooks.ForeignKeys, func(k foreignKey) bool { return k.Name == pg.ConstraintName && (k.From || sameTable(k.Child, child)) })
	if i < 0 { // the server may name the copy of the foreign key that Postgres keeps for a partition
		i = slices.IndexFunc(m.hooks.ForeignKeys, func(k foreignKey) bool { return k.To && sameTable(k.Child, child) })
	}
	if i < 0 || m.hooks.ForeignKeys[i].Period {
		return nil
	}
	k := &m.hooks.ForeignKeys[i]
	if k.From && k.readable() && !slices.ContainsFunc(k.Columns, func(name string) bool { return !slices.Contains(m.columns.names, name) }) {
		missing := fmt.Sprintf("%s AND NOT EXISTS (SELECT FROM %s parent WHERE %s)", k.refers("s"), k.ParentRows, k.refersTo("s", "parent"))
		if k.To {
			missing += fmt.Sprintf(" AND NOT EXISTS (SELECT FROM %s parent WHERE %s)", stagingTable, k.refersTo("s", "parent"))
		}
		// A row that the table already had may violate the foreign key, too. But the server checks such a row only if its
		// referring columns change.
		checked := fmt.Sprintf(" AND (p.new OR p.moved OR EXISTS (SELECT FROM %s t WHERE %s AND %s))", m.table.FromClause(), m.same(), m.differ(k.Columns))
		// If a deferred check has failed, the table already has the file's values, so the condition in the variable
		// checked may exclude the row. The second search therefore omits this condition.
		for _, condition := range []string{missing + checked, missing} {
			if place := m.findPlace(ctx, m.staged(condition)); place != "" {
				return &rowError{place: place, err: err}
			}
		}
	}
	if !k.To {
		return nil
	}
	return m.explainReferences(k)
}

// explainReferences returns the error for rows of another table that refer to rows that the restore would delete or change.
func (m *stagedMerge) explainReferences(k *foreignKey) error {
	return &postgres.Problem{
		Summary: fmt.Sprintf("rows of table %s refer to rows that would go from table %s (foreign key %s)", foreign.Text(k.Child), m.table.Name(), foreign.Text(postgres.QuoteIdentifier(k.Name))),
		Reason:  "the file lacks those rows, or has other values in the columns that are referred to",
		Hint:    "delete or change those rows first, or leave out --delete-extra",
	}
}

// sameTable reports whether the SQL names a and b name the same table. It ignores the quotes in both names.
func sameTable(a, b string) bool {
	return strings.ReplaceAll(a, `"`, "") == strings.ReplaceAll(b, `"`, "")
}

// checkForeignKeys returns an error if the merge has made a row violate a foreign key from or to the table. The check is needed
// if rows were written while the triggers that check foreign keys were off.
func (m *stagedMerge) checkForeignKeys(ctx context.Context) error {
	for i := range m.hooks.ForeignKeys {
		k := &m.hooks.ForeignKeys[i]
		found, err := m.findDangling(ctx, i)
		if err != nil {
			return err
		}
		switch {
		case !found:
		case k.To && !k.From:
			return m.explainReferences(k)
		default:
			first := ""
			if !k.To {
				first = fmt.Sprintf("restore table %s first, so that it has the rows", foreign.Text(k.Parent))
			}
			notValid, err := m.explainNotValidKey(ctx, k)
			if err != nil {
				return err
			}
			return &postgres.Problem{
				Summary: fmt.Sprintf("rows of the file refer to rows of table %s that are not there (foreign key %s)", foreign.Text(k.Parent), foreign.Text(postgres.QuoteIdentifier(k.Name))),
				Hint:    joinHints(first, notValid),
			}
		}
	}
	return nil
}

// errDisplaced means that one of the ways of merging cannot work for these rows, and that it has not run any of its steps yet.
// See [stagedMerge.write].
var errDisplaced = errors.New("rows stand in each other's way")

// explainDisplaced returns the error for a merge that failed in every way that [stagedMerge.write] knows, because rows block
// each other.
func (m *stagedMerge) explainDisplaced(ctx context.Context, err error) error {
	if err := m.checkFollowers(ctx); err != nil {
		return err
	}
	if errors.Is(err, errDisplaced) {
		if problem := m.explainUnreadableChild(); problem != nil {
			return problem
		}
		alter := make([]string, len(m.fixed))
		for i, name := range m.fixed {
			alter[i] = "ALTER COLUMN " + postgres.QuoteIdentifier(name) + " SET GENERATED BY DEFAULT"
		}
		return &postgres.Problem{
			Summary: fmt.Sprintf("%s, and rows of table %s refer to such rows (foreign key %s)",
				m.describeFixed(), m.protectors("%[1]s"), m.protectors("%[2]s")),
			Reason: "such a row can only be deleted and inserted again, on which the foreign key would act",
			Hint: fmt.Sprintf("%s; or first ALTER TABLE %s %s; and afterwards the same with SET GENERATED ALWAYS",
				strings.TrimSuffix(m.superuserHint(), ";"), m.table.Name().Quoted(), strings.Join(alter, ", ")),
		}
	}
	var pg *pgconn.PgError
	errors.As(err, &pg)
	name := foreign.Text(postgres.QuoteIdentifier(pg.ConstraintName))
	place, refused := m.findRefused(ctx, err)
	if taken := m.findTaken(ctx, pg.ConstraintName); taken != "" {
		return &rowError{place: taken, err: err}
	}
	if problem := m.explainUnreadableChild(); problem != nil {
		return problem
	}
	if protectors := m.protectors("foreign key %[2]s of table %[1]s"); protectors != "" {
		if place != "" {
			place = ", the first at " + place
		}
		return &postgres.Problem{
			Summary: fmt.Sprintf("rows of table %s exchange values of constraint %s%s", m.table.Name(), name, place),
			Reason:  fmt.Sprintf("it is checked row by row, and rows that must not be deleted depend on these rows (%s)", protectors),
			Hint: fmt.Sprintf("make the constraint DEFERRABLE (ALTER TABLE %s DROP CONSTRAINT %s, ADD CONSTRAINT %[2]s … DEFERRABLE;), or %s",
				m.table.Name().Quoted(), name, m.superuserHint()),
		}
	}
	if place == "" {
		return explain("write to "+m.table.Name().String(), err)
	}
	refused = &rowError{place: place, err: refused}
	if len(m.hooks.Rules) > 0 {
		return &postgres.Problem{
			Summary: refused.Error(), Err: refused,
			Reason: "rows that exchange values can't be deleted and inserted again, because the table has rules",
			Hint:   "use --disable-triggers, as a superuser or the table's owner",
		}
	}
	return refused
}

// superuserHint says how to restore rows that must not be deleted while foreign keys act. The user needs the right to turn
// foreign keys off.
func (m *stagedMerge) superuserHint() string {
	hint, or := "restore as a superuser", ", or "
	if !m.mayTurnOffTriggers() {
		hint, or = "use --disable-triggers, as a superuser", " or after "
	}
	return strings.TrimSuffix(hint+or+m.hooks.AllowReplica, or)
}

// describeFixed returns a text that names the columns that UPDATE cannot set, and says that their values differ.
func (m *stagedMerge) describeFixed() string {
	if len(m.fixed) == 1 {
		return "column " + columnList("", m.fixed) + " is GENERATED ALWAYS AS IDENTITY and differs"
	}
	return "columns " + columnList("", m.fixed) + " are GENERATED ALWAYS AS IDENTITY, and at least one differs"
}

// explainUnreadableChild returns a [*postgres.Problem] if a foreign key with an action refers to the restored table, and the
// user has no right to read all rows of the table that has the foreign key. Otherwise it returns nil. The merge deletes no row of
// the restored table to which a row of such a table may refer; see protected.
func (m *stagedMerge) explainUnreadableChild() error {
	for i := range m.hooks.ForeignKeys {
		if k := &m.hooks.ForeignKeys[i]; k.To && (k.OnDelete != "a" || k.followsUpdates()) && !k.readable() {
			return m.explainUnreadable(k, "some rows can't be updated in place, and a row to which another row refers must not be deleted and inserted again")
		}
	}
	return nil
}

// explainUnreadable returns the error for a foreign key if the user may not read all rows of the other table. The error
// contains reason, which says why the merge needs those rows.
func (m *stagedMerge) explainUnreadable(k *foreignKey, reason string) error {
	other, relation := foreign.Text(k.Child), "which may refer to rows of table "+m.table.Name().String()
	if k.From {
		other, relation = foreign.Text(k.Parent), "to which rows of table "+m.table.Name().String()+" refer"
	}
	return &postgres.Problem{
		Summary: fmt.Sprintf("no right to read all rows of table %s, %s (foreign key %s)", other, relation, foreign.Text(postgres.QuoteIdentifier(k.Name))),
		Reason:  reason,
		Hint:    foreign.Text(k.Grants) + " or restore as a superuser",
	}
}

// checkFollowers is called if the merge can only delete rows and insert them again. It returns a [*postgres.Problem] if a
// foreign key would have to change other rows together with these rows: see followed.
func (m *stagedMerge) checkFollowers(ctx context.Context) error {
	for i := range m.hooks.ForeignKeys {
		k := &m.hooks.ForeignKeys[i]
		followed := m.followed(k)
		if followed == "" || !k.readable() {
			continue
		}
		var found bool
		err := m.tx.QueryRow(ctx, fmt.Sprintf("SELECT EXISTS (SELECT FROM %s t, %s AND %s AND %s)", m.table.FromClause(), m.staged("NOT p.new"), m.same(), followed)).Scan(&found)
		if err != nil {
			return err
		}
		if !found {
			continue
		}
		action := map[string]string{"c": "CASCADE", "n": "SET NULL", "d": "SET DEFAULT"}[k.OnUpdate]
		return &postgres.Problem{
			Summary: fmt.Sprintf("rows of table %s refer to rows of table %s by columns that would change (foreign key %s, with ON UPDATE %s)",
				foreign.Text(k.Child), m.table.Name(), foreign.Text(postgres.QuoteIdentifier(k.Name)), action),
			Reason: "these rows exchange unique values, so they can only be deleted and inserted again, and the foreign key could not act",
			Hint:   "use --disable-triggers, as a superuser, to leave those rows as they are; or first change the values yourself, so that the foreign key acts",
		}
	}
	return nil
}

// uniqueColumnsSQL lists the columns of a unique index that has no expressions and no condition. $1 is the table's OID, $2
// the name of the index.
const uniqueColumnsSQL = `
	SELECT a.attname::pg_catalog.text
	FROM pg_catalog.pg_index i
	JOIN pg_catalog.pg_class c ON c.oid = i.indexrelid
	CROSS JOIN LATERAL pg_catalog.generate_series(0, i.indnkeyatts - 1) k
	JOIN pg_catalog.pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = i.indkey[k]
	WHERE i.indrelid = $1::bigint::oid AND c.relname = $2::text::name AND i.indisunique AND i.indexprs IS NULL AND i.indpred IS NULL
	ORDER BY k`

// findTaken searches for a row of the file that has the same values in the columns of the unique constraint as another row of
// the table. The file lacks the other row, and the merge does not delete the other row. findTaken returns the place of the
// file's row, or "" if it finds none.
func (m *stagedMerge) findTaken(ctx context.Context, constraint string) string {
	if m.options.DeleteExtra || len(m.key) == 0 {
		return ""
	}
	var columns []string
	err := withSavepoint(ctx, m.tx, func() (err error) {
		columns, err = queryTexts(ctx, m.tx, uniqueColumnsSQL, int64(m.table.OID), constraint)
		return err
	})
	if err != nil || len(columns) == 0 || slices.ContainsFunc(columns, func(name string) bool { return !slices.Contains(m.columns.names, name) }) {
		return ""
	}
	var conditions []string
	for _, name := range columns {
		conditions = append(conditions, fmt.Sprintf("s.%[1]s = t.%[1]s", postgres.QuoteIdentifier(name)))
	}
	return m.findPlace(ctx, fmt.Sprintf("%s s WHERE EXISTS (SELECT FROM %s t WHERE %s AND %s)",
		stagingTable, m.table.FromClause(), strings.Join(conditions, " AND "), m.extra()))
}

// protectors lists the foreign keys that protect rows from being deleted: see protected. It formats each foreign key by
// fmt.Sprintf with the given format, the table that has the foreign key, and the name of the foreign key.
func (m *stagedMerge) protectors(format string) string {
	var list []string
	for _, k := range m.hooks.ForeignKeys {
		if k.To && k.OnDelete != "a" {
			list = append(list, fmt.Sprintf(format, foreign.Text(k.Child), foreign.Text(postgres.QuoteIdentifier(k.Name))))
		}
	}
	return strings.Join(list, ", ")
}
