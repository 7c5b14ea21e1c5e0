package main

import (
	"context"
	"fmt"

	"github.com/jackc/pgx/v5"

	"capture/internal/foreign"
	"capture/internal/postgres"
)

type teardownCmd struct {
	databaseConfig
	Role string `placeholder:"NAME" help:"Also drop this role if setup created it."`
	printConfig
}

func (teardownCmd) Help() string {
	return "Removes the publication, the triggers and their function, if capture created them for this table. Stop the " +
		"daemon first: it would create them again. Its replication slot is temporary and disappears when it stops."
}

func (teardownCmd) Examples() string {
	return `
	capture teardown --database-url postgres://owner@db/app
	capture teardown --role capture --print`
}

func (c teardownCmd) Run(ctx context.Context, std streams) error {
	statements, err := c.runPlan(ctx, std, c.Print, func(conn *pgx.Conn) ([]string, error) {
		found, err := postgres.LoadTeardown(ctx, conn, c.Table.Name, c.Role)
		for _, kept := range found.Kept {
			fmt.Fprintf(std.err, "capture teardown: left alone: %s\n", foreign.Line(kept))
		}
		return found.Statements, err
	})
	if err != nil {
		return err
	}
	return printStatements(std.out, statements)
}
