package postgres

import (
	"context"
	"crypto/sha256"
	_ "embed"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5"

	"capture/snapshot/rowjson"
)

// Table is a table's shape with the facts of the catalog that decide how it can be followed.
type Table struct {
	*rowjson.Shape
	Partitioned  bool
	KeyImmediate bool // the key is checked at each row, so that no two rows ever share one, not even within a transaction

	kind        string // pg_class.relkind
	persistence string // pg_class.relpersistence
	identity    string // pg_class.relreplident: d(efault), i(ndex), f(ull), n(othing)
	usable      bool   // an UPDATE or DELETE of the published table finds an identity
	exprs       []string
	columns     []columnEntry
	facts       facts
}

// Name is the table's exact name, schema included.
func (t *Table) Name() Name { return Name{Schema: t.Schema, Table: t.Table} }

// catalogEntry is the first document of catalog.sql.
type catalogEntry struct {
	OID              uint32        `json:"oid"`
	Schema           string        `json:"schema"`
	Table            string        `json:"table"`
	Kind             string        `json:"kind"`
	Persistence      string        `json:"persistence"`
	Identity         string        `json:"identity"`
	Primary          []int16       `json:"primary"`
	PrimaryImmediate bool          `json:"primary_immediate"`
	IdentityIndex    []int16       `json:"identity_index"`
	Columns          []columnEntry `json:"columns"`
	Types            []typeEntry   `json:"types"`
	Children         bool          `json:"children"`
}

type columnEntry struct {
	Num        int16   `json:"num"`
	Name       string  `json:"name"`
	Type       uint32  `json:"type"`
	Typmod     int32   `json:"typmod"`
	NotNull    bool    `json:"not_null"`
	Identity   string  `json:"identity"`
	Generated  string  `json:"generated"`
	TypeName   string  `json:"type_name"`
	Expression string  `json:"expression"`
	Collation  string  `json:"collation"` // where it is not the type's own
	Sources    []int16 `json:"sources"`   // of a generated column: those that its expression names
}

// facts is the second document of catalog.sql: what may change without a row reading otherwise.
type facts struct {
	User        string      `json:"user"`
	Owner       string      `json:"owner"`
	Owned       bool        `json:"owned"` // by the user, or by a role whose rights the user has
	SchemaUsage bool        `json:"schema_usage"`
	Readable    bool        `json:"readable"`         // as a whole, with columns that are yet to come
	Columns     bool        `json:"columns_readable"` // some of them at least
	RowSecurity bool        `json:"row_security"`     // active for the user
	Rewritten   bool        `json:"rewritten"`        // since the snapshot of this reading
	Subscribed  bool        `json:"subscribed"`       // changed by a subscription's worker, which fires row triggers only
	Leaves      []leafEntry `json:"leaves"`           // the partitions that hold rows
}

type leafEntry struct {
	Schema        string   `json:"schema"`
	Table         string   `json:"table"`
	Kind          string   `json:"kind"`
	Persistence   string   `json:"persistence"`
	Identity      string   `json:"identity"`
	Primary       []string `json:"primary"`
	IdentityIndex []string `json:"identity_index"`
}

//go:embed catalog.sql
var catalogSQL string

// LoadTable reads what the catalog says of the table, in one statement. Its error is a [*Problem] where the table is
// missing, of a kind that cannot be followed by any source, or not wholly readable by the user. Columns are marked as published where pgoutput sends
// them unless told otherwise; [EnsurePublication] corrects that for the publication it finds.
func LoadTable(ctx context.Context, q Querier, name Name) (*Table, error) {
	t, err := load(ctx, q, name)
	if err != nil {
		return nil, err
	}
	if err := t.readable(); err != nil {
		return nil, err
	}
	return t, nil
}

// catalogRow is what catalog.sql answers.
type catalogRow struct{ doc, more string }

func (c *catalogRow) scan(row pgx.Row) error { return row.Scan(&c.doc, &c.more) }

func catalogArgs(name Name) []any {
	low := name.folded()
	return []any{name.Schema, name.Table, low.Schema, low.Table}
}

func load(ctx context.Context, q Querier, name Name) (*Table, error) {
	var c catalogRow
	err := c.scan(q.QueryRow(ctx, catalogSQL, catalogArgs(name)...))
	return c.table(ctx, q, name, err)
}

// table is the table that the row describes, if it was read without the error failed.
func (c *catalogRow) table(ctx context.Context, q Querier, name Name, failed error) (*Table, error) {
	if errors.Is(failed, pgx.ErrNoRows) {
		return nil, missing(ctx, q, name)
	}
	if failed != nil {
		return nil, Explain(fmt.Errorf("read the catalog about table %s: %w", name, failed))
	}
	var e catalogEntry
	t := &Table{}
	if err := json.Unmarshal([]byte(c.doc), &e); err != nil {
		return nil, fmt.Errorf("read the catalog about table %s: %w", name, err)
	}
	if err := json.Unmarshal([]byte(c.more), &t.facts); err != nil {
		return nil, fmt.Errorf("read the catalog about table %s: %w", name, err)
	}
	t.kind, t.persistence, t.identity = e.Kind, e.Persistence, e.Identity
	t.Partitioned = e.Kind == "p"
	sum := sha256.Sum256([]byte(c.doc))
	t.Shape = &rowjson.Shape{OID: e.OID, Schema: e.Schema, Table: e.Table, Fingerprint: hex.EncodeToString(sum[:16])}
	if err := unfollowable(t, &e); err != nil {
		return nil, err
	}
	if err := t.addColumns(&e); err != nil {
		return nil, fmt.Errorf("read the catalog about table %s: %w", t.Name(), err)
	}
	if err := t.addKey(&e); err != nil {
		return nil, err
	}
	return t, nil
}

// Rewritten says whether the table's files are others by now than in the snapshot with which its catalog was read: it was
// rewritten or truncated since. Neither is bound to snapshots, so that its rows can't be read with this one.
func (t *Table) Rewritten() bool { return t.facts.Rewritten }

// preparedCatalog is what to send for catalog.sql. Planning is most of its cost, and it is asked for every few seconds.
func preparedCatalog(ctx context.Context, conn *pgx.Conn, name Name) (sql string, err error) {
	const statement = "capture_catalog"
	if Pooled(conn) {
		return catalogSQL, nil
	}
	if _, err := conn.Prepare(ctx, statement, catalogSQL); err != nil {
		return "", Explain(fmt.Errorf("read the catalog about table %s: %w", name, err))
	}
	return statement, nil
}

// TableFingerprint is that of the table as it is now; see [rowjson.Shape]. It costs one statement. Its error is a
// [*Problem] where the table is gone or cannot be followed any more.
func TableFingerprint(ctx context.Context, conn *pgx.Conn, name Name) (string, error) {
	sql, err := preparedCatalog(ctx, conn, name)
	if err != nil {
		return "", err
	}
	var c catalogRow
	err = c.scan(conn.QueryRow(ctx, sql, catalogArgs(name)...))
	t, err := c.table(ctx, conn, name, err)
	if err != nil {
		return "", err
	}
	return t.Fingerprint, nil
}

func (t *Table) addColumns(e *catalogEntry) error {
	types := make(typeSet, len(e.Types))
	for _, te := range e.Types {
		types[te.OID] = te
	}
	t.columns = e.Columns
	for _, c := range e.Columns {
		typ, err := types.resolve(c.Type)
		if err != nil {
			return fmt.Errorf("column %s: %w", displayIdentifier(c.Name), err)
		}
		t.Columns = append(t.Columns, rowjson.Column{
			Name: c.Name, TypeName: c.TypeName, NotNull: c.NotNull, Default: c.Expression, Identity: c.Identity,
			Generated: c.Generated, Published: c.Generated == "", TypeOID: c.Type, Typmod: c.Typmod, Type: typ,
		})
		t.exprs = append(t.exprs, types.selectExpr(c, &typ))
	}
	return nil
}

// addKey takes the replica identity index where there is one, as the stream's old keys are made of it, or else the
// primary key.
func (t *Table) addKey(e *catalogEntry) error {
	key := e.Primary
	t.usable = e.Primary != nil && e.PrimaryImmediate
	t.KeyImmediate = e.PrimaryImmediate || e.Identity == "i"
	switch e.Identity {
	case "i":
		t.usable = e.IdentityIndex != nil
		if e.IdentityIndex != nil {
			key = e.IdentityIndex
		}
	case "f":
		t.usable = true
	case "n":
		t.usable = false
	}
	if key == nil {
		return &Problem{
			Summary: fmt.Sprintf("table %s has no primary key", t.Name()),
			Reason:  "capture tells its rows apart by a primary key or a replica identity index",
			Hint:    fmt.Sprintf("ALTER TABLE %s ADD PRIMARY KEY (…);", t.Name().Quoted()),
		}
	}
	at := make(map[int16]int, len(e.Columns))
	for i, c := range e.Columns {
		at[c.Num] = i
	}
	for _, num := range key {
		i, ok := at[num]
		if !ok {
			return fmt.Errorf("read the catalog about table %s: its key has a column %d that the table lacks", t.Name(), num)
		}
		t.Key = append(t.Key, i)
	}
	return nil
}

// SelectList is the columns' values as an SQL select list over the table (without an alias): each value's text form as
// its type's output function prints it, in a type whose binary form is just that text; for a column whose type is
// [rowjson.Type.ByServer], the JSON value itself.
func (t *Table) SelectList() string { return strings.Join(t.exprs, ", ") }

// GeneratedColumnsQuery asks for the values of the columns that are not published, in their order, for any row: its parameters
// are the text forms of that row's columns at the indexes in from. A generated column's expression knows its own row
// alone, so that it need not be evaluated in the table.
func (t *Table) GeneratedColumnsQuery() (query string, from []int) {
	var list, row []string
	for i, c := range t.Columns {
		if c.Published {
			continue
		}
		list = append(list, fmt.Sprintf("CAST((%s) AS %s)", c.Default, c.TypeName))
		for k := range t.columns {
			if slices.Contains(t.columns[i].Sources, t.columns[k].Num) && !slices.Contains(from, k) {
				from = append(from, k)
			}
		}
	}
	for n, k := range from {
		value := fmt.Sprintf("CAST($%d AS %s)", n+1, t.Columns[k].TypeName)
		if c := t.columns[k].Collation; c != "" {
			value += " COLLATE " + c
		}
		row = append(row, value+" AS "+QuoteIdentifier(t.Columns[k].Name))
	}
	return fmt.Sprintf("SELECT %s FROM (SELECT %s) AS row", strings.Join(list, ", "), strings.Join(row, ", ")), from
}

// FromClause is the table as SQL's FROM names it.
func (t *Table) FromClause() string {
	if t.Partitioned {
		return t.Name().Quoted()
	}
	return "ONLY " + t.Name().Quoted()
}

// CopyQuery copies the table out in binary framing, each field as [Table.SelectList] says: all of it, or what where
// (" WHERE …") says.
func (t *Table) CopyQuery(where string) string {
	return "COPY (SELECT " + t.SelectList() + " FROM " + t.FromClause() + where + ") TO STDOUT (FORMAT binary)"
}

// readable refuses a table of which the user sees nothing or a part.
func (t *Table) readable() error {
	name := t.Name()
	switch f := &t.facts; {
	case !f.SchemaUsage:
		return &Problem{
			Summary: fmt.Sprintf("no right to use schema %s", displayIdentifier(t.Schema)),
			Reason:  fmt.Sprintf("table %s cannot be read without it", name),
			Hint:    fmt.Sprintf("GRANT USAGE ON SCHEMA %s TO %s;", QuoteIdentifier(t.Schema), QuoteIdentifier(f.User)),
		}
	case !f.Readable:
		p := &Problem{
			Summary: fmt.Sprintf("no right to read table %s", name),
			Reason:  "capture reads all of its columns",
			Hint:    fmt.Sprintf("GRANT SELECT ON %s TO %s;", name.Quoted(), QuoteIdentifier(f.User)),
		}
		if f.Columns {
			p.Summary = fmt.Sprintf("user %s may read columns of table %s, but not the table as a whole", f.User, name)
			p.Reason = "capture locks it against changes of its definition while it copies it (ACCESS SHARE), and reads columns that are added"
		}
		return p
	case f.RowSecurity:
		return &Problem{
			Summary: fmt.Sprintf("row-level security on table %s applies to user %s", name, f.User),
			Reason:  "a copy would lack the rows that its policies hide, while the stream has them",
			Hint:    fmt.Sprintf("ALTER ROLE %s BYPASSRLS; -- or connect as the table's owner", QuoteIdentifier(f.User)),
		}
	}
	return nil
}

// missing says that there is no such table, and which ones may be meant.
func missing(ctx context.Context, q Querier, name Name) error {
	p := &Problem{
		Summary:      fmt.Sprintf("table %s does not exist in this database", name),
		Hint:         "name another one with --table [schema.]name, or connect to the database that has it",
		tableMissing: true,
	}
	var database, path, similar string
	err := q.QueryRow(ctx, `
		SELECT pg_catalog.current_database(), pg_catalog.array_to_string(pg_catalog.current_schemas(false), ', '),
			COALESCE((SELECT pg_catalog.string_agg(pg_catalog.quote_ident(n.nspname) || '.' || pg_catalog.quote_ident(c.relname),
					', ' ORDER BY n.nspname, c.relname)
				FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
				WHERE c.relkind IN ('r', 'p') AND c.relpersistence = 'p'
					AND pg_catalog.lower(c.relname) = pg_catalog.lower($1::text)), '')`,
		name.Table).Scan(&database, &path, &similar)
	if err != nil {
		return Explain(fmt.Errorf("look for table %s: %w", name, err))
	}
	p.Summary = fmt.Sprintf("table %s does not exist in database %s", name, database)
	if name.Schema == "" {
		p.Reason = "the schemas searched are: " + path
	}
	if similar != "" {
		p.Hint = "name the one that is meant with --table: " + similar
	}
	return p
}

// unfollowable refuses what no source can follow.
func unfollowable(t *Table, e *catalogEntry) error {
	p := &Problem{Hint: "name an ordinary or partitioned table with --table"}
	name := t.Name()
	switch e.Kind {
	case "r", "p":
	case "v":
		p.Summary, p.Reason = fmt.Sprintf("%s is a view", name), "a view has no rows and no key of its own"
		p.Hint = "name the table that it reads from with --table"
	case "m":
		p.Summary, p.Reason = fmt.Sprintf("%s is a materialized view", name), "its changes are not in the stream, and it has no key"
		p.Hint = "name the table that it reads from with --table"
	case "f":
		p.Summary, p.Reason = fmt.Sprintf("%s is a foreign table", name), "its rows live on another server"
		p.Hint = "point --database-url at the server that holds it"
	case "S":
		p.Summary = fmt.Sprintf("%s is a sequence", name)
	case "i", "I":
		p.Summary = fmt.Sprintf("%s is an index", name)
	default:
		p.Summary = fmt.Sprintf("%s is not a table", name)
	}
	switch {
	case p.Summary != "":
	case e.Schema == "pg_catalog" || e.Schema == "information_schema" || e.Schema == "pg_toast":
		p.Summary, p.Reason = fmt.Sprintf("%s is a system table", name), "its changes are not published"
	case e.Persistence == "t":
		p.Summary, p.Reason = fmt.Sprintf("%s is a temporary table", name), "it ends with the session that made it"
	case e.Persistence == "u":
		p.Summary, p.Reason = fmt.Sprintf("%s is an unlogged table", name), "it is emptied by a crash and its changes are in no stream"
		p.Hint = fmt.Sprintf("ALTER TABLE %s SET LOGGED;", name.Quoted())
	case e.Kind == "r" && e.Children:
		p.Summary = fmt.Sprintf("table %s has tables that inherit from it", name)
		p.Reason = "their rows read as its own, but no key covers them all and the stream knows them under other names"
		p.Hint = "name one of the inheriting tables with --table, or make it a partitioned table"
	}
	if p.Summary != "" {
		return p
	}
	return nil
}
