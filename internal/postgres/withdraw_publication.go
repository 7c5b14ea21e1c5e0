package postgres

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/jackc/pgx/v5"
)

// dropOwnPublication drops capture's own publication of a table that cannot be published. It returns the error passed as
// refusal, which says why the table cannot be published. If it cannot drop the publication, it returns a [*Problem] with
// refusal's summary, and with the statement that drops the publication as the hint.
func dropOwnPublication(ctx context.Context, conn *pgx.Conn, t *Table, own string, refusal error) error {
	publications, err := findPublications(ctx, conn, t, own)
	if err != nil {
		return errors.Join(refusal, err)
	}
	p := ownPublication(publications, own)
	if p == nil || !p.hasTable && !p.alterable {
		return refusal
	}
	err = errNotOwner
	if p.alterable {
		err = runDDL(ctx, conn, []string{dropPublicationSQL(own)})
	}
	var problem *Problem
	if err == nil || !errors.As(refusal, &problem) {
		return refusal
	}
	return cannotWithdraw(problem.Summary, own, p.owner, err)
}

var errNotOwner = errors.New("the user does not own it")

// cannotWithdraw returns a [*Problem] for a publication that makes the application's writes fail and that capture could not
// drop.
func cannotWithdraw(summary, publication, owner string, err error) *Problem {
	return &Problem{
		Summary: summary,
		Reason: fmt.Sprintf("the application's UPDATE and DELETE fail until publication %s is dropped, which capture could not do: %v",
			displayIdentifier(publication), err),
		Hint:         fmt.Sprintf("%s; -- as %s or a superuser", dropPublicationSQL(publication), displayIdentifier(owner)),
		breaksWrites: true,
	}
}

// harmfulPublication is a publication of capture that makes UPDATE and DELETE on a table fail.
type harmfulPublication struct {
	name, owner string
	alterable   bool   // whether the user may drop the publication, and its owner is trusted
	table       string // name of a table whose writes fail
}

// findHarmful returns the publications of capture that make UPDATE and DELETE fail, because they publish a table without a
// usable replica identity; see CheckCmdReplicaIdentity in Postgres' execReplication.c. A publication is capture's if its name
// is ownName, or if the user owns it and it has capture's comment. ownName alone does not find all publications of capture,
// because a table may have been renamed, moved or replaced after its publication was created. The query needs no privilege on the table.
func findHarmful(ctx context.Context, q Querier, ownName string) (harmful []harmfulPublication, err error) {
	sql := `
		SELECT DISTINCT ON (p.pubname) p.pubname::text, pg_catalog.pg_get_userbyid(p.pubowner)::text,
			pg_catalog.pg_has_role(p.pubowner, 'USAGE') AND ` + publicationOwnerSQL("h.oid") + `,
			pg_catalog.concat(n.nspname, '.', h.relname)
		FROM pg_catalog.pg_publication p
		JOIN pg_catalog.pg_publication_rel r ON r.prpubid = p.oid
		CROSS JOIN LATERAL ` + TreeSQL("r.prrelid") + ` x(oid)
		JOIN pg_catalog.pg_class h ON h.oid = x.oid AND h.relkind = 'r' AND h.relpersistence = 'p'
		JOIN pg_catalog.pg_namespace n ON n.oid = h.relnamespace
		WHERE NOT pg_catalog.pg_is_in_recovery() AND (p.pubupdate OR p.pubdelete)
			AND (p.pubname = ` + QuoteLiteral(ownName) + ` OR p.pubowner = (SELECT u.oid FROM pg_catalog.pg_roles u WHERE u.rolname = current_user)
				AND pg_catalog.obj_description(p.oid, 'pg_publication') LIKE 'capture %')
			AND CASE h.relreplident
				WHEN 'f' THEN EXISTS (SELECT FROM pg_catalog.pg_attribute a WHERE a.attrelid = h.oid AND a.attgenerated = 'v' AND NOT a.attisdropped)
				ELSE NOT EXISTS (SELECT FROM pg_catalog.pg_index i WHERE i.indrelid = h.oid AND i.indisvalid AND i.indimmediate
					AND (h.relreplident = 'd' AND i.indisprimary OR h.relreplident = 'i' AND i.indisreplident)) END
		ORDER BY p.pubname, h.oid`
	b := &pgx.Batch{}
	b.Queue(catalogSessionOf(q).queuePrepare(b, "capture_harmful", sql)).Query(func(rows pgx.Rows) (err error) {
		harmful, err = pgx.CollectRows(rows, func(row pgx.CollectableRow) (p harmfulPublication, err error) {
			err = row.Scan(&p.name, &p.owner, &p.alterable, &p.table)
			return p, err
		})
		return err
	})
	if err := Pinned(q).SendBatch(ctx, b).Close(); err != nil {
		return nil, Explain(fmt.Errorf("find publications that make writes fail: %w", err))
	}
	return harmful, nil
}

// WithdrawHarmful drops capture's publications that make the application's UPDATE and DELETE fail, and returns their names.
// If it cannot drop one of them, the error is a [*Problem] whose hint is the statement that drops the publication. The
// table that capture follows has the given name. conn must not be in a transaction.
func WithdrawHarmful(ctx context.Context, conn *pgx.Conn, name Name) (dropped []string, err error) {
	if name = name.foldCase(); name.Schema == "" {
		name.Schema = "public"
	}
	harmful, err := findHarmful(ctx, conn, objectName(name))
	if err != nil {
		return nil, err
	}
	var failed error
	for _, p := range harmful {
		err := errNotOwner
		if p.alterable {
			err = runDDL(ctx, conn, []string{dropPublicationSQL(p.name)})
		}
		if err == nil {
			dropped = append(dropped, p.name)
		} else {
			failed = cannotWithdraw("table "+p.table+" has no usable replica identity", p.name, p.owner, err)
		}
	}
	return dropped, failed
}

// WithdrawPublication calls [WithdrawHarmful] for a table that cannot be followed. The error passed as refusal says why, and
// comes from [LoadTable] or a source. WithdrawPublication returns this error, or a [*Problem] if a publication cannot be
// dropped.
func WithdrawPublication(ctx context.Context, conn *pgx.Conn, name Name, refusal error) error {
	if t, err := loadTableUnchecked(ctx, conn, name); err == nil {
		name = t.Name()
	}
	_, err := WithdrawHarmful(ctx, conn, name)
	var problem *Problem
	if errors.As(err, &problem) && problem.Err == nil {
		return err
	}
	return refusal
}

// MayWithdraw reports whether capture can still drop publications after a source has ended with err. This is true if err
// shows that the database is still reachable.
func MayWithdraw(err error) bool {
	var problem *Problem
	if !errors.As(err, &problem) {
		return false
	}
	state := SQLState(err)
	return problem.Err == nil || state != "" && !strings.HasPrefix(state, "28") && Classify(err) != Unreachable
}
