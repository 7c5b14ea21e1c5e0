package tablecopy

import (
	"context"
	"fmt"

	"github.com/jackc/pgx/v5"

	"capture/internal/postgres"
	"capture/snapshot"
)

// LoadPlace returns the present place of the table, for [source.Env.LoadRows]. conn must not be in a transaction, and server
// must have the SystemID and the Timeline. The place is incomplete if the rows of the table can have no horizon.
func LoadPlace(ctx context.Context, conn *pgx.Conn, table *postgres.Table, server *postgres.Server) (*snapshot.Place, error) {
	tx, err := postgres.Begin(ctx, conn, "READ ONLY")
	if err != nil {
		return nil, fmt.Errorf("begin to query the files of table %s: %w", table.Name(), err)
	}
	defer postgres.Rollback(ctx, tx)
	m, err := postgres.LoadMoment(ctx, conn, table)
	if err != nil {
		return nil, err
	}
	if h := HorizonAt(&m, server, table); h != nil {
		return &h.Place, nil
	}
	return &snapshot.Place{}, nil
}
