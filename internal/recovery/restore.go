package recovery

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/jackc/pgx/v5"

	"capture/internal/postgres"
	"capture/store"
)

// OnConflict is what Restore does with a row whose key the table has already.
type OnConflict string

const (
	Fail      OnConflict = "fail"      // nothing is restored
	Skip      OnConflict = "skip"      // the table's row stays
	Overwrite OnConflict = "overwrite" // the file's row takes its place
)

// Options are what Restore does, and how.
type Options struct {
	Path            string        // of feedback.json, plain or gzipped; "-" reads Stdin
	Stdin           io.Reader     // for "-"
	Table           postgres.Name // zero for the one in the manifest
	Create          bool          // make the table from the manifest where it is missing
	OnConflict      OnConflict    // Fail where empty
	DeleteExtra     bool          // delete the table's rows that are not in the file
	DryRun          bool          // do it all, count, and undo it
	DisableTriggers bool          // no trigger and no foreign key of the table acts on the rows

	// Confirm is asked before rows that the table has are overwritten or deleted; an error ends the restore. nil means yes.
	Confirm func(table string, rows int64) error
	// Progress is told now and then how far it is. May be nil.
	Progress func(Progress)
}

// Progress is how far a restore or a verification is.
type Progress struct {
	Doing string // "reading", "waiting for the table", …
	Rows  int    // so far
	Bytes int64  // of the file's JSON, so far
	Total int64  // bytes in all; 0 where not known
}

// Result is what a restore did, or with DryRun what it would do.
type Result struct {
	Table       string     `json:"table"`
	Created     bool       `json:"created,omitempty"`
	DryRun      bool       `json:"dry_run,omitempty"`
	Checked     bool       `json:"checked"` // the file agreed with its manifest; false where it has none
	Rows        int        `json:"rows"`    // in the file
	Inserted    Change     `json:"inserted"`
	Overwritten Change     `json:"overwritten"`
	Unchanged   int64      `json:"unchanged"` // the table had the very row already
	Skipped     Change     `json:"skipped"`
	Deleted     Change     `json:"deleted"`
	Sequences   []Sequence `json:"sequences,omitempty"`
	Notes       []string   `json:"notes,omitempty"` // what the user should know: sentences
}

// Change is a number of rows and the first few of their keys.
type Change struct {
	Rows int64    `json:"rows"`
	Keys []string `json:"keys,omitempty"`
}

// Sequence is one that was set to go on after the highest key.
type Sequence struct {
	Name string `json:"name"`
	Last int64  `json:"last"` // the number that it counts as given out
}

// ConflictError is that rows of the file have keys that the table has, and Options.OnConflict is Fail.
type ConflictError struct {
	Table string
	Rows  int64 // how many; 0 where only the first is known
	First string
}

func (e *ConflictError) Error() string {
	rows := "a row of the file is"
	if e.Rows > 1 {
		rows = fmt.Sprintf("%d rows of the file are", e.Rows)
	}
	return fmt.Sprintf("%s in table %s already, the first at %s; --on-conflict skip keeps the table's rows, overwrite takes the file's",
		rows, e.Table, e.First)
}

// Restore puts the file into the table in one transaction: on any error nothing has changed. Other sessions can read the
// table meanwhile, and write it when it is done.
func Restore(ctx context.Context, conn *pgx.Conn, o Options) (Result, error) {
	if o.OnConflict == "" {
		o.OnConflict = Fail
	}
	in, err := openInput(o.Path, o.Stdin)
	if err != nil {
		return Result{}, fmt.Errorf("restore: %w", err)
	}
	defer in.close()
	r := &restore{o: o, in: in, from: newReader(in), conn: conn}
	if err := r.run(ctx); err != nil {
		return Result{}, fmt.Errorf("restore %s: %w", in.name(), r.diagnose(err))
	}
	return r.result, nil
}

// restore is one run of Restore.
type restore struct {
	o      Options
	in     *input
	from   *reader
	conn   *pgx.Conn
	tx     pgx.Tx
	result Result

	plan   *plan
	first  []member // the file's first row
	at     row
	empty  bool // the table has no rows
	broken bool // the file could not be read to its end
}

func (r *restore) run(ctx context.Context) (err error) {
	if err := r.checkSize(); err != nil {
		return err
	}
	if err := r.peek(); err != nil {
		return err
	}
	if r.tx, err = postgres.Begin(ctx, r.conn, "ISOLATION LEVEL READ COMMITTED READ WRITE"); err != nil {
		return postgres.Explain(fmt.Errorf("begin: %w", err))
	}
	defer r.tx.Rollback(context.WithoutCancel(ctx))
	if err := r.prepare(ctx); err != nil {
		return err
	}
	enable, err := r.disableTriggers(ctx)
	if err != nil {
		return err
	}
	if err := r.load(ctx); err != nil {
		return err
	}
	if err := r.in.whole(r.from.rows); err != nil {
		return err
	}
	r.result.Rows, r.result.Checked = r.from.rows, r.in.manifest != nil
	// What is deferred is checked here, so that it fails a dry run, too.
	if _, err := r.tx.Exec(ctx, "SET CONSTRAINTS ALL IMMEDIATE"); err != nil {
		return explain("check the deferred constraints", err)
	}
	if err := enable(ctx); err != nil {
		return err
	}
	if r.o.DryRun {
		return nil
	}
	if err := r.advanceSequences(ctx); err != nil {
		return err
	}
	if err := r.tx.Commit(ctx); err != nil {
		return explain("commit", err)
	}
	return nil
}

// checkSize finds a file that was cut short before anything is sent.
func (r *restore) checkSize() error {
	if r.in.manifest == nil || r.in.gzip || r.in.file == nil {
		return nil
	}
	info, err := r.in.file.Stat()
	if err != nil || !info.Mode().IsRegular() || info.Size() == r.in.manifest.Bytes {
		return err
	}
	return &MismatchError{fmt.Sprintf("it has %d bytes, and the manifest says %d", info.Size(), r.in.manifest.Bytes)}
}

// peek reads the first row, which says what the columns are.
func (r *restore) peek() (err error) {
	r.at, err = r.from.next()
	if err == io.EOF {
		return nil
	}
	if err == nil {
		r.first, err = members([]member{}, r.at.text)
		if err != nil {
			err = fmt.Errorf("line %d: %w", r.at.line, err)
		}
	}
	r.broken = err != nil
	return err
}

// diagnose says of a file with bad rows whether it is the one that was written: if not, that is the reason.
func (r *restore) diagnose(err error) error {
	var mismatch *MismatchError
	if r.in.manifest == nil || errors.As(err, &mismatch) || !r.broken {
		return err
	}
	if r.in.drain() != nil {
		return err
	}
	if why := r.in.whole(r.in.manifest.Rows); why != nil {
		return fmt.Errorf("%w; found at: %w", why, err)
	}
	return err
}

// prepare finds or makes the table, matches its columns, asks, and locks it.
func (r *restore) prepare(ctx context.Context) error {
	name := targetOf(r.o.Table, r.in.manifest)
	table, err := postgres.LoadTable(ctx, r.tx, name)
	var problem *postgres.Problem
	if errors.As(err, &problem) && problem.TableMissing() {
		if !r.o.Create {
			return &postgres.Problem{
				Summary: fmt.Sprintf("table %s does not exist in this database", name), Err: err,
				Hint: "--create makes it from the manifest, or name another one with --table",
			}
		}
		if err := r.create(ctx, name); err != nil {
			return err
		}
		table, err = postgres.LoadTable(ctx, r.tx, name)
	}
	if err != nil {
		return err
	}
	r.result.Table, r.result.DryRun = table.Name().String(), r.o.DryRun
	if r.plan, err = r.match(table); err != nil {
		return err
	}
	r.result.Notes = append(r.result.Notes, r.plan.notes...)
	return r.claim(ctx)
}

func (r *restore) match(table *postgres.Table) (*plan, error) {
	if r.first == nil {
		return &plan{table: table}, nil
	}
	return newPlan(table, r.first, r.in.manifest)
}

// claim asks whether rows may go, and keeps others from writing to the table until the end.
func (r *restore) claim(ctx context.Context) error {
	table := r.plan.table
	if !r.o.DryRun && r.o.Confirm != nil && (r.o.OnConflict == Overwrite || r.o.DeleteExtra) {
		var rows int64
		if err := r.tx.QueryRow(ctx, "SELECT count(*) FROM "+table.FromClause()).Scan(&rows); err != nil {
			return explain("count the rows of "+r.result.Table, err)
		}
		if rows > 0 {
			if err := r.o.Confirm(r.result.Table, rows); err != nil {
				return err
			}
		}
	}
	if !r.o.DryRun {
		r.report("waiting for the table", 0, 0)
		// Reading goes on. Writing waits, so that what is compared below stays so, and no number of a sequence is lost.
		if _, err := r.tx.Exec(ctx, "LOCK TABLE "+table.Name().Quoted()+" IN SHARE ROW EXCLUSIVE MODE"); err != nil {
			return explain("lock table "+r.result.Table, err)
		}
	}
	err := r.tx.QueryRow(ctx, "SELECT NOT EXISTS (SELECT FROM "+table.FromClause()+")").Scan(&r.empty)
	if err != nil {
		return explain("look into table "+r.result.Table, err)
	}
	return nil
}

// load brings the rows in: straight where no row can be in the way or one in the way ends it, else by way of a temporary
// table.
func (r *restore) load(ctx context.Context) error {
	if r.first == nil {
		return r.loadNothing(ctx)
	}
	if r.empty || r.o.OnConflict == Fail && !r.o.DeleteExtra && !r.o.DryRun {
		table := r.plan.table
		l := r.loader(table.Name().Quoted()+" ("+join(r.plan.given())+")", false)
		if err := l.run(ctx, r.first, r.at); err != nil {
			r.broken = true
			return r.conflict(ctx, err)
		}
		r.result.Inserted = Change{int64(l.rows), l.first}
		return nil
	}
	return r.merge(ctx)
}

// loadNothing restores a file without rows.
func (r *restore) loadNothing(ctx context.Context) error {
	if !r.o.DeleteExtra {
		return nil
	}
	table := r.plan.table
	keys := make([]string, len(table.Key))
	for i, k := range table.Key {
		keys[i] = table.Columns[k].Name
	}
	sql := "DELETE FROM " + table.Name().Quoted() + " t"
	change, err := r.count(ctx, "SELECT "+keyList("t", keys)+" FROM "+table.FromClause()+" t", keyOrder("t", keys))
	if err != nil {
		return err
	}
	if _, err := r.tx.Exec(ctx, sql); err != nil {
		return explain("delete from "+r.result.Table, err)
	}
	r.result.Deleted = change
	return nil
}

func (r *restore) loader(into string, staged bool) *loader {
	return &loader{in: r.in, from: r.from, plan: r.plan, staged: staged, tx: r.tx, into: into,
		progress: func(rows int, bytes int64) { r.report("restoring", rows, bytes) }}
}

// conflict makes the error of a straight load whose key the table has already clearer: the row is there, or it is in the
// file twice.
func (r *restore) conflict(ctx context.Context, err error) error {
	var at *rowError
	if !errors.As(err, &at) || postgres.SQLState(err) != "23505" || at.keys == nil {
		return err
	}
	if r.empty {
		return fmt.Errorf("%w; the table was empty, so that the file has two such rows", err)
	}
	if rerr := r.tx.Rollback(ctx); rerr != nil {
		return err
	}
	sql, args := "SELECT EXISTS (SELECT FROM "+r.plan.table.FromClause()+" WHERE ", []any{}
	for i, k := range r.plan.key {
		if i > 0 {
			sql += " AND "
		}
		sql += fmt.Sprintf("%s = $%d::text::%s", postgres.QuoteIdentifier(r.plan.names[k]), i+1, r.plan.into[k].column.TypeName)
		args = append(args, at.keys[i])
	}
	var there bool
	if r.conn.QueryRow(ctx, sql+")", args...).Scan(&there) == nil && there {
		return &ConflictError{Table: r.result.Table, First: at.place}
	}
	return err
}

func (r *restore) report(doing string, rows int, bytes int64) {
	if r.o.Progress == nil {
		return
	}
	p := Progress{Doing: doing, Rows: rows, Bytes: bytes}
	if m := r.in.manifest; m != nil {
		p.Total = m.Bytes
	} else if r.in.file != nil && !r.in.gzip {
		if info, err := r.in.file.Stat(); err == nil {
			p.Total = info.Size()
		}
	}
	r.o.Progress(p)
}

// targetOf is the table that is meant: the one that is asked for, else the manifest's, else votes.
func targetOf(asked postgres.Name, m *store.Manifest) postgres.Name {
	switch {
	case asked.Table != "":
		return asked
	case m != nil:
		return postgres.Name{Schema: m.Table.Schema, Table: m.Table.Name}
	}
	return postgres.Name{Table: "votes"}
}
