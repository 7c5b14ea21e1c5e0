package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5"

	"capture/internal/foreign"
	"capture/internal/postgres"
)

type setupCmd struct {
	databaseConfig
	Source choice `enum:"auto,logical,notify" placeholder:"auto|logical|notify" env:"CAPTURE_SOURCE" default:"auto" help:"Source to prepare for. auto means logical, if the database allows it. notify creates triggers, which slow commits down. poll needs no setup."`
	Role   string `placeholder:"NAME" help:"Also create this role for capture, with only the rights that it needs."`
	printConfig
}

func (setupCmd) Help() string {
	return "Creates what is missing in the database: the publication for logical replication, or with --source notify the " +
		"triggers for notifications. Run it as the owner of the table or as an administrator. It is safe to run it again."
}

func (setupCmd) Examples() string {
	return `
	capture setup --database-url postgres://owner@db/app --role capture
	capture setup --print`
}

func (c setupCmd) Run(ctx context.Context, std streams) error {
	var notes []string   // notes to print after the statements
	var missing []string // statements that the user may not run
	statements, err := c.runPlan(ctx, std, c.Print, func(conn *pgx.Conn) ([]string, error) {
		table, err := postgres.LoadTable(ctx, conn, c.Table.Name)
		if err != nil {
			return nil, err
		}
		options := postgres.SetupOptions{Source: string(c.Source), Role: c.Role, Complete: c.Print}
		statements, err := postgres.SetupSQL(ctx, conn, table, options)
		if p := (*postgres.Problem)(nil); errors.As(err, &p) && c.Print && c.Source == "auto" {
			// Logical replication is not possible now. But whoever runs the printed SQL can also change settings that
			// logical replication needs, such as wal_level. So setup prints the SQL for logical replication, after a comment
			// that names what is missing.
			options.Source = "logical"
			if later, laterErr := postgres.SetupSQL(ctx, conn, table, options); laterErr == nil {
				fmt.Fprintf(std.out, "-- %s\n", strings.ReplaceAll(foreign.Lines(err.Error()), "\n", "\n-- "))
				statements, err = later, nil
			}
		}
		if c.Role != "" && err == nil && !c.Print {
			options.Complete = true
			complete, err := postgres.SetupSQL(ctx, conn, table, options)
			if err != nil {
				return nil, err
			}
			missing = slices.DeleteFunc(complete, func(s string) bool { return slices.Contains(statements, s) })
		}
		if len(statements) > 0 && strings.HasPrefix(statements[0], "CREATE ROLE") {
			notes = append(notes, fmt.Sprintf("role %s has no password; set one with \\password in psql", c.Role))
		}
		if c.Role != "" && err == nil && slices.ContainsFunc(statements, grantsReplication) {
			encrypted, err := postgres.OffersTLS(ctx, conn)
			if err != nil {
				return nil, err
			}
			notes = append(notes, fmt.Sprintf("REPLICATION also lets role %s copy the whole cluster (pg_basebackup); to limit it to this database, put these lines first in pg_hba.conf:\n%s",
				c.Role, postgres.HBALines(conn.Config().Database, c.Role, encrypted)))
		}
		return statements, err
	})
	if err != nil {
		return err
	}
	if len(missing) > 0 {
		notes = append(notes, "you may not run the statements that are still missing; run the command as a superuser or the service's administrator, or give them this SQL:\n"+
			strings.Join(missing, ";\n")+";")
	}
	if len(statements) > 0 || len(missing) == 0 {
		if err := printStatements(std.out, statements); err != nil {
			return err
		}
	}
	for _, note := range notes {
		fmt.Fprintf(std.err, "capture setup: %s\n", note)
	}
	return nil
}

// runPlan calls makeStatements and returns the statements that it has made. Unless printOnly is set, runPlan also runs them.
func (c databaseConfig) runPlan(ctx context.Context, std streams, printOnly bool, makeStatements func(*pgx.Conn) ([]string, error)) ([]string, error) {
	database, err := c.connConfig()
	if err != nil {
		return nil, err
	}
	c.warnAboutPassword(std)
	conn, err := postgres.Connect(ctx, database)
	if err != nil {
		return nil, err
	}
	defer conn.Close(context.WithoutCancel(ctx))
	statements, err := makeStatements(conn)
	if err == nil && !printOnly {
		err = explainLackingRight(postgres.ApplyStatements(ctx, conn, statements))
	}
	return statements, err
}

// explainLackingRight adds a hint to the server's error about a missing privilege. The hint says who can run the statements
// instead. explainLackingRight returns any other error unchanged.
func explainLackingRight(err error) error {
	var p *postgres.Problem
	if !errors.As(err, &p) || !postgres.IsDenied(err) {
		return err
	}
	explained := *p
	explained.Hint = "nothing has changed; run the command as a superuser or the service's administrator, or give them the SQL that the same command prints with --print"
	return &explained
}

// printStatements prints statements in a form that can be pasted into psql. If there are none, it prints a comment.
func printStatements(w io.Writer, statements []string) error {
	if len(statements) == 0 {
		_, err := fmt.Fprintln(w, "-- nothing to do")
		return err
	}
	for _, s := range statements {
		if _, err := fmt.Fprintln(w, s+";"); err != nil {
			return err
		}
	}
	return nil
}

func grantsReplication(statement string) bool {
	return strings.HasPrefix(statement, "ALTER ROLE") && strings.HasSuffix(statement, " REPLICATION")
}
