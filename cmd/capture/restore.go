package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"capture/internal/foreign"
	"capture/internal/postgres"
	"capture/internal/restore"
	"capture/store/loss"
)

type restoreCmd struct {
	fileConfig
	Create          bool   `help:"Create the table from the manifest if it is missing."`
	Expressions     bool   `help:"With --create, also create the defaults and generated columns of the manifest that are expressions. They can run any function of the database: read them first, as a restore without this flag shows them."`
	Edited          bool   `help:"Accept a file that was edited after capture wrote it. The manifest then only describes the table, for example for --create. Damage is noticed only if the JSON becomes invalid."`
	OnConflict      choice `enum:"fail,skip,overwrite" placeholder:"fail|skip|overwrite" default:"fail" help:"What to do if the table has a row's key already: restore nothing (fail), keep the table's row (skip) or replace it (overwrite)."`
	DeleteExtra     bool   `help:"Delete rows of the table that are not in the file. With --on-conflict overwrite, the table becomes equal to the file."`
	DryRun          bool   `help:"Restore in a transaction, print the result and roll back."`
	DisableTriggers bool   `help:"Disable the table's triggers and rules and, if the user may, its foreign keys during the restore."`
	Yes             bool   `short:"y" help:"Overwrite and delete, and restore into a table that only the manifest names, without asking for confirmation."`
	JSON            bool   `name:"json" help:"Print the result as JSON."`
}

func (restoreCmd) Help() string {
	return "Loads the file into a table in one transaction: on any error, nothing changes. Columns are matched by name. " +
		"Sequences continue after the highest key. A file that does not match its manifest is refused without --edited. Into an empty table, and with " +
		"--on-conflict overwrite --delete-extra, the table becomes what the file says: a trigger or rule that leaves out or changes " +
		"rows undoes the restore. Otherwise the result reports such rows, and rows of other tables that went with them. While rows are written, " +
		"other sessions can read the table; their writes wait. If the file follows a loss that nobody has acknowledged, how to " +
		"restore what was lost is printed first."
}

func (restoreCmd) Examples() string {
	return `
	capture restore --create
	capture restore --on-conflict skip --dry-run data/fallback/feedback-20261123T160000Z.json.gz
	capture restore --on-conflict skip --at 2h
	capture restore --table archive.votes feedback.json
	capture restore --create s3://bucket/feedback
	gunzip -c feedback.json.gz | capture restore -`
}

func (c restoreCmd) Run(ctx context.Context, std streams) error {
	remove, err := c.chooseState(ctx, std, "capture restore")
	defer remove()
	if err != nil {
		return err
	}
	cfg, err := c.database().connConfig()
	if err != nil {
		return err
	}
	c.database().warnAboutPassword(std)
	conn, err := postgres.Connect(ctx, cfg)
	if err != nil {
		return err
	}
	defer conn.Close(context.WithoutCancel(ctx))
	start, shown := time.Now(), newProgress(std.err, "capture restore")
	options := restore.Options{
		Path: c.File, Stdin: os.Stdin, Table: c.Table.Name, Create: c.Create, Expressions: c.Expressions,
		OnConflict: restore.OnConflict(c.OnConflict), DeleteExtra: c.DeleteExtra, Edited: c.Edited, MissingNull: c.Missing == "null", DryRun: c.DryRun, DisableTriggers: c.DisableTriggers, Progress: shown.show,
	}
	if !c.Yes {
		options.Confirm = func(table string, rows int64) error { return c.confirmLoss(ctx, std, table, rows) }
		options.ConfirmTable = func(table string) error { return c.confirmTable(ctx, std, table) }
	}
	result, err := restore.Restore(ctx, conn, options)
	shown.clear()
	if ctx.Err() != nil && err != nil && !errors.Is(err, restore.ErrUnknownOutcome) {
		return errors.New("interrupted; nothing has changed")
	}
	if err != nil {
		return c.explainUnusableState(err)
	}
	if c.JSON {
		return printJSON(std.out, result, "")
	}
	_, err = io.WriteString(std.out, foreign.Lines(restoredText(result, time.Since(start))))
	return err
}

// confirmLoss asks the user whether rows may be overwritten or deleted.
func (c restoreCmd) confirmLoss(ctx context.Context, std streams, table string, rows int64) error {
	var may []string
	if c.OnConflict == choice(restore.Overwrite) {
		may = append(may, "overwrite those that the file has differently")
	}
	if c.DeleteExtra {
		may = append(may, "delete those that it lacks")
	}
	return c.ask(ctx, std, fmt.Sprintf("table %s has %s: %s", table, rowsText(int(rows)), strings.Join(may, " and ")),
		"Use --yes to do so, or --dry-run to see which")
}

// confirmTable asks the user whether to restore into a table that only the file's manifest names.
func (c restoreCmd) confirmTable(ctx context.Context, std streams, table string) error {
	return c.ask(ctx, std, fmt.Sprintf("the file's manifest names table %s, and --table and CAPTURE_TABLE name none: restore into %[1]s", table),
		"Name it with --table, or use --yes")
}

// ask asks the user to confirm the question. If the file comes from standard input, the user cannot answer the question,
// and ask returns an error that tells the user what to do instead.
func (c restoreCmd) ask(ctx context.Context, std streams, question, instead string) error {
	if c.File == "-" { // confirm would read the answer from standard input, and could take the file's rows for the answer
		return fmt.Errorf("%s? %s", question, instead)
	}
	return confirm(ctx, std, "capture restore", question, instead)
}

// restoredText returns the result as text.
func restoredText(r restore.Result, took time.Duration) string {
	var b strings.Builder
	done := "restored"
	if r.DryRun {
		done = "would be restored"
	}
	checked := "there is no manifest to check it against"
	switch {
	case r.Checked:
		checked = "the file matches its manifest"
	case r.Edited:
		checked = "the file was not compared with its manifest"
	}
	fmt.Fprintf(&b, "%s: %s from a file of %s in %s; %s\n", foreign.Text(r.Table), done, rowsText(r.Rows), spanText(took), checked)
	if r.Created {
		fmt.Fprintf(&b, "  %-12s the table\n", "created")
	}
	for _, change := range []struct {
		what string
		restore.Change
	}{{"inserted", r.Inserted}, {"overwritten", r.Overwritten}, {"unchanged", restore.Change{Rows: r.Unchanged}}, {"skipped", r.Skipped}, {"deleted", r.Deleted},
		{"left out", r.LeftOut}, {"changed", r.Changed}, {"not deleted", r.Remaining}} {
		if change.Rows > 0 {
			fmt.Fprintf(&b, "  %-12s %s%s\n", change.what, rowsText(int(change.Rows)), keysText(change.Rows, change.Keys))
		}
	}
	if r.By != "" {
		fmt.Fprintf(&b, "  %-12s %s\n", "by", foreign.Line(r.By))
	}
	for _, o := range r.Others {
		fmt.Fprintf(&b, "  %-12s %s\n", "other table", otherTableText(o))
	}
	for _, s := range r.Sequences {
		continues := "continues"
		if r.DryRun {
			continues = "would continue"
		}
		fmt.Fprintf(&b, "  %-12s %s %s after %d\n", "sequence", foreign.Text(s.Name), continues, s.Last)
	}
	for _, s := range r.NotSet {
		fmt.Fprintf(&b, "  %-12s sequence %s%s: %s\n", "not set", foreign.Text(s.Name), withPrefix(" after ", s.Last), foreign.Text(s.Reason))
	}
	for _, note := range r.Notes {
		fmt.Fprintf(&b, "  %-12s %s\n", "note", foreign.Line(note))
	}
	if r.DryRun {
		b.WriteString("This was a dry run: nothing has changed.\n")
	} else if loss.MayLoseValues(int(r.Overwritten.Rows), r.Rows-int(r.Inserted.Rows)) {
		fmt.Fprintf(&b, "  %-12s a daemon of capture reports so many overwritten rows as a loss; if the table is right now: capture history --ack\n", "note")
	}
	return b.String()
}

// otherTableText returns what changed in another table: "public.child: 3 rows deleted".
func otherTableText(o restore.OtherTable) string {
	var parts []string
	for _, p := range []struct {
		rows int64
		what string
	}{{o.Inserted, "inserted"}, {o.Updated, "updated"}, {o.Deleted, "deleted"}} {
		if p.rows > 0 {
			parts = append(parts, rowsText(int(p.rows))+" "+p.what)
		}
	}
	return foreign.Text(o.Table) + ": " + strings.Join(parts, ", ")
}

// keysText returns the first keys of several rows as text: ": 1; 2; 3; …".
func keysText(rows int64, keys []string) string {
	if len(keys) == 0 {
		return ""
	}
	shown := make([]string, len(keys))
	for i, key := range keys {
		shown[i] = foreign.Text(key) // a key may contain text that a user wrote
	}
	text := ": " + strings.Join(shown, "; ")
	if rows > int64(len(keys)) {
		text += "; …"
	}
	return text
}
