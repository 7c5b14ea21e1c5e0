package restore

import (
	"context"
	"fmt"
	"strconv"
	"strings"

	"github.com/jackc/pgx/v5"

	"capture/internal/postgres"
)

// sequencesSQL lists the sequences that supply values to a table's columns: the sequences that the columns own (serial,
// identity), and the sequences that the columns' defaults call. The last column of the result is true if the type of the
// table's column is a number or a domain over a number.
const sequencesSQL = `
	SELECT pg_catalog.quote_ident(n.nspname) || '.' || pg_catalog.quote_ident(c.relname), a.attname::text, q.seqincrement > 0,
		pg_catalog.quote_ident(n.nspname), pg_catalog.has_schema_privilege(n.oid, 'USAGE'),
		pg_catalog.has_sequence_privilege(s.seq, 'SELECT'), pg_catalog.has_sequence_privilege(s.seq, 'UPDATE'),
		current_user::text, pg_catalog.format_type(a.atttypid, a.atttypmod), EXISTS (
			WITH RECURSIVE base(oid) AS (
				SELECT a.atttypid
				UNION ALL
				SELECT t.typbasetype FROM base JOIN pg_catalog.pg_type t ON t.oid = base.oid AND t.typtype = 'd'
			)
			SELECT FROM base WHERE base.oid IN ('int2'::regtype, 'int4'::regtype, 'int8'::regtype, 'numeric'::regtype, 'float4'::regtype, 'float8'::regtype))
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
	ORDER BY a.attnum, 1`

// setSequences advances each sequence of the table to the highest value in its column (the lowest value if the sequence
// descends). It never moves a sequence back. A rollback does not undo setval, so this is the last step before the commit. If
// the commit fails, a sequence can be too far ahead, which does no harm. setSequences returns the sequences that it has set.
// In a dry run, it sets nothing, and returns the sequences that it would set. It also returns the sequences that cannot be
// set: a value of the column is beyond the sequence's limits, or the column has values but its type is not a number.
func setSequences(ctx context.Context, tx pgx.Tx, table *postgres.Table, dryRun bool) (set []Sequence, unset []UnsetSequence, err error) {
	rows, err := tx.Query(ctx, sequencesSQL, int64(table.OID))
	if err != nil {
		return nil, nil, explain("list the table's sequences", err)
	}
	uses, err := pgx.CollectRows(rows, pgx.RowToStructByPos[sequenceUse])
	if err != nil {
		return nil, nil, explain("list the table's sequences", err)
	}
	for _, u := range uses {
		if !u.IsNumber { // for example, a text that consists of a prefix and the sequence's number
			var hasValue bool
			sql := fmt.Sprintf("SELECT EXISTS (SELECT FROM %s WHERE %s IS NOT NULL)", table.FromClause(), postgres.QuoteIdentifier(u.Column))
			if err := tx.QueryRow(ctx, sql).Scan(&hasValue); err != nil {
				return nil, nil, explain("read column "+postgres.QuoteIdentifier(u.Column), err)
			}
			if !hasValue {
				continue
			}
			unset = append(unset, UnsetSequence{u.Sequence, "", fmt.Sprintf("column %s is of type %s; set it yourself (SELECT setval(…)), or the application's next rows may take values that restored rows have",
				postgres.QuoteIdentifier(u.Column), u.Type)})
			continue
		}
		if !u.Reachable || !u.Readable {
			return nil, nil, u.explainRights()
		}
		last, behind, fits, err := u.findLast(ctx, tx, table)
		switch {
		case err != nil:
			return nil, nil, err
		case !behind:
		case !fits:
			unset = append(unset, UnsetSequence{u.Sequence, last, "it is beyond the sequence's limit; the application's next rows may take numbers that restored rows have"})
		case !u.Writable:
			return nil, nil, u.explainRights()
		default:
			n, err := strconv.ParseInt(last, 10, 64)
			if err == nil && !dryRun {
				_, err = tx.Exec(ctx, "SELECT pg_catalog.setval($1::text::regclass, $2::int8)", u.Sequence, n)
			}
			if err != nil {
				return nil, nil, explain("set sequence "+u.Sequence, err)
			}
			set = append(set, Sequence{u.Sequence, n})
		}
	}
	return set, unset, nil
}

// sequenceUse is a sequence that supplies values to a column.
type sequenceUse struct {
	Sequence, Column   string // name of the sequence, as SQL, and name of the column
	Ascending          bool
	Schema             string // schema of the sequence, as SQL
	Reachable          bool   // whether the user may use the schema
	Readable, Writable bool   // whether the user may read the sequence's state, and whether the user may set it
	User               string
	Type               string // type of the column, as format_type prints it
	IsNumber           bool   // whether the column's type is a number
}

// findLast returns the value after which the sequence should continue, whether the sequence is behind that value, and whether
// the value is within the sequence's limits. NaN and infinite values do not count. To get the exact value, findLast casts the
// column to text and then to numeric. A direct cast of a real to numeric keeps only six digits.
func (u *sequenceUse) findLast(ctx context.Context, tx pgx.Tx, table *postgres.Table) (last string, behind, fits bool, err error) {
	highest, beyond, before := "max", ">", "- 1"
	if !u.Ascending {
		highest, beyond, before = "min", "<", "+ 1"
	}
	sql := fmt.Sprintf(`SELECT pg_catalog.trunc(t.n)::text, t.n %s CASE WHEN s.is_called THEN s.last_value ELSE s.last_value %s END, t.n BETWEEN q.seqmin AND q.seqmax
		FROM (SELECT %s(%s)::text::numeric AS n FROM %s WHERE %[4]s::text NOT IN ('NaN', 'Infinity', '-Infinity')) t, %[6]s s, pg_catalog.pg_sequence q
		WHERE q.seqrelid = %s::regclass AND t.n IS NOT NULL`,
		beyond, before, highest, postgres.QuoteIdentifier(u.Column), table.FromClause(), u.Sequence, postgres.QuoteLiteral(u.Sequence))
	err = tx.QueryRow(ctx, sql).Scan(&last, &behind, &fits)
	if err == pgx.ErrNoRows { // the column has no finite value
		return "", false, false, nil
	}
	return last, behind, fits, explain("read sequence "+u.Sequence, err)
}

// explainRights returns the error for a sequence that the user may not read or set.
func (u *sequenceUse) explainRights() error {
	user := postgres.QuoteIdentifier(u.User)
	var grants []string
	if !u.Reachable {
		grants = append(grants, fmt.Sprintf("GRANT USAGE ON SCHEMA %s TO %s;", u.Schema, user))
	}
	if !u.Readable || !u.Writable {
		grants = append(grants, fmt.Sprintf("GRANT SELECT, UPDATE ON SEQUENCE %s TO %s;", u.Sequence, user))
	}
	return &postgres.Problem{
		Summary: fmt.Sprintf("no right to set sequence %s", u.Sequence),
		Reason:  "without it the application's next row would take a number that a restored row has",
		Hint:    strings.Join(grants, " ") + " as its owner",
	}
}
