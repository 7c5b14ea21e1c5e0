package postgres

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5"

	"capture/deploy"
	"capture/internal/foreign"
)

// trigger is one of the triggers that capture creates on a table.
type trigger struct {
	name, event, level, transitionTables string
	bits                                 int16 // pg_trigger.tgtype: see catalog/pg_trigger.h
}

// needsRowTriggers reports whether triggers must fire for each row. Statement triggers on the table do not fire if a
// statement names one of its partitions, or if the apply worker of a subscription writes.
func (t *Table) needsRowTriggers() bool { return t.Partitioned || t.facts.Subscribed }

func (t *Table) wantedTriggers() []trigger {
	const row, ins, del, upd, trunc = 1, 4, 8, 16, 32 // TRIGGER_TYPE_… in catalog/pg_trigger.h
	truncate := trigger{"capture_truncate", "TRUNCATE", "STATEMENT", "", trunc}
	if t.needsRowTriggers() {
		return []trigger{{"capture_rows", "INSERT OR UPDATE OR DELETE", "ROW", "", row | ins | upd | del}, truncate}
	}
	return []trigger{
		{"capture_insert", "INSERT", "STATEMENT", "REFERENCING NEW TABLE AS new_rows ", ins},
		{"capture_update", "UPDATE", "STATEMENT", "REFERENCING OLD TABLE AS old_rows NEW TABLE AS new_rows ", upd},
		{"capture_delete", "DELETE", "STATEMENT", "REFERENCING OLD TABLE AS old_rows ", del},
		truncate,
	}
}

// triggerFunction returns the trigger function's name and argument list in SQL.
func (t *Table) triggerFunction() string {
	return QuoteIdentifier(t.Schema) + "." + QuoteIdentifier(objectName(t.Name())) + "()"
}

// triggerFunctionBody returns the trigger function's body: a template of package deploy, filled in for the table's key and
// channel.
func (t *Table) triggerFunctionBody() string {
	body := deploy.NotifyPerStatement
	if t.needsRowTriggers() {
		body = deploy.NotifyPerRow
	}
	key := func(row string) string {
		parts := make([]string, len(t.Key))
		for i, k := range t.Key {
			// concat calls the type's output function, so it prints a value as the stream and the copy do.
			parts[i] = "concat(" + row + "." + QuoteIdentifier(t.Columns[k].Name) + ")"
		}
		return "json_build_array(" + strings.Join(parts, ", ") + ")::text"
	}
	comment, code, _ := strings.Cut(body, "DECLARE")
	// A channel's name is safe in an SQL comment: it contains only lower-case letters, digits and underscores.
	comment = strings.ReplaceAll(comment, "{channel}", t.Channel())
	return "\n" + comment + strings.NewReplacer("{channel}", QuoteLiteral(t.Channel()), "{channel identifier}", QuoteIdentifier(t.Channel()),
		"{counter}", QuoteLiteral("capture."+t.Channel()),
		"{key of r}", key("r"), "{key of NEW}", key("NEW"), "{key of OLD}", key("OLD")).Replace("DECLARE"+code)
}

// triggerFunctionSettings returns the settings of the trigger function. If the text form of a key column may depend on the
// session's settings, the result also fixes the values of these settings.
func (t *Table) triggerFunctionSettings() []setting {
	settings := []setting{{"search_path", "pg_catalog, pg_temp"}}
	for _, k := range t.Key {
		switch t.Columns[k].Type.OID {
		case boolOID, int2OID, int4OID, int8OID, textOID, varcharOID, bpcharOID, uuidOID:
		default:
			return append(settings, setting{"DateStyle", "ISO, MDY"}, setting{"IntervalStyle", "postgres"}, setting{"TimeZone", "UTC"},
				setting{"bytea_output", "hex"}, setting{"extra_float_digits", "1"})
		}
	}
	return settings
}

// createTriggerFunctionSQL returns the statements that create or replace the trigger function. The statements take no lock
// that the application needs.
func (t *Table) createTriggerFunctionSQL() []string {
	body := t.triggerFunctionBody()
	tag := "$capture$"
	for strings.Contains(body, tag) {
		tag = strings.TrimSuffix(tag, "$") + "_$"
	}
	var set strings.Builder
	for _, s := range t.triggerFunctionSettings() {
		value := s.value
		if s.name != "search_path" { // search_path is a list of names, not a string
			value = QuoteLiteral(value)
		}
		set.WriteString("SET " + s.name + " = " + value + "\n")
	}
	return []string{
		"CREATE OR REPLACE FUNCTION " + t.triggerFunction() + " RETURNS trigger LANGUAGE plpgsql SECURITY INVOKER\n" +
			set.String() + "AS " + tag + body + tag,
		"COMMENT ON FUNCTION " + t.triggerFunction() + " IS " + commentLiteral("sends the changed keys of table "+t.Name().String()),
	}
}

func (t *Table) createTriggerSQL(g trigger) []string {
	name, table := QuoteIdentifier(g.name), t.Name().Quoted()
	return []string{
		"CREATE TRIGGER " + name + " AFTER " + g.event + " ON " + table + " " + g.transitionTables +
			"FOR EACH " + g.level + " EXECUTE FUNCTION " + t.triggerFunction(),
		// ALWAYS means that the trigger also fires in sessions with session_replication_role = replica.
		"ALTER TABLE " + table + " ENABLE ALWAYS TRIGGER " + name,
		"COMMENT ON TRIGGER " + name + " ON " + table + " IS " + commentLiteral("notifies capture of changes"),
	}
}

func (t *Table) dropTriggerSQL(name string) string {
	return "DROP TRIGGER " + QuoteIdentifier(name) + " ON " + t.Name().Quoted()
}

// triggerState describes a table's trigger function and triggers as they are in the database.
type triggerState struct {
	hasFunction bool
	owner       string                  // the function's owner
	trusted     bool                    // whether capture trusts the function's owner; see trustedOwnerSQL
	commented   bool                    // whether the function's comment identifies it as capture's
	upToDate    bool                    // whether the function's body, language, settings and rights are those that capture gives it
	triggers    map[string]triggerEntry // the table's triggers that call the function, by name
}

type triggerEntry struct {
	enabled string // pg_trigger.tgenabled; "A" is ALWAYS
	bits    int16  // pg_trigger.tgtype
	always  bool   // whether the trigger has no condition, no list of columns and no arguments
}

// fires reports whether e, the trigger in the database, fires whenever g should.
func (g trigger) fires(e triggerEntry) bool { return e.bits == g.bits && e.always && e.enabled == "A" }

// trustedOwnerSQL returns an SQL condition that decides whether capture trusts the owner of an object that looks like an
// object of capture. The condition is true if the owner is the table's owner, a superuser or the current user. These roles
// gain nothing by owning the object: they may already do whatever capture's objects for the table could do. The object's
// name and comment prove nothing, because anybody who may create objects in the schema can choose them. role is an SQL
// expression for the OID of the owner, and table is one for the OID of the table.
func trustedOwnerSQL(role, table string) string {
	return `(` + role + ` = (SELECT c.relowner FROM pg_catalog.pg_class c WHERE c.oid = ` + table + `)
		OR EXISTS (SELECT FROM pg_catalog.pg_roles r WHERE r.oid = ` + role + ` AND (r.rolsuper OR r.rolname = current_user)))`
}

// loadTriggerState reads the state of the trigger function and of the table's triggers that call it.
func (t *Table) loadTriggerState(ctx context.Context, q Querier) (triggerState, error) {
	s := triggerState{triggers: map[string]triggerEntry{}}
	var settings []string
	for _, c := range t.triggerFunctionSettings() {
		settings = append(settings, c.name+"="+c.value)
	}
	// A partitioned table's trigger has a copy on each partition. If a copy is not enabled with ALWAYS, the query returns
	// the trigger as disabled.
	rows, err := Pinned(q).Query(ctx, `
		SELECT pg_catalog.pg_get_userbyid(p.proowner)::text, `+trustedOwnerSQL("p.proowner", "$3::oid")+`,
			COALESCE(pg_catalog.obj_description(p.oid, 'pg_proc'), '') LIKE 'capture %',
			p.prosrc = $4::text AND p.prokind = 'f' AND NOT p.prosecdef AND p.prorettype = 'pg_catalog.trigger'::regtype
				AND p.prolang = (SELECT oid FROM pg_catalog.pg_language WHERE lanname = 'plpgsql')
				AND COALESCE(p.proconfig, '{}') = $5::text[],
			COALESCE(g.tgname::text, ''),
			COALESCE(CASE WHEN EXISTS (SELECT FROM pg_catalog.pg_trigger c
				WHERE c.tgrelid IN `+TreeSQL("$3")+` AND c.tgname = g.tgname AND c.tgenabled <> 'A') THEN 'D' ELSE g.tgenabled::text END, ''),
			COALESCE(g.tgtype, 0::int2), COALESCE(g.tgqual IS NULL AND g.tgattr::text = '' AND g.tgnargs = 0, false)
		FROM pg_catalog.pg_proc p
		LEFT JOIN pg_catalog.pg_trigger g ON g.tgfoid = p.oid AND g.tgrelid = $3::oid AND g.tgname LIKE 'capture\_%'
		WHERE p.pronamespace = (SELECT oid FROM pg_catalog.pg_namespace WHERE nspname = $1::text::name)
			AND p.proname = $2::text::name AND p.pronargs = 0`,
		t.Schema, objectName(t.Name()), t.OID, t.triggerFunctionBody(), settings)
	if err != nil {
		return s, Explain(fmt.Errorf("find triggers on table %s: %w", t.Name(), err))
	}
	var name string
	var e triggerEntry
	_, err = pgx.ForEachRow(rows, []any{&s.owner, &s.trusted, &s.commented, &s.upToDate, &name, &e.enabled, &e.bits, &e.always}, func() error {
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

// checkOwner returns a [*Problem] if the trigger function's owner is not trusted. The owner can change what the function
// does, and the function runs with the rights of whoever writes to the table. So an untrusted owner could act with the
// rights of every writer.
func (s *triggerState) checkOwner(t *Table) error {
	if !s.hasFunction || s.trusted {
		return nil
	}
	return problemf(fmt.Sprintf("whoever owns the function can make it act in the name of everybody who writes to table %s", t.Name()),
		fmt.Sprintf("DROP FUNCTION %s CASCADE; -- as %s, the schema's owner or a superuser; then capture setup --source notify --table %s",
			t.triggerFunction(), displayIdentifier(s.owner), foreign.ShellWord(t.Name().String())),
		"function %s belongs to %s, who neither owns table %s nor is a superuser", t.triggerFunction(), displayIdentifier(s.owner), t.Name())
}

// CheckTriggers returns nil if triggers notify of every change of the table. Otherwise it returns a [*Problem] that names
// what is missing.
func CheckTriggers(ctx context.Context, q Querier, table *Table) error {
	s, err := table.loadTriggerState(ctx, q)
	if err != nil {
		return err
	}
	problem := func(format string, args ...any) error {
		p := problemf("not every change of the table sends a notification",
			"capture setup --source notify --table "+foreign.ShellWord(table.Name().String()), format, args...)
		p.needsSetup = true
		return p
	}
	if err := s.checkOwner(table); err != nil {
		return err
	}
	switch {
	case !s.hasFunction:
		return problem("table %s has no triggers of capture", table.Name())
	case !s.upToDate:
		return problem("the trigger function of table %s is out of date", table.Name())
	}
	for _, g := range table.wantedTriggers() {
		e, ok := s.triggers[g.name]
		switch {
		case !ok || e.bits != g.bits:
			return problem("trigger %s is missing from table %s", g.name, table.Name())
		case !g.fires(e):
			return problem("trigger %s on table %s is disabled, or can be bypassed", g.name, table.Name())
		}
	}
	return nil
}

// setupTriggersSQL returns the statements that create or replace the trigger function and triggers that are missing or out
// of date. The statements lock the table only if they create or drop a trigger.
func (t *Table) setupTriggersSQL(ctx context.Context, q Querier) ([]string, error) {
	s, err := t.loadTriggerState(ctx, q)
	if err != nil {
		return nil, err
	}
	if err := s.checkOwner(t); err != nil {
		return nil, err
	}
	if s.hasFunction && !s.commented {
		return nil, problemf("its comment does not say that it is capture's", "rename it, or drop it if nobody needs it",
			"function %s exists", t.triggerFunction())
	}
	var statements []string
	if !s.upToDate {
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
		if ok && g.fires(e) {
			continue
		}
		if ok {
			statements = append(statements, t.dropTriggerSQL(g.name))
		}
		statements = append(statements, t.createTriggerSQL(g)...)
	}
	return statements, nil
}
