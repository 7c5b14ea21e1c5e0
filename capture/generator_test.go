package capture

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"capture/internal/pgserver"
	"capture/internal/postgres"
)

const (
	generatedRounds = 24 // number of tables
	tablesAtOnce    = 8  // number of tables in one database; a transaction may write several of them
	keySpace        = 40 // number of keys from which random statements choose
)

// TestGenerated creates random tables (columns, types, keys, replica identities, partitions). Two writers run random workloads
// on them (large and small transactions over several tables, savepoints, two-phase commits, truncates, changes of definitions).
// Each file must then equal its table. CAPTURE_ROUNDS sets the number of tables. CAPTURE_SEED sets the seed, to repeat a run
// that failed.
func TestGenerated(t *testing.T) {
	if testing.Short() {
		t.Skip("runs many generated statements")
	}
	t.Parallel()
	seed, rounds := uint64(time.Now().UnixNano()), generatedRounds
	if s := os.Getenv("CAPTURE_SEED"); s != "" {
		seed, _ = strconv.ParseUint(s, 10, 64)
		rounds = tablesAtOnce
	}
	if s := os.Getenv("CAPTURE_ROUNDS"); s != "" {
		rounds, _ = strconv.Atoi(s)
	}
	types := exactTypes(t, connect(t, pgserver.Database(t)))
	for ; rounds > 0; rounds -= tablesAtOnce {
		if !t.Run(fmt.Sprintf("seed=%d", seed), func(t *testing.T) { generate(t, seed, types) }) {
			return
		}
		seed++
	}
}

// tiny reduces some sizes at random. With small sizes, a few rows fill many pages and groups, and are copied in many page
// ranges over several connections. With the usual sizes, this would need millions of rows.
func (cfg *Config) tiny(r *rand.Rand) {
	if r.IntN(2) == 0 {
		cfg.pageBytes, cfg.copying.WriteAheadBytes = pick(r, []int{64, 300, 4000}), pick(r, []int{1, 1000})
	}
	if r.IntN(2) == 0 {
		cfg.copying.Connections, cfg.copying.RangeBytes = 2, 1
	}
}

// generator creates and changes random tables in one database.
type generator struct {
	t      *testing.T
	conn   *pgx.Conn
	types  []exactType
	tables []*randomTable
	major  int

	mu  sync.Mutex
	log []string // statements that have been run
}

type randomTable struct {
	name   string
	key    []randomColumn
	order  string
	defer_ bool // whether the key is deferrable; ON CONFLICT cannot use a deferrable key

	mu      sync.Mutex
	columns []randomColumn // columns in the catalog, except the key and generated columns
}

type randomColumn struct {
	name string
	typ  string
}

// keyTypes are the types of key columns. Each has SQL expressions for key number i and for the order of the keys in the file.
var keyTypes = []struct{ typ, value, order string }{
	{"int", "i", "%s"}, {"bigint", "i::bigint * 100000000007 - 4000000000000", "%s"}, {"smallint", "(20 - i)::smallint", "%s"},
	{"text", `repeat(chr(64 + i), 1 + i %% 3) || ' "\'`, `%s COLLATE "C"`}, {"name", "('n' || i)::name", "%s"}, {"numeric", "(i - 20) / 8.0", "%s"},
	{"double precision", "(i - 20) / 7.0::float8", "%s"}, {"uuid", "md5(i::text)::uuid", "%s"}, {"bytea", "decode(md5(i::text), 'hex')", "%s"},
	{"timestamptz", "'epoch'::timestamptz + (i - 20) * interval '100 years 1 hour'", "%s"}, {"date", "'0001-01-01'::date + (i - 20) * 1000", "%s"},
	{"posint", "i", "%s"}, {"inet", "'10.0.0.0'::inet + i", `host(%s) COLLATE "C"`}, {"varchar(20)", "'v' || -i", `%s COLLATE "C"`}, {"boolean", "i %% 2 = 0", "%s"},
}

// newGenerator returns a generator for an empty database. The generator has no tables yet.
func newGenerator(t *testing.T, url string, types []exactType, seed uint64) *generator {
	t.Helper()
	g := &generator{t: t, conn: connect(t, url)}
	g.major = major(g.conn)
	ddl, err := os.ReadFile("../snapshot/rowjson/testdata/types.sql")
	if err != nil {
		t.Fatal(err)
	}
	exec(t, g.conn, string(ddl), pgx.QueryExecModeSimpleProtocol)
	for _, typ := range types {
		switch {
		case slices.Contains([]string{"citext", "ltree", "cube", "isbn", "seg", "hstore"}, typ.name): // creating extensions takes long
		case typ.name == `"char"` && g.major < 16: // row_to_json writes invalid UTF-8 for it
		default:
			g.types = append(g.types, typ)
		}
	}
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("what was run, of seed %d:\n%s", seed, strings.Join(g.log, ";\n"))
		}
	})
	return g
}

func generate(t *testing.T, seed uint64, types []exactType) {
	url := pgserver.Database(t)
	g := newGenerator(t, url, types, seed)
	r := rand.New(rand.NewPCG(seed, 0))
	var daemons []*daemon
	for i := range tablesAtOnce {
		tab := g.table(r, i)
		g.tables = append(g.tables, tab)
		for range r.IntN(3) {
			g.statement(g.conn, tab, r)
		}
		cfg := config(t, url)
		cfg.Table = postgres.Name{Table: tab.name}
		cfg.tiny(r)
		daemons = append(daemons, start(t, cfg))
	}
	var writers sync.WaitGroup
	for n := range uint64(2) {
		conn, r := connect(t, url), rand.New(rand.NewPCG(seed, n+1))
		exec(t, conn, "SET lock_timeout = '2s'")
		writers.Go(func() {
			for range 25 {
				g.transaction(conn, r)
			}
		})
	}
	writers.Wait()
	for i, tab := range g.tables {
		daemons[i].flushAndCompare(g.conn, tab.name, tab.order)
	}
	for range 10 { // all daemons follow their tables now, because flushAndCompare has waited for them
		g.transaction(g.conn, r)
	}
	for i, tab := range g.tables {
		daemons[i].flushAndCompare(g.conn, tab.name, tab.order)
	}
}

// run runs a statement and reports whether it succeeded. If the server refuses a statement, the test does not fail, because
// the test only compares the files with the tables at the end.
func (g *generator) run(conn *pgx.Conn, sql string) bool {
	_, err := conn.PgConn().Exec(g.t.Context(), sql).ReadAll()
	g.mu.Lock()
	defer g.mu.Unlock()
	note := fmt.Sprintf("/* %d */ %s", conn.PgConn().PID(), sql)
	if err != nil {
		note += fmt.Sprintf(" -- %v", err)
		if pg := (*pgconn.PgError)(nil); !errors.As(err, &pg) {
			g.t.Errorf("%s: %v", sql, err)
		}
	}
	g.log = append(g.log, note)
	return err == nil
}

func pick[T any](r *rand.Rand, of []T) T { return of[r.IntN(len(of))] }

// table creates a random table.
func (g *generator) table(r *rand.Rand, n int) *randomTable {
	tab := &randomTable{name: fmt.Sprintf("t%d", n)}
	partitioned := r.IntN(5) == 0
	var defs, key, order []string
	for i := range 1 + r.IntN(3) {
		k := keyTypes[0]
		if i > 0 || !partitioned && r.IntN(3) > 0 {
			k = pick(r, keyTypes)
		}
		c := randomColumn{fmt.Sprintf("k%d", i), k.typ}
		if r.IntN(4) == 0 {
			c.name = fmt.Sprintf(`"K ""%d"`, i)
		}
		tab.key = append(tab.key, c)
		defs = append(defs, c.name+" "+c.typ+" NOT NULL")
		key = append(key, c.name)
		order = append(order, fmt.Sprintf(k.order, c.name))
	}
	tab.order = strings.Join(order, ", ")
	for i := range r.IntN(7) {
		typ := pick(r, g.types).name
		switch r.IntN(6) {
		case 0:
			if !strings.HasSuffix(typ, "[]") {
				typ += "[]"
			}
		case 1:
			typ = "text"
		}
		defs = append(defs, fmt.Sprintf("c%d %s", i, typ))
	}
	if r.IntN(2) == 0 {
		defs = append(defs, "big text", "small int")
		if r.IntN(2) == 0 {
			defs = append(defs, "made text GENERATED ALWAYS AS (left(upper(big), 10) || small) STORED")
		}
	}
	r.Shuffle(len(defs), func(i, j int) { defs[i], defs[j] = defs[j], defs[i] })
	identity := r.IntN(5)
	tab.defer_ = identity == 0 && !partitioned
	constraint := fmt.Sprintf("PRIMARY KEY (%s)", strings.Join(key, ", "))
	if tab.defer_ {
		constraint += " DEFERRABLE INITIALLY " + pick(r, []string{"DEFERRED", "IMMEDIATE"})
	}
	sql := fmt.Sprintf("CREATE TABLE %s (%s, %s)", tab.name, strings.Join(defs, ", "), constraint)
	if partitioned {
		sql += " PARTITION BY RANGE (" + key[0] + ")"
	}
	statements := []string{sql}
	if partitioned {
		for i, bounds := range []string{"FOR VALUES FROM (MINVALUE) TO (10)", "FOR VALUES FROM (10) TO (25)", "DEFAULT"} {
			statements = append(statements, fmt.Sprintf("CREATE TABLE %s_p%d PARTITION OF %[1]s %[3]s", tab.name, i, bounds))
		}
	}
	switch {
	case tab.defer_, identity == 1 && !partitioned:
		statements = append(statements, "ALTER TABLE "+tab.name+" REPLICA IDENTITY FULL")
	case identity == 2 && !partitioned:
		statements = append(statements, fmt.Sprintf("CREATE UNIQUE INDEX %s_identity ON %[1]s (%s)", tab.name, strings.Join(key, ", ")),
			fmt.Sprintf("ALTER TABLE %s REPLICA IDENTITY USING INDEX %[1]s_identity", tab.name))
	}
	for _, sql := range statements {
		if !g.run(g.conn, sql) {
			g.t.Fatalf("%s: %s", sql, g.log[len(g.log)-1])
		}
	}
	if strings.Contains(sql, "big text") && r.IntN(2) == 0 {
		g.run(g.conn, "ALTER TABLE "+tab.name+" ALTER big SET STORAGE EXTERNAL")
	}
	g.loadColumns(g.conn, tab)
	return tab
}

// loadColumns reads the columns of a table from the catalog.
func (g *generator) loadColumns(conn *pgx.Conn, tab *randomTable) {
	rows, err := conn.Query(g.t.Context(), `SELECT quote_ident(attname), format_type(atttypid, atttypmod) FROM pg_attribute
		WHERE attrelid = $1::text::regclass AND attnum > 0 AND NOT attisdropped AND attgenerated = '' ORDER BY attnum`, tab.name)
	if err != nil {
		g.t.Errorf("look at %s: %v", tab.name, err)
		return
	}
	columns, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (c randomColumn, err error) {
		err = row.Scan(&c.name, &c.typ)
		return c, err
	})
	if err != nil {
		g.t.Errorf("look at %s: %v", tab.name, err)
	}
	columns = slices.DeleteFunc(columns, func(c randomColumn) bool {
		return slices.ContainsFunc(tab.key, func(k randomColumn) bool { return k.name == c.name })
	})
	tab.mu.Lock()
	defer tab.mu.Unlock()
	tab.columns = columns
}

func (tab *randomTable) now() []randomColumn {
	tab.mu.Lock()
	defer tab.mu.Unlock()
	return tab.columns
}

// value returns a random SQL expression of a column's type. The expression may contain i, the key number.
func (g *generator) value(c randomColumn, r *rand.Rand) string {
	if r.IntN(8) == 0 {
		return "NULL"
	}
	if c.typ == "text" && r.IntN(2) == 0 {
		return fmt.Sprintf("repeat(md5((i + %d)::text), %d)", r.IntN(1000), pick(r, []int{0, 1, 3, 100, 300}))
	}
	for _, t := range g.types {
		switch {
		case t.name == c.typ:
			return fmt.Sprintf("(%s)::%s", pick(r, t.values), c.typ)
		case t.name+"[]" == c.typ:
			return fmt.Sprintf("ARRAY[(%s)::%s, NULL, (%s)::%[2]s]", pick(r, t.values), t.name, pick(r, t.values))
		}
	}
	return "NULL" // format_type prints another name for this type than g.types contains
}

// keyValues returns an SQL expression for each key column. The expressions contain i, the number of the key.
func (tab *randomTable) keyValues() (list []string) {
	for _, c := range tab.key {
		for _, k := range keyTypes {
			if k.typ == c.typ {
				list = append(list, strings.ReplaceAll(k.value, "%%", "%"))
				break
			}
		}
	}
	return list
}

// transaction runs a random transaction over some of the tables.
func (g *generator) transaction(conn *pgx.Conn, r *rand.Rand) {
	touched := map[*randomTable]bool{}
	one := func() {
		tab := pick(r, g.tables)
		touched[tab] = true
		g.statement(conn, tab, r)
	}
	kind := r.IntN(20)
	if kind < 6 { // one statement without BEGIN
		one()
	} else {
		g.run(conn, "BEGIN")
		for range 1 + r.IntN(6) {
			if r.IntN(5) == 0 {
				g.run(conn, "SAVEPOINT s")
				one()
				one()
				g.run(conn, pick(r, []string{"ROLLBACK TO SAVEPOINT s", "ROLLBACK TO SAVEPOINT s", "RELEASE SAVEPOINT s"}))
				continue
			}
			one()
		}
		switch id := fmt.Sprintf("'%s %d'", g.t.Name(), r.Uint64()); kind {
		case 6:
			if g.run(conn, "PREPARE TRANSACTION "+id) && conn.PgConn().TxStatus() == 'I' {
				if !g.run(conn, pick(r, []string{"COMMIT", "COMMIT", "ROLLBACK"})+" PREPARED "+id) {
					g.run(conn, "ROLLBACK PREPARED "+id) // if PREPARE TRANSACTION has rolled back a failed transaction, this statement fails, too
				}
			}
		case 7:
			g.run(conn, "ROLLBACK")
		default:
			g.run(conn, "COMMIT")
		}
	}
	for tab := range touched {
		g.loadColumns(conn, tab)
	}
}

// statement runs a random statement on a table.
func (g *generator) statement(conn *pgx.Conn, tab *randomTable, r *rand.Rand) {
	columns := tab.now()
	keys := tab.keyValues()
	from, to := r.IntN(keySpace), r.IntN(keySpace)
	if r.IntN(3) > 0 {
		to = from
	}
	if from > to {
		from, to = to, from
	}
	numbers := fmt.Sprintf("generate_series(%d, %d) i", from, to)
	var names, keyNames, values, match []string
	for i, c := range tab.key {
		names, values = append(names, c.name), append(values, keys[i])
		keyNames = append(keyNames, c.name)
		match = append(match, fmt.Sprintf("t.%s = s.%[1]s", c.name))
	}
	for _, c := range columns {
		if r.IntN(4) > 0 {
			names, values = append(names, c.name), append(values, g.value(c, r))
		}
	}
	source := fmt.Sprintf("(SELECT i, %s FROM %s)", aliased(values, names), numbers)
	same := "(" + strings.Join(keyNames, ", ") + ") IN (SELECT " + strings.Join(keys, ", ") + " FROM " + numbers + ")"
	set := func() string {
		if len(columns) == 0 {
			return keyNames[0] + " = " + keyNames[0]
		}
		var list []string
		for _, c := range columns {
			if len(list) == 0 || r.IntN(4) == 0 {
				list = append(list, c.name+" = "+strings.ReplaceAll(g.value(c, r), "(i + ", "(7 + "))
			}
		}
		return strings.Join(list, ", ")
	}
	insert := fmt.Sprintf("INSERT INTO %s (%s) SELECT %s FROM %s", tab.name, strings.Join(names, ", "), strings.Join(values, ", "), numbers)
	switch n := r.IntN(100); {
	case n < 15:
		g.run(conn, insert)
	case n < 40:
		if tab.defer_ {
			g.run(conn, "DELETE FROM "+tab.name+" WHERE "+same)
			g.run(conn, insert)
			return
		}
		g.run(conn, insert+" ON CONFLICT ("+strings.Join(keyNames, ", ")+") DO "+pick(r, []string{"NOTHING", "UPDATE SET " + set()}))
	case n < 60:
		g.run(conn, fmt.Sprintf("UPDATE %s SET %s WHERE %s", tab.name, set(), same))
	case n < 70: // keys change, long values do not
		other := strings.NewReplacer("i::", "(i + 1)::", "(i - 20)", "(i - 19)", "- i", "- (i + 1)", "|| i", "|| (i + 1)", "+ i", "+ (i + 1)")
		moved := other.Replace(keys[0])
		if keys[0] == "i" {
			moved = "i + 1"
		}
		g.run(conn, fmt.Sprintf("UPDATE %s SET %s = s.moved FROM (SELECT %s AS k, %s AS moved FROM %s) s WHERE %[2]s = s.k", tab.name, keyNames[0], keys[0], moved, numbers))
	case n < 80:
		g.run(conn, fmt.Sprintf("DELETE FROM %s WHERE %s", tab.name, same))
	case n < 84 && g.major >= 15:
		g.run(conn, fmt.Sprintf("MERGE INTO %s t USING %s s ON %s WHEN MATCHED AND s.i %% 3 = 0 THEN DELETE WHEN MATCHED THEN UPDATE SET %s WHEN NOT MATCHED THEN INSERT (%s) VALUES (%s)",
			tab.name, source, strings.Join(match, " AND "), set(), strings.Join(names, ", "), "s."+strings.Join(names, ", s.")))
	case n < 86:
		g.run(conn, "TRUNCATE "+tab.name+pick(r, []string{"", ", " + pick(r, g.tables).name}))
	case n < 88:
		g.run(conn, fmt.Sprintf("UPDATE %s SET %s", tab.name, set()))
	case n < 90:
		g.run(conn, fmt.Sprintf("INSERT INTO %s (%s) SELECT %s FROM generate_series(1000, 1400) i ON CONFLICT DO NOTHING", tab.name, strings.Join(names, ", "), strings.Join(values, ", ")))
	case n < 93:
		g.run(conn, g.define(tab, columns, r))
	default:
		g.run(conn, "DELETE FROM "+tab.name+" WHERE "+keyNames[0]+" IN (SELECT "+keyNames[0]+" FROM "+tab.name+" LIMIT 5)")
	}
}

func aliased(values, names []string) string {
	list := make([]string, len(values))
	for i := range values {
		list[i] = values[i] + " AS " + names[i]
	}
	return strings.Join(list, ", ")
}

// define returns SQL for a random change of the table's definition.
func (g *generator) define(tab *randomTable, columns []randomColumn, r *rand.Rand) string {
	alter := "ALTER TABLE " + tab.name
	n := r.IntN(6)
	if len(columns) == 0 {
		n = 0
	}
	switch n {
	case 1:
		return alter + " DROP COLUMN " + pick(r, columns).name
	case 2:
		return fmt.Sprintf("%s RENAME COLUMN %s TO r%d", alter, pick(r, columns).name, r.IntN(1000))
	case 3:
		return fmt.Sprintf("%s ALTER COLUMN %s TYPE text", alter, pick(r, columns).name)
	case 4:
		return fmt.Sprintf("%s ALTER COLUMN %s SET DEFAULT NULL", alter, pick(r, columns).name)
	}
	typ := pick(r, g.types)
	return fmt.Sprintf("%s ADD COLUMN a%d %s DEFAULT (%s)::%[3]s", alter, r.IntN(1000), typ.name, pick(r, typ.values))
}
