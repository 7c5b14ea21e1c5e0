package restore

import (
	"context"
	"fmt"

	"capture/internal/postgres"
)

// deleteAll deletes all rows of the table, because the file has none.
func (r *restoration) deleteAll(ctx context.Context) error {
	var key []string
	for _, k := range r.table.Key {
		key = append(key, r.table.Columns[k].Name)
	}
	query, order := "SELECT "+keyExpression("t", key)+" FROM "+r.table.FromClause()+" t", columnList("t", key)
	planned, err := countKeys(ctx, r.tx, r.table, query, order)
	if err != nil || planned.Rows == 0 {
		return err
	}
	baseline, err := loadCounts(ctx, r.tx, r.table)
	if err != nil {
		return explain("count what changes in other tables", err)
	}
	err = retryLocked(ctx, func() error {
		return withSavepoint(ctx, r.tx, func() error {
			return withOwnPath(ctx, r.tx, func() error {
				tag, err := r.tx.Exec(ctx, "DELETE FROM "+r.table.FromClause())
				r.result.Deleted = Change{tag.RowsAffected(), planned.Keys}
				return err
			})
		})
	})
	if err != nil {
		return explain("delete from "+r.result.Table, err)
	}
	if r.result.Others, err = countOthers(ctx, r.tx, r.table, baseline); err != nil {
		return err
	}
	r.result.Remaining, err = countKeys(ctx, r.tx, r.table, query, order)
	if err != nil || r.result.Remaining.Rows == 0 {
		return err
	}
	r.result.By = r.hooks.suspects()
	if r.options.OnConflict != Overwrite {
		return nil
	}
	return &postgres.Problem{
		Summary: fmt.Sprintf("%s kept %s of %d", r.result.By, rowCount(r.result.Remaining.Rows), planned.Rows),
		Reason:  fmt.Sprintf("table %s would not be empty, as the file is", r.result.Table),
		Hint:    "use --disable-triggers, as a superuser or the table's owner",
	}
}
