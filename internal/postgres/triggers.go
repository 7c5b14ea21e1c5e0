package postgres

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5"

	"capture/deploy"
)

// trigger is one of the triggers that capture puts on a table.
type trigger struct{ name, event, level, transitionTables string }

// needsRowTriggers reports whether triggers must fire for each row. Writes to a partition by its own name, and those of a
// subscription's apply worker, fire no statement triggers of the table.
func (t *Table) needsRowTriggers() bool { return t.Partitioned || t.facts.Subscribed }

func (t *Table) wantedTriggers() []trigger {
	truncate := trigger{"capture_truncate", "TRUNCATE", "STATEMENT", ""}
	if t.needsRowTriggers() {
		return []trigger{{"capture_rows", "INSERT OR UPDATE OR DELETE", "ROW", ""}, truncate}
	}
	return []trigger{
		{"capture_insert", "INSERT", "STATEMENT", "REFERENCING NEW TABLE AS new_rows "},
		{"capture_update", "UPDATE", "STATEMENT", "REFERENCING OLD TABLE AS old_rows NEW TABLE AS new_rows "},
		{"capture_delete", "DELETE", "STATEMENT", "REFERENCING OLD TABLE AS old_rows "},
		truncate,
	}
}

// triggerFunction returns the trigger function's name and argument list in SQL.
func (t *Table) triggerFunction() string {
	return QuoteIdentifier(t.Schema) + "." + QuoteIdentifier(objectName(t.Name())) + "()"
}

// triggerFunctionBody returns the trigger function's body for this table's key: a template of package deploy, filled in.
func (t *Table) triggerFunctionBody() string {
	body := deploy.NotifyPerStatement
	if t.needsRowTriggers() {
		body = deploy.NotifyPerRow
	}
	key := func(row string) string {
		parts := make([]string, len(t.Key))
		for i, k := range t.Key {
			// concat prints a value by its type's output function, as the stream and the copy do.
			parts[i] = "concat(" + row + "." + QuoteIdentifier(t.Columns[k].Name) + ")"
		}
		return "json_build_array(" + strings.Join(parts, ", ") + ")::text"
	}
	comment, code, _ := strings.Cut(body, "DECLARE")
	// A channel's name is safe in an SQL comment: it has only lower-case letters, digits and underscores.
	comment = strings.ReplaceAll(comment, "{channel}", t.Channel())
	return "\n" + comment + strings.NewReplacer("{channel}", QuoteLiteral(t.Channel()), "{counter}", QuoteLiteral("capture."+t.Channel()),
		"{key of r}", key("r"), "{key of NEW}", key("NEW"), "{key of OLD}", key("OLD")).Replace("DECLARE"+code)
}

// triggerFunctionSettings returns the settings under which the trigger function runs. If the key has a column whose text form
// depends on the application's session, they pin it.
func (t *Table) triggerFunctionSettings() []string {
	settings := []string{"search_path = pg_catalog, pg_temp"}
	for _, k := range t.Key {
		switch t.Columns[k].Type.OID {
		case boolOID, int2OID, int4OID, int8OID, textOID, varcharOID, bpcharOID, uuidOID:
		default:
			return append(settings, "DateStyle = 'ISO, MDY'", "IntervalStyle = 'postgres'", "TimeZone = 'UTC'",
				"bytea_output = 'hex'", "extra_float_digits = 1")
		}
	}
	return settings
}

// createTriggerFunctionSQL returns the statements that create or replace the trigger function. They lock nothing that the
// application uses.
func (t *Table) createTriggerFunctionSQL() []string {
	body := t.triggerFunctionBody()
	tag := "$capture$"
	for strings.Contains(body, tag) {
		tag = strings.TrimSuffix(tag, "$") + "_$"
	}
	return []string{
		"CREATE OR REPLACE FUNCTION " + t.triggerFunction() + " RETURNS trigger LANGUAGE plpgsql\nSET " +
			strings.Join(t.triggerFunctionSettings(), "\nSET ") + "\nAS " + tag + body + tag,
		"COMMENT ON FUNCTION " + t.triggerFunction() + " IS " + commentLiteral("sends the changed keys of table "+t.Name().String()),
	}
}

func (t *Table) createTriggerSQL(g trigger) []string {
	name, table := QuoteIdentifier(g.name), t.Name().Quoted()
	return []string{
		"CREATE TRIGGER " + name + " AFTER " + g.event + " ON " + table + " " + g.transitionTables +
			"FOR EACH " + g.level + " EXECUTE FUNCTION " + t.triggerFunction(),
		// It also fires in sessions with session_replication_role = replica.
		"ALTER TABLE " + table + " ENABLE ALWAYS TRIGGER " + name,
		"COMMENT ON TRIGGER " + name + " ON " + table + " IS " + commentLiteral("notifies capture of changes"),
	}
}

func (t *Table) dropTriggerSQL(name string) string {
	return "DROP TRIGGER " + QuoteIdentifier(name) + " ON " + t.Name().Quoted()
}

// triggerState is what the database has of a table's trigger function and triggers.
type triggerState struct {
	hasFunction bool
	ownFunction bool   // its comment says that it is capture's
	source      string // the function's body
	triggers    map[string]triggerEntry
}

type triggerEntry struct {
	enabled    string // pg_trigger.tgenabled; "A" is ALWAYS
	rightLevel bool   // it fires for each row or statement, as it should
}

func (e triggerEntry) works() bool { return e.rightLevel && e.enabled == "A" }

// loadTriggerState reads the trigger function and those of the table's triggers that call it.
func (t *Table) loadTriggerState(ctx context.Context, q Querier) (triggerState, error) {
	s := triggerState{triggers: map[string]triggerEntry{}}
	// Bit 1 of tgtype means FOR EACH ROW. On a partitioned table the copies on all partitions must be enabled as well.
	rows, err := Pinned(q).Query(ctx, `
		SELECT p.prosrc, COALESCE(pg_catalog.obj_description(p.oid, 'pg_proc'), '') LIKE 'capture %',
			COALESCE(g.tgname::text, ''),
			COALESCE(CASE WHEN EXISTS (SELECT FROM pg_catalog.pg_trigger c
				JOIN pg_catalog.pg_partition_tree(g.tgrelid) x ON x.relid = c.tgrelid
				WHERE c.tgname = g.tgname AND c.tgenabled <> 'A') THEN 'D' ELSE g.tgenabled::text END, ''),
			COALESCE((g.tgtype & 1 = 1) = ($4::bool AND g.tgname <> 'capture_truncate'), false)
		FROM pg_catalog.pg_proc p
		LEFT JOIN pg_catalog.pg_trigger g ON g.tgfoid = p.oid AND g.tgrelid = $3::oid AND g.tgname LIKE 'capture\_%'
		WHERE p.pronamespace = (SELECT oid FROM pg_catalog.pg_namespace WHERE nspname = $1::text::name)
			AND p.proname = $2::text::name AND p.pronargs = 0`,
		t.Schema, objectName(t.Name()), t.OID, t.needsRowTriggers())
	if err != nil {
		return s, Explain(fmt.Errorf("find triggers on table %s: %w", t.Name(), err))
	}
	var name string
	var e triggerEntry
	_, err = pgx.ForEachRow(rows, []any{&s.source, &s.ownFunction, &name, &e.enabled, &e.rightLevel}, func() error {
		s.hasFunction = true
		if name != "" {
			s.triggers[name] = e
		}
		return nil
	})
	if err != nil {
		return s, Explain(fmt.Errorf("find triggers on table %s: %w", t.Name(), err))
	}
	return s, nil
}

// CheckTriggers returns nil if triggers notify of every change of the table. Otherwise it returns a [*Problem] that says what
// is missing.
func CheckTriggers(ctx context.Context, q Querier, table *Table) error {
	s, err := table.loadTriggerState(ctx, q)
	if err != nil {
		return err
	}
	problem := func(format string, args ...any) error {
		return problemf("not every change of the table sends a notification",
			"capture setup --source notify --table "+table.Name().String(), format, args...)
	}
	switch {
	case !s.hasFunction:
		return problem("table %s has no triggers of capture", table.Name())
	case s.source != table.triggerFunctionBody():
		return problem("the trigger function of table %s is out of date", table.Name())
	}
	for _, g := range table.wantedTriggers() {
		e, ok := s.triggers[g.name]
		switch {
		case !ok || !e.rightLevel:
			return problem("trigger %s is missing from table %s", g.name, table.Name())
		case !e.works():
			return problem("trigger %s on table %s is disabled, or can be bypassed", g.name, table.Name())
		}
	}
	return nil
}

// setupTriggersSQL returns the statements that create what is missing. They lock the table only if a trigger is.
func (t *Table) setupTriggersSQL(ctx context.Context, q Querier) ([]string, error) {
	s, err := t.loadTriggerState(ctx, q)
	if err != nil {
		return nil, err
	}
	if s.hasFunction && !s.ownFunction {
		return nil, problemf("its comment does not say that it is capture's", "rename it, or drop it if nobody needs it",
			"function %s exists", t.triggerFunction())
	}
	var statements []string
	if s.source != t.triggerFunctionBody() {
		statements = t.createTriggerFunctionSQL()
	}
	wanted := t.wantedTriggers()
	for name := range s.triggers {
		if !slices.ContainsFunc(wanted, func(g trigger) bool { return g.name == name }) {
			statements = append(statements, t.dropTriggerSQL(name))
		}
	}
	for _, g := range wanted {
		e, ok := s.triggers[g.name]
		if ok && e.works() {
			continue
		}
		if ok {
			statements = append(statements, t.dropTriggerSQL(g.name))
		}
		statements = append(statements, t.createTriggerSQL(g)...)
	}
	return statements, nil
}
