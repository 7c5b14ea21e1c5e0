package recovery_test

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"

	"capture/internal/pgserver"
	"capture/internal/postgres"
	"capture/internal/recovery"
	"capture/snapshot"
	"capture/snapshot/rowjson"
	"capture/store"
)

func TestMain(m *testing.M) { os.Exit(pgserver.Main(m.Run)) }

// db is a database of a test's own.
type db struct {
	*testing.T
	url  string
	cfg  *pgx.ConnConfig
	conn *pgx.Conn // with the settings of postgres.Connect
}

func newDB(t *testing.T, with ...string) *db {
	t.Helper()
	d := &db{T: t, url: pgserver.Database(t, with...)}
	cfg, err := postgres.ParseConfig(d.url)
	if err != nil {
		t.Fatal(err)
	}
	d.cfg = cfg
	d.conn = d.connect(cfg)
	return d
}

func (d *db) connect(cfg *pgx.ConnConfig) *pgx.Conn {
	d.Helper()
	conn, err := postgres.Connect(context.Background(), cfg)
	if err != nil {
		d.Fatal(err)
	}
	d.Cleanup(func() { conn.Close(context.Background()) })
	return conn
}

// as connects as another role, made for it.
func (d *db) as(role string) *pgx.Conn {
	d.Helper()
	cfg := d.cfg.Copy()
	cfg.User = role
	return d.connect(cfg)
}

func (d *db) exec(sql string) {
	d.Helper()
	if _, err := d.conn.PgConn().Exec(context.Background(), sql).ReadAll(); err != nil {
		d.Fatalf("%v in\n%.2000s", err, sql)
	}
}

// text is the answer of a query: rows by newline, columns by "|".
func (d *db) text(sql string) string {
	d.Helper()
	results, err := d.conn.PgConn().Exec(context.Background(), sql).ReadAll()
	if err != nil {
		d.Fatalf("%v in\n%.2000s", err, sql)
	}
	var b strings.Builder
	for i, row := range results[len(results)-1].Rows {
		if i > 0 {
			b.WriteByte('\n')
		}
		b.Write(bytes.Join(row, []byte("|")))
	}
	return b.String()
}

func (d *db) name(table string) postgres.Name {
	d.Helper()
	name, err := postgres.ParseName(table)
	if err != nil {
		d.Fatal(err)
	}
	return name
}

// export writes the table as capture does, with its manifest, and returns the path.
func (d *db) export(table string) string {
	d.Helper()
	path := filepath.Join(d.TempDir(), "feedback.json")
	d.write(d.view(table), path)
	return path
}

func (d *db) write(v *snapshot.View, path string) {
	d.Helper()
	f, err := store.Open(path, store.Owner{Version: "test"})
	if err != nil {
		d.Fatal(err)
	}
	defer f.Close()
	if _, err := f.Write(v, store.ReasonExport); err != nil {
		d.Fatal(err)
	}
}

// view reads the table.
func (d *db) view(table string) *snapshot.View {
	d.Helper()
	ctx := context.Background()
	tab, err := postgres.LoadTable(ctx, d.conn, d.name(table))
	if err != nil {
		d.Fatal(err)
	}
	enc, err := rowjson.NewEncoder(tab.Shape, false)
	if err != nil {
		d.Fatal(err)
	}
	t := snapshot.NewTable()
	t.Load(tab.Shape, snapshot.Origin{Source: "export"})
	rows, err := d.conn.Query(ctx, "SELECT "+tab.SelectList()+" FROM "+tab.FromClause())
	if err != nil {
		d.Fatal(err)
	}
	for rows.Next() {
		key, err := enc.AppendKey(nil, rows.RawValues())
		if err != nil {
			d.Fatal(err)
		}
		line, err := enc.AppendCopiedRow(nil, rows.RawValues())
		if err != nil {
			d.Fatal(err)
		}
		t.Put(key, line)
	}
	if rows.Err() != nil {
		d.Fatal(rows.Err())
	}
	t.Commit(snapshot.Position{})
	return t.View()
}

// file writes a file as another program would.
func (d *db) file(content string) string {
	d.Helper()
	path := filepath.Join(d.TempDir(), "feedback.json")
	if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
		d.Fatal(err)
	}
	return path
}

func (d *db) restore(o recovery.Options) recovery.Result {
	d.Helper()
	res, err := recovery.Restore(context.Background(), d.conn, o)
	if err != nil {
		d.Fatal(err)
	}
	return res
}

// refuses restores, and expects an error that has all of the words and none of the file's texts.
func (d *db) refuses(o recovery.Options, words ...string) error {
	d.Helper()
	res, err := recovery.Restore(context.Background(), d.conn, o)
	if err == nil {
		d.Fatalf("restored: %+v", res)
	}
	d.says(err, words...)
	return err
}

func (d *db) says(err error, words ...string) {
	d.Helper()
	for _, word := range words {
		if !strings.Contains(err.Error(), word) {
			d.Errorf("the error does not say %q:\n%v", word, err)
		}
	}
	if strings.Contains(err.Error(), "SECRET") {
		d.Errorf("the error shows a value:\n%v", err)
	}
}

const votesDDL = `CREATE TABLE votes (
	vote_id serial PRIMARY KEY, user_query text, bot_response text, evaluation_json jsonb, feedback_tags text[],
	comment text, citations jsonb, "timestamp" timestamp DEFAULT CURRENT_TIMESTAMP)`

// votes makes n rows with the odd texts that votes have.
func (d *db) votes(n int) {
	d.Helper()
	d.exec(fmt.Sprintf(`%s; INSERT INTO votes (user_query, bot_response, evaluation_json, feedback_tags, comment, citations, "timestamp")
		SELECT 'question ' || i, repeat(E'Line\n"x"\\ é 🗳️\t', 1 + i %% 20), jsonb_build_object('score', i %% 5, 'n', i::numeric / 7),
			ARRAY['a', 'b "c"', NULL], CASE WHEN i %% 3 = 0 THEN NULL ELSE 'NULL' END, '[{"url": "x"}]', '2025-06-17 16:58:00'::timestamp + i * interval '1.5 s'
		FROM generate_series(1, %d) i`, votesDDL, n))
}

// same expects both tables to hold the same rows.
func (d *db) same(a, b, key string) {
	d.Helper()
	query := "SELECT row_to_json(t) FROM %s t ORDER BY " + key
	left, right := d.text(fmt.Sprintf(query, a)), d.text(fmt.Sprintf(query, b))
	if left != right {
		l, r := strings.Split(left, "\n"), strings.Split(right, "\n")
		for i := range l {
			if i >= len(r) || l[i] != r[i] {
				d.Fatalf("%s and %s differ from row %d of %d and %d:\n%.1000s\n%.1000s", a, b, i, len(l), len(r), l[i], strings.Join(r[min(i, len(r)):], "\n"))
			}
		}
		d.Fatalf("%s has more rows than %s", b, a)
	}
}
