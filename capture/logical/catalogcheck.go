package logical

import (
	"context"
	"fmt"

	"github.com/jackc/pgx/v5"

	"capture/capture/source"
	"capture/capture/tablecopy"
	"capture/internal/postgres"
)

// publication is the name of the stream's publication, and the fingerprint of its definition before the slot was created.
type publication struct{ name, fingerprint string }

// checkCatalog returns a *source.ResyncError if the table's definition or the publication has changed, because the stream does
// not show these changes. ADD COLUMN … DEFAULT, ALTER TYPE … USING and DROP COLUMN change existing rows without a message. If
// the table leaves the publication, the server just stops sending its changes. If m is not nil, checkCatalog first reads an
// xmin and a WAL position into *m. If checkCatalog then finds no change, there was no change at the moment of *m either.
func checkCatalog(ctx context.Context, conn *pgx.Conn, env *source.Env, table *postgres.Table, pub publication, m *postgres.Moment) error {
	tableChanged, publicationChanged, err := postgres.CompareCatalog(ctx, conn, env.Table, table, pub.name, pub.fingerprint, m)
	switch {
	case err != nil:
		return source.WithFileNote(err)
	case tableChanged:
		return &source.ResyncError{Reason: fmt.Sprintf("the definition of table %s changed", table.Name())}
	case publicationChanged:
		return &source.ResyncError{Reason: fmt.Sprintf("publication %s changed, or the table may have left it for a while", pub.name), Backoff: true}
	}
	return nil
}

// proposeHorizon proposes the present moment as the next horizon of the rows in memory (see horizons). It returns a
// *source.ResyncError if the table's definition or the publication has changed.
func (s *Source) proposeHorizon(ctx context.Context, conn *pgx.Conn) error {
	var m postgres.Moment
	if err := checkCatalog(ctx, conn, s.env, s.table, s.publication, &m); err != nil {
		return err
	}
	s.horizons.propose(tablecopy.HorizonAt(&m, &s.server, s.table))
	return nil
}
