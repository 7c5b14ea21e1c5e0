package restore

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5"

	"capture/internal/foreign"
	"capture/internal/postgres"
)

// disableTriggers keeps the table's triggers and rules from acting on the rows. If the user may set session_replication_role,
// it sets that parameter to replica for the transaction, which also keeps foreign keys from acting. Otherwise it disables the
// table's own triggers and rules, for which the rights of the table's owner are enough. Before the commit, the caller must call
// the returned function enable, which enables the triggers and rules again. The returned note tells the user which objects did
// not act. disableTriggers removes from h the objects that no longer act.
func disableTriggers(ctx context.Context, tx pgx.Tx, table *postgres.Table, h *hooks) (enable func(context.Context) error, note string, err error) {
	err = withSavepoint(ctx, tx, func() error {
		_, err := tx.Exec(ctx, "SET LOCAL session_replication_role = replica")
		return err
	})
	switch {
	case err == nil:
		h.dropDisabled(true, false)
		h.ForeignKeys = nil
		note = "triggers and foreign keys did not act; check what they would have written or refused"
		return func(context.Context) error { return nil }, note, nil
	case !postgres.IsDenied(err):
		return nil, "", postgres.ExplainRedacted("disable triggers", err)
	}
	enable, err = disableTableTriggers(ctx, tx, table, h)
	h.dropDisabled(false, true)
	return enable, "the table's own triggers did not act; foreign keys did", err
}

// disableTableTriggers disables the enabled triggers of the table and of its partitions, and the enabled rules of the table.
// Foreign keys still act, because only a superuser can disable their triggers.
//
// A statement for a trigger of a partitioned table also changes the trigger's clones, even on partitions that the user does not
// own. But enable must give each clone the state that it had before. So if any clone and its trigger differ in their states,
// the trigger and each clone get a statement of their own, with ONLY.
func disableTableTriggers(ctx context.Context, tx pgx.Tx, table *postgres.Table, h *hooks) (enable func(context.Context) error, err error) {
	type switchable struct{ table, what, enabled string }
	var list []switchable
	byOID, clones := map[int64]*trigger{}, map[int64][]*trigger{}
	for _, triggers := range [][]trigger{h.Triggers, h.disabled} {
		for i := range triggers {
			t := &triggers[i]
			byOID[t.OID], clones[t.CloneOf] = t, append(clones[t.CloneOf], t)
		}
	}
	var uniform func(t *trigger) bool // reports whether all clones of the trigger, and all clones of these clones, have the trigger's value of Enabled
	uniform = func(t *trigger) bool {
		return !slices.ContainsFunc(clones[t.OID], func(c *trigger) bool { return c.Enabled != t.Enabled || !uniform(c) })
	}
	for i := range h.Triggers {
		t := &h.Triggers[i]
		// A clone needs no statement of its own if the statement for its original also changes the clone.
		if original := byOID[t.CloneOf]; t.Enabled == "R" || original != nil && uniform(original) {
			continue
		}
		table := t.Table
		if !uniform(t) {
			table = "ONLY " + table
		}
		list = append(list, switchable{table, "TRIGGER " + postgres.QuoteIdentifier(t.Name), t.Enabled})
	}
	for _, r := range h.Rules {
		if r.Enabled != "R" {
			list = append(list, switchable{table.Name().Quoted(), "RULE " + postgres.QuoteIdentifier(r.Name), r.Enabled})
		}
	}
	alter := func(ctx context.Context, s switchable, verb string) error {
		_, err := tx.Exec(ctx, fmt.Sprintf("ALTER TABLE %s %s %s", s.table, verb, s.what))
		// An error without context comes from the ALTER itself, and not from the function of an event trigger.
		if postgres.IsDenied(err) && postgres.ErrorContext(err) == "" {
			return &postgres.Problem{
				Summary: fmt.Sprintf("no right to disable the triggers of table %s", foreign.Text(strings.TrimPrefix(s.table, "ONLY "))), Err: err,
				Reason: "--disable-triggers takes a superuser, the right to set session_replication_role (15 and later), or the table's owner",
				Hint:   strings.TrimPrefix(h.AllowReplica+" or connect as the table's owner, or leave the flag out", " or "),
			}
		}
		return explain("disable triggers", err)
	}
	for _, s := range list {
		if err := alter(ctx, s, "DISABLE"); err != nil {
			return nil, err
		}
	}
	return func(ctx context.Context) error {
		for _, s := range list {
			verb := "ENABLE"
			if s.enabled == "A" {
				verb = "ENABLE ALWAYS"
			}
			if err := alter(ctx, s, verb); err != nil {
				return err
			}
		}
		return nil
	}, nil
}
