package restore

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5"

	"capture/internal/foreign"
	"capture/internal/postgres"
)

// hooks are the objects of the database that act on rows when the table is written: triggers, rules and foreign keys.
type hooks struct {
	Triggers    []trigger    `json:"triggers"`
	disabled    []trigger    // disabled triggers
	Rules       []rule       `json:"rules"`
	ForeignKeys []foreignKey `json:"foreign_keys"`
	Deferrable  []string     `json:"deferrable"` // deferrable constraints of the table, and foreign keys to it, as SQL
	// AllowReplica is the statement that allows the user to turn triggers and foreign keys off. It is "" before PostgreSQL 15,
	// where only a superuser can do so.
	AllowReplica string `json:"allow_replica"`
}

// trigger is a trigger on the table or on one of its partitions. It is neither a trigger of capture nor a trigger that Postgres
// creates for a constraint. A row trigger of a partitioned table has a clone on each partition. Each clone is enabled or
// disabled on its own.
type trigger struct {
	OID      int64  `json:"oid"`
	CloneOf  int64  `json:"clone_of"` // OID of the trigger that this trigger was cloned from; 0 if it is not a clone
	Name     string `json:"name"`
	Table    string `json:"table"`    // table that has the trigger, as SQL
	Function string `json:"function"` // function that the trigger calls, as SQL
	Enabled  string `json:"enabled"`  // pg_trigger.tgenabled: O(rigin), A(lways), R(eplica), D(isabled)
	Type     int    `json:"type"`     // pg_trigger.tgtype: see catalog/pg_trigger.h
}

// Bits of trigger.Type: TRIGGER_TYPE_… in Postgres' catalog/pg_trigger.h.
const (
	triggerRow    = 1
	triggerBefore = 2
	triggerInsert = 4
	triggerDelete = 8
	triggerUpdate = 16
)

// rule is an enabled rule of the table.
type rule struct {
	Name    string `json:"name"`
	Event   string `json:"event"`   // pg_rewrite.ev_type: 2 UPDATE, 3 INSERT, 4 DELETE
	Enabled string `json:"enabled"` // pg_rewrite.ev_enabled, with the values of trigger.Enabled
}

// foreignKey is a foreign key from the table or to it.
type foreignKey struct {
	Name       string   `json:"name"`
	Child      string   `json:"child"`       // table that has the foreign key, as SQL
	Parent     string   `json:"parent"`      // table that the foreign key refers to, as SQL
	ChildRows  string   `json:"child_rows"`  // Child for a FROM clause, without the tables that inherit from it
	ParentRows string   `json:"parent_rows"` // Parent for a FROM clause, without the tables that inherit from it
	From       bool     `json:"from"`        // whether the restored table, or a partition of it, is Child
	To         bool     `json:"to"`          // whether the restored table, or a partition of it, is Parent
	Columns    []string `json:"columns"`
	Referenced []string `json:"referenced"`
	Operators  []string `json:"operators"` // operators that compare Referenced with Columns, as SQL
	OnDelete   string   `json:"on_delete"` // pg_constraint.confdeltype: a (no action), r(estrict), c(ascade), n (set null), d (set default)
	OnUpdate   string   `json:"on_update"` // pg_constraint.confupdtype, with the values of OnDelete
	Deferrable bool     `json:"deferrable"`
	Grants     string   `json:"grants"` // statements that let the user read all rows of the other table; "" if no statement is necessary
	MatchFull  bool     `json:"match_full"`
	Period     bool     `json:"period"` // whether the last column is a PERIOD; the condition that refersTo returns is then incomplete
}

// hooksSQL returns the hooks as JSON. $1 is the table's OID, $2 the SQL name of the function that capture's own triggers
// call.
var hooksSQL = `
	WITH tree(oid) AS ` + postgres.TreeSQL("$1::bigint") + `
	SELECT pg_catalog.jsonb_build_object('allow_replica', CASE WHEN pg_catalog.current_setting('server_version_num')::int >= 150000
			THEN pg_catalog.format('GRANT SET ON PARAMETER session_replication_role TO %I;', current_user) ELSE '' END, 'triggers', (
		SELECT pg_catalog.jsonb_agg(pg_catalog.jsonb_build_object('oid', g.oid::bigint, 'clone_of', g.tgparentid::bigint, 'name', g.tgname, 'table', g.tgrelid::regclass::text,
				'function', pg_catalog.format('%I.%I', n.nspname, p.proname), 'enabled', g.tgenabled, 'type', g.tgtype) ORDER BY g.tgrelid <> $1::bigint::oid, g.tgrelid, g.tgname)
		FROM pg_catalog.pg_trigger g JOIN pg_catalog.pg_proc p ON p.oid = g.tgfoid JOIN pg_catalog.pg_namespace n ON n.oid = p.pronamespace
		-- Before PostgreSQL 15, clones are internal, like the triggers of foreign keys and deferrable unique constraints.
		WHERE g.tgrelid IN (SELECT oid FROM tree) AND (NOT g.tgisinternal OR g.tgparentid <> 0 AND g.tgconstrrelid = 0 AND g.tgconstrindid = 0)
			AND NOT (pg_catalog.format('"%s"."%s"', n.nspname, p.proname) = $2::text AND g.tgname LIKE 'capture\_%' AND g.tgtype & 66 = 0)
	), 'deferrable', (
		SELECT pg_catalog.jsonb_agg(DISTINCT pg_catalog.format('%I.%I', n.nspname, k.conname))
		FROM pg_catalog.pg_constraint k JOIN pg_catalog.pg_namespace n ON n.oid = k.connamespace
		WHERE k.condeferrable AND (k.conrelid IN (SELECT oid FROM tree) OR k.confrelid IN (SELECT oid FROM tree))
	), 'rules', (
		SELECT pg_catalog.jsonb_agg(pg_catalog.jsonb_build_object('name', r.rulename, 'event', r.ev_type, 'enabled', r.ev_enabled) ORDER BY r.rulename)
		FROM pg_catalog.pg_rewrite r WHERE r.ev_class = $1::bigint::oid AND r.ev_type <> '1' AND r.ev_enabled <> 'D'
	), 'foreign_keys', (
		SELECT pg_catalog.jsonb_agg(pg_catalog.jsonb_build_object('name', k.conname, 'child', k.conrelid::regclass::text, 'parent', k.confrelid::regclass::text,
			'child_rows', x.child_only || k.conrelid::regclass::text, 'parent_rows', x.parent_only || k.confrelid::regclass::text,
			'from', x.from_tree, 'to', x.to_tree,
			'columns', (SELECT pg_catalog.jsonb_agg(a.attname ORDER BY i) FROM pg_catalog.generate_subscripts(k.conkey, 1) i
				JOIN pg_catalog.pg_attribute a ON a.attrelid = k.conrelid AND a.attnum = k.conkey[i]),
			'referenced', (SELECT pg_catalog.jsonb_agg(a.attname ORDER BY i) FROM pg_catalog.generate_subscripts(k.confkey, 1) i
				JOIN pg_catalog.pg_attribute a ON a.attrelid = k.confrelid AND a.attnum = k.confkey[i]),
			'operators', (SELECT pg_catalog.jsonb_agg('OPERATOR(' || pg_catalog.quote_ident(n.nspname) || '.' || o.oprname || ')' ORDER BY i)
				FROM pg_catalog.generate_subscripts(k.conpfeqop, 1) i JOIN pg_catalog.pg_operator o ON o.oid = k.conpfeqop[i]
				JOIN pg_catalog.pg_namespace n ON n.oid = o.oprnamespace),
			'on_delete', k.confdeltype, 'on_update', k.confupdtype, 'deferrable', k.condeferrable,
			'grants', x.grants,
			'match_full', k.confmatchtype = 'f', 'period', COALESCE((pg_catalog.to_jsonb(k)->>'conperiod')::boolean, false))
			ORDER BY k.conname, k.oid)
		FROM pg_catalog.pg_constraint k
		CROSS JOIN LATERAL (
			SELECT pg_catalog.concat_ws(' ',
				CASE WHEN NOT pg_catalog.has_schema_privilege(n.oid, 'USAGE') THEN pg_catalog.format('GRANT USAGE ON SCHEMA %I TO %I;', n.nspname, current_user) END,
				CASE WHEN NOT pg_catalog.has_table_privilege(c.oid, 'SELECT') THEN pg_catalog.format('GRANT SELECT ON %I.%I TO %I;', n.nspname, c.relname, current_user) END,
				CASE WHEN pg_catalog.row_security_active(c.oid) THEN pg_catalog.format('ALTER ROLE %I BYPASSRLS;', current_user) END) AS grants,
				side.from_tree, side.to_tree, side.child_only, side.parent_only
			FROM (SELECT k.conrelid IN (SELECT oid FROM tree), k.confrelid IN (SELECT oid FROM tree),
					(SELECT CASE relkind WHEN 'p' THEN '' ELSE 'ONLY ' END FROM pg_catalog.pg_class WHERE oid = k.conrelid),
					(SELECT CASE relkind WHEN 'p' THEN '' ELSE 'ONLY ' END FROM pg_catalog.pg_class WHERE oid = k.confrelid)) side(from_tree, to_tree, child_only, parent_only)
			JOIN pg_catalog.pg_class c ON c.oid = CASE WHEN side.from_tree THEN k.confrelid ELSE k.conrelid END
			JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace) x
		WHERE k.contype = 'f' AND (x.from_tree OR x.to_tree) AND COALESCE((pg_catalog.to_jsonb(k)->>'conenforced')::boolean, true)
			-- A partition has a copy of each foreign key from or to the partitioned table.
			AND NOT EXISTS (SELECT FROM pg_catalog.pg_constraint p WHERE p.oid = k.conparentid
				AND (x.from_tree AND p.conrelid IN (SELECT oid FROM tree) OR x.to_tree AND p.confrelid IN (SELECT oid FROM tree)))
	))::text`

// loadHooks reads the hooks of the table. It also returns them as a JSON document. If the documents of two calls differ, the
// hooks have changed in between.
func loadHooks(ctx context.Context, tx pgx.Tx, table *postgres.Table) (h *hooks, document string, err error) {
	h = &hooks{}
	err = tx.QueryRow(ctx, hooksSQL, int64(table.OID), table.TriggerFunction()).Scan(&document)
	if err == nil {
		err = json.Unmarshal([]byte(document), h)
	}
	h.Triggers = slices.DeleteFunc(h.Triggers, func(t trigger) bool {
		if t.Enabled == "D" {
			h.disabled = append(h.disabled, t)
		}
		return t.Enabled == "D"
	})
	return h, document, postgres.ExplainRedacted("list the triggers and foreign keys of table "+table.Name().String(), err)
}

// dropDisabled removes the hooks that do not act in the restore's session. Callers set replica if session_replication_role
// is replica, and set disabled if the table's triggers and rules have been disabled.
func (h *hooks) dropDisabled(replica, disabled bool) {
	acts := func(enabled string) bool {
		if replica {
			return enabled == "A" || enabled == "R"
		}
		return enabled != "R" && !disabled
	}
	h.Triggers = slices.DeleteFunc(h.Triggers, func(t trigger) bool { return !acts(t.Enabled) })
	h.Rules = slices.DeleteFunc(h.Rules, func(r rule) bool { return !acts(r.Enabled) })
}

// dropOtherEvents removes the triggers and rules that do not fire for any of the events. eventBits is a
// combination of the bits triggerInsert, triggerUpdate and triggerDelete.
func (h *hooks) dropOtherEvents(eventBits int) {
	ruleEvents := map[string]int{"2": triggerUpdate, "3": triggerInsert, "4": triggerDelete}
	h.Triggers = slices.DeleteFunc(h.Triggers, func(t trigger) bool { return t.Type&eventBits == 0 })
	h.Rules = slices.DeleteFunc(h.Rules, func(r rule) bool { return ruleEvents[r.Event]&eventBits == 0 })
}

// selfReference reports whether the table has a foreign key to itself that is checked at the end of each statement.
func (h *hooks) selfReference() bool {
	return slices.ContainsFunc(h.ForeignKeys, func(k foreignKey) bool { return k.From && k.To && !k.Deferrable })
}

// actsOnItself reports whether a foreign key may delete or change rows of the table when other rows of the table are deleted or
// changed.
func (h *hooks) actsOnItself() bool {
	return slices.ContainsFunc(h.ForeignKeys, func(k foreignKey) bool { return k.From && k.To && k.acts() })
}

// actsOnOthers reports whether a foreign key may delete or change rows of any table when rows of the restored table are deleted
// or changed.
func (h *hooks) actsOnOthers() bool {
	return slices.ContainsFunc(h.ForeignKeys, func(k foreignKey) bool { return k.To && k.acts() })
}

// mayChange reports whether triggers may leave out or change rows that are written. If withRules is true, it also reports
// true if rules may do this.
func (h *hooks) mayChange(withRules bool) bool {
	return len(h.Triggers) > 0 || withRules && len(h.Rules) > 0
}

// originals returns the triggers that a message lists. It leaves out a clone if h also has the trigger of which it is a clone.
func (h *hooks) originals() (list []*trigger) {
	listed := map[int64]bool{}
	for i := range h.Triggers {
		listed[h.Triggers[i].OID] = true
	}
	for i := range h.Triggers {
		if t := &h.Triggers[i]; !listed[t.CloneOf] {
			list = append(list, t)
		}
	}
	return list
}

// suspects returns, for a message, the names of the triggers, rules and foreign keys that may have left out or changed rows.
// Rules, foreign keys, and triggers that fire before a row is written are the usual cause. If there are any, suspects names
// only these.
func (h *hooks) suspects() string {
	var before, others []string
	for _, t := range h.originals() {
		name := t.describe()
		if t.Type&(triggerRow|triggerBefore) == triggerRow|triggerBefore {
			before = append(before, name)
		} else {
			others = append(others, name)
		}
	}
	for _, r := range h.Rules {
		before = append(before, "rule "+postgres.QuoteIdentifier(r.Name))
	}
	for i := range h.ForeignKeys {
		// This foreign key deletes or changes rows of the table if rows of Parent are deleted or changed. If Parent is the
		// restored table, the restore itself may delete or change its rows. Otherwise, another foreign key may delete or change
		// them.
		if k := &h.ForeignKeys[i]; k.From && k.acts() && h.actsOnOthers() {
			before = append(before, "foreign key "+postgres.QuoteIdentifier(k.Name)+" of table "+k.Child)
		}
	}
	if len(before) == 0 {
		before = others
	}
	const maxNamed = 5 // maximum number of names in a message
	names := foreign.Text(strings.Join(before[:min(len(before), maxNamed)], ", "))
	switch {
	case len(before) > maxNamed:
		return fmt.Sprintf("one of %s and %d more", names, len(before)-maxNamed)
	case len(before) > 1:
		return "one of " + names
	case len(before) == 0:
		return "something in the database"
	}
	return names
}

// describe returns the trigger's name, its table and its function, for a message.
func (t *trigger) describe() string {
	return fmt.Sprintf("trigger %s of table %s (function %s)", postgres.QuoteIdentifier(t.Name), t.Table, t.Function)
}

// findTrigger returns the trigger whose function is named in the context of a server's error. It returns nil if it cannot tell
// which trigger this is.
func (h *hooks) findTrigger(where string) *trigger {
	var named, unqualified []*trigger
	for _, t := range h.originals() {
		if strings.Contains(where, " "+t.Function+"(") {
			named = append(named, t)
		}
		if strings.Contains(where, " "+t.Function[strings.LastIndexByte(t.Function, '.')+1:]+"(") {
			unqualified = append(unqualified, t)
		}
	}
	switch {
	case len(named) > 0:
		return named[0]
	case len(unqualified) == 1:
		return unqualified[0]
	}
	return nil
}

// readable reports whether the user may read all rows of the other table.
func (k *foreignKey) readable() bool { return k.Grants == "" }

// acts reports whether rows of Child are deleted or changed if rows of Parent are deleted or changed.
func (k *foreignKey) acts() bool {
	return strings.Contains("cnd", k.OnDelete) || strings.Contains("cnd", k.OnUpdate)
}

// followsUpdates reports whether rows of Child change if an UPDATE of the restored table changes columns that they refer to.
func (k *foreignKey) followsUpdates() bool {
	return k.To && (k.OnUpdate == "c" || k.OnUpdate == "n" || k.OnUpdate == "d")
}

// refersTo returns an SQL condition that is true if the row of alias child refers to the row of alias parent.
func (k *foreignKey) refersTo(child, parent string) string {
	conditions := make([]string, len(k.Columns))
	for i := range k.Columns {
		conditions[i] = fmt.Sprintf("%s.%s %s %s.%s", parent, postgres.QuoteIdentifier(k.Referenced[i]), k.Operators[i], child, postgres.QuoteIdentifier(k.Columns[i]))
	}
	return strings.Join(conditions, " AND ")
}

// refers returns an SQL condition that is true if the foreign key requires that the row of the given alias refers to a row.
// This is required if no referencing column is NULL. With MATCH FULL, it is required if any referencing column is not NULL.
func (k *foreignKey) refers(alias string) string {
	conditions := make([]string, len(k.Columns))
	for i, c := range k.Columns {
		conditions[i] = alias + "." + postgres.QuoteIdentifier(c) + " IS NOT NULL"
	}
	if k.MatchFull {
		return "(" + strings.Join(conditions, " OR ") + ")"
	}
	return strings.Join(conditions, " AND ")
}
