package restore

import (
	"context"
	"fmt"

	"capture/internal/postgres"
)

// deleteAll deletes all rows of the table, because the file has none. It sets the fields of the result that describe the
// deleted rows, and sets r.compare.
func (r *restoration) deleteAll(ctx context.Context) error {
	tx, table, result := r.tx, r.table, &r.result
	var key []string
	for _, k := range table.Key {
		key = append(key, table.Columns[k].Name)
	}
	if len(key) == 0 { // the table is empty, because chooseWay refuses a table that has rows and no key
		return nil
	}
	query, order := "SELECT "+shownKeyExpression(table, "t", key)+" FROM "+table.FromClause()+" t", columnList("t", key)
	planned, err := countKeys(ctx, tx, table, query, order)
	if err != nil || planned.Rows == 0 {
		return err
	}
	baseline, err := loadCounts(ctx, tx, table)
	if err != nil {
		return explain("count what changes in other tables", err)
	}
	err = retryLocked(ctx, func() error {
		return withSavepoint(ctx, tx, func() error {
			return withOwnSettings(ctx, tx, func() error {
				tag, err := tx.Exec(ctx, "DELETE FROM "+table.FromClause())
				result.Deleted = Change{tag.RowsAffected(), planned.Keys}
				return err
			})
		})
	})
	if err != nil {
		return explain("delete from "+result.Table, err)
	}
	r.compare = func(ctx context.Context) (err error) {
		if result.Others, err = countOthers(ctx, tx, table, baseline); err != nil {
			return err
		}
		result.Remaining, err = countKeys(ctx, tx, table, query, order)
		if err != nil || result.Remaining.Rows == 0 {
			return err
		}
		result.By = r.hooks.suspects()
		if r.options.OnConflict != Overwrite {
			return nil
		}
		return &postgres.Problem{
			Summary: fmt.Sprintf("%s kept %s of %d", result.By, rowCount(result.Remaining.Rows), planned.Rows),
			Reason:  fmt.Sprintf("table %s would not be empty, as the file is", result.Table),
			Hint:    "use --disable-triggers, as a superuser or the table's owner",
		}
	}
	return nil
}
