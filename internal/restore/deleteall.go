package restore

import (
	"context"
	"fmt"

	"github.com/jackc/pgx/v5"

	"capture/internal/postgres"
)

// deleteAll deletes all rows of the table, because the file has none. It sets the fields of result that describe the deleted
// rows.
func deleteAll(ctx context.Context, tx pgx.Tx, table *postgres.Table, h *hooks, o *Options, result *Result) error {
	var key []string
	for _, k := range table.Key {
		key = append(key, table.Columns[k].Name)
	}
	if len(key) == 0 { // the table is empty, because chooseWay refuses a table that has rows and no key
		return nil
	}
	query, order := "SELECT "+keyExpression("t", key)+" FROM "+table.FromClause()+" t", columnList("t", key)
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
			return withOwnPath(ctx, tx, func() error {
				tag, err := tx.Exec(ctx, "DELETE FROM "+table.FromClause())
				result.Deleted = Change{tag.RowsAffected(), planned.Keys}
				return err
			})
		})
	})
	if err != nil {
		return explain("delete from "+result.Table, err)
	}
	if result.Others, err = countOthers(ctx, tx, table, baseline); err != nil {
		return err
	}
	result.Remaining, err = countKeys(ctx, tx, table, query, order)
	if err != nil || result.Remaining.Rows == 0 {
		return err
	}
	result.By = h.suspects()
	if o.OnConflict != Overwrite {
		return nil
	}
	return &postgres.Problem{
		Summary: fmt.Sprintf("%s kept %s of %d", result.By, rowCount(result.Remaining.Rows), planned.Rows),
		Reason:  fmt.Sprintf("table %s would not be empty, as the file is", result.Table),
		Hint:    "use --disable-triggers, as a superuser or the table's owner",
	}
}
