package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/jackc/pgx/v5"

	"capture/internal/postgres"
)

type setupCmd struct {
	databaseConfig
	Source source `placeholder:"auto|logical|notify" env:"CAPTURE_SOURCE" default:"auto" help:"What to prepare for; auto takes the better one that the database allows."`
	roleConfig
	printConfig
}

func (setupCmd) Help() string {
	return "Creates what capture needs in the database where it is missing: the publication for logical replication, or the " +
		"triggers for notifications. To be run by the table's owner or an administrator. Running it again does no harm."
}

func (setupCmd) Examples() string {
	return `
	capture setup --database-url postgres://owner@db/app --role capture
	capture setup --print`
}

func (c setupCmd) Run(ctx context.Context, std streams) error {
	if c.Source == "poll" {
		return usageError{errors.New(`--source: "poll" needs nothing in the database; takes auto, logical or notify`)}
	}
	return c.apply(ctx, std, c.Print, func(conn *pgx.Conn) ([]string, error) {
		table, err := postgres.LoadTable(ctx, conn, c.Table.Name)
		if err != nil {
			return nil, err
		}
		statements, err := postgres.SetupSQL(ctx, conn, table, postgres.SetupOptions{Source: string(c.Source), Role: c.Role})
		if len(statements) > 0 && strings.HasPrefix(statements[0], "CREATE ROLE") {
			fmt.Fprintf(std.err, "capture setup: role %s has no password yet; set one with psql's \\password\n", c.Role)
		}
		return statements, err
	})
}

type teardownCmd struct {
	databaseConfig
	roleConfig
	printConfig
}

func (teardownCmd) Help() string {
	return "Removes the publication, the triggers and their function, as far as they are capture's own for this table, and " +
		"with --role the role that setup made. Stop the daemon first: it makes anew what it needs. Its replication slot is " +
		"temporary and goes with it."
}

func (teardownCmd) Examples() string {
	return `
	capture teardown --database-url postgres://owner@db/app
	capture teardown --role capture --print`
}

func (c teardownCmd) Run(ctx context.Context, std streams) error {
	return c.apply(ctx, std, c.Print, func(conn *pgx.Conn) ([]string, error) {
		return postgres.TeardownSQL(ctx, conn, c.Table.Name, c.Role)
	})
}

// apply runs, or only prints, the statements that plan says the database needs.
func (c databaseConfig) apply(ctx context.Context, std streams, printOnly bool, plan func(*pgx.Conn) ([]string, error)) error {
	database, err := c.connection()
	if err != nil {
		return err
	}
	c.warnOfPassword(std)
	conn, err := postgres.Connect(ctx, database)
	if err != nil {
		return err
	}
	defer conn.Close(context.WithoutCancel(ctx))
	statements, err := plan(conn)
	if err != nil {
		return err
	}
	if !printOnly {
		if err := postgres.ApplyStatements(ctx, conn, statements); err != nil {
			return err
		}
	}
	return printStatements(std.out, statements)
}

// printStatements prints SQL that can be pasted, also where there is none.
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
