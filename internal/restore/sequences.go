package restore

import (
	"context"
	"fmt"

	"github.com/jackc/pgx/v5"

	"capture/internal/postgres"
)

// sequencesSQL lists the sequences that supply values to a table's columns: a sequence that a column owns (serial, identity),
// or one that a column's default calls.
const sequencesSQL = `
	SELECT pg_catalog.quote_ident(n.nspname) || '.' || pg_catalog.quote_ident(c.relname), a.attname, q.seqincrement > 0
	FROM (
		SELECT d.objid AS seq, d.refobjsubid AS num
		FROM pg_catalog.pg_depend d
		WHERE d.classid = 'pg_catalog.pg_class'::regclass AND d.refclassid = 'pg_catalog.pg_class'::regclass
			AND d.refobjid = $1::bigint::oid AND d.refobjsubid > 0 AND d.deptype IN ('a', 'i')
		UNION
		SELECT d.refobjid, e.adnum
		FROM pg_catalog.pg_attrdef e
		JOIN pg_catalog.pg_depend d ON d.classid = 'pg_catalog.pg_attrdef'::regclass AND d.objid = e.oid
			AND d.refclassid = 'pg_catalog.pg_class'::regclass
		WHERE e.adrelid = $1::bigint::oid
	) s
	JOIN pg_catalog.pg_class c ON c.oid = s.seq AND c.relkind = 'S'
	JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
	JOIN pg_catalog.pg_sequence q ON q.seqrelid = s.seq
	JOIN pg_catalog.pg_attribute a ON a.attrelid = $1::bigint::oid AND a.attnum = s.num
		AND a.atttypid IN ('int2'::regtype, 'int4'::regtype, 'int8'::regtype, 'numeric'::regtype)
	ORDER BY a.attnum, 1`

// advanceSequences advances each sequence of the table to the highest value in its column (the lowest value if the sequence
// descends). It never moves a sequence back. A rollback does not undo setval, so this is the last step before the commit. A
// sequence that is too far ahead does no harm.
func advanceSequences(ctx context.Context, tx pgx.Tx, table *postgres.Table) (advanced []Sequence, err error) {
	type use struct {
		Sequence, Column string
		Ascending        bool
	}
	rows, err := tx.Query(ctx, sequencesSQL, int64(table.OID))
	if err != nil {
		return nil, postgres.ExplainRedacted("list the table's sequences", err)
	}
	uses, err := pgx.CollectRows(rows, pgx.RowToStructByPos[use])
	if err != nil {
		return nil, postgres.ExplainRedacted("list the table's sequences", err)
	}
	for _, u := range uses {
		highest, beyond, before := "max", ">", "- 1"
		if !u.Ascending {
			highest, beyond, before = "min", "<", "+ 1"
		}
		sql := fmt.Sprintf(`SELECT pg_catalog.setval(%s::regclass, t.n) FROM (SELECT %s(%s)::bigint AS n FROM %s) t, %s s
			WHERE t.n %s CASE WHEN s.is_called THEN s.last_value ELSE s.last_value %s END`,
			postgres.QuoteLiteral(u.Sequence), highest, postgres.QuoteIdentifier(u.Column), table.FromClause(), u.Sequence, beyond, before)
		var last int64
		switch err := tx.QueryRow(ctx, sql).Scan(&last); {
		case err == pgx.ErrNoRows: // the sequence is already that far
		case postgres.SQLState(err) == insufficientPrivilege:
			return nil, &postgres.Problem{
				Summary: fmt.Sprintf("no right to set sequence %s", u.Sequence), Err: err,
				Reason: "without it the application's next row would take a number that a restored row has",
				Hint:   fmt.Sprintf("GRANT SELECT, UPDATE ON SEQUENCE %s TO CURRENT_USER; as its owner", u.Sequence),
			}
		case err != nil:
			return nil, postgres.ExplainRedacted("set sequence "+u.Sequence, err)
		default:
			advanced = append(advanced, Sequence{u.Sequence, last})
		}
	}
	return advanced, nil
}
