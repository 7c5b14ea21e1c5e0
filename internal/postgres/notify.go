package postgres

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5"

	"capture/deploy"
)

// NotifyQueueLimit is how full the server's queue of notifications may get, as pg_notification_queue_usage tells,
// before capture must read the whole table instead of trusting notifications: the triggers stop sending at twice that,
// so that a full queue never fails a commit of the application.
const NotifyQueueLimit = 0.25

// Channel is the channel on which the table's triggers notify.
func (t *Table) Channel() string { return objectName(t.Name()) }

// ParseNotification reads a notification's payload: the changed rows' keys, each the text forms of its columns as
// [Table.SelectList] gives them, in the order of the key; or all, where the whole table should be read again.
func ParseNotification(payload string) (keys [][]string, all bool, err error) {
	if payload == "*" {
		return nil, true, nil
	}
	if err := json.Unmarshal([]byte(payload), &keys); err != nil {
		return nil, false, fmt.Errorf("read a notification of %d bytes: %w", len(payload), err)
	}
	return keys, false, nil
}

// RowsByKeyQuery reads the rows with given keys back, fields as in [Table.CopyQuery] where results are asked for in binary.
// It takes one text array for each key column ($1, …), all of one length. Keys that are no more give no row.
func (t *Table) RowsByKeyQuery() string {
	var columns, given, alias, cast []string
	for i, k := range t.Key {
		c, name := &t.Columns[k], fmt.Sprintf("k%d", i+1)
		columns = append(columns, QuoteIdentifier(c.Name))
		given = append(given, fmt.Sprintf("pg_catalog.unnest($%d::text[])", i+1))
		alias = append(alias, name)
		cast = append(cast, "g."+name+"::"+c.TypeName)
	}
	return "SELECT " + t.SelectList() + " FROM " + t.FromClause() +
		" WHERE (" + strings.Join(columns, ", ") + ") IN (SELECT " + strings.Join(cast, ", ") +
		" FROM ROWS FROM (" + strings.Join(given, ", ") + ") AS g(" + strings.Join(alias, ", ") + "))"
}

// trigger is one of those that capture puts on a table.
type trigger struct{ name, event, level, tables string }

// rowTriggers says whether triggers must fire for each row: writes to a partition by its own name, and those of a
// subscription's worker, fire no others.
func (t *Table) rowTriggers() bool { return t.Partitioned || t.facts.Subscribed }

func (t *Table) triggers() []trigger {
	truncate := trigger{"capture_truncate", "TRUNCATE", "STATEMENT", ""}
	if t.rowTriggers() {
		return []trigger{{"capture_rows", "INSERT OR UPDATE OR DELETE", "ROW", ""}, truncate}
	}
	return []trigger{
		{"capture_insert", "INSERT", "STATEMENT", "REFERENCING NEW TABLE AS new_rows "},
		{"capture_update", "UPDATE", "STATEMENT", "REFERENCING OLD TABLE AS old_rows NEW TABLE AS new_rows "},
		{"capture_delete", "DELETE", "STATEMENT", "REFERENCING OLD TABLE AS old_rows "},
		truncate,
	}
}

func (t *Table) function() string {
	return QuoteIdentifier(t.Schema) + "." + QuoteIdentifier(objectName(t.Name())) + "()"
}

// functionBody is the trigger function for this table's key.
func (t *Table) functionBody() string {
	body := deploy.NotifyStatements
	if t.rowTriggers() {
		body = deploy.NotifyRows
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
	// In the comment a name could not do harm by a newline in it, since channels' names are plain.
	comment = strings.ReplaceAll(comment, "{channel}", t.Channel())
	return "\n" + comment + strings.NewReplacer("{channel}", QuoteLiteral(t.Channel()), "{counter}", QuoteLiteral("capture."+t.Channel()),
		"{key of r}", key("r"), "{key of NEW}", key("NEW"), "{key of OLD}", key("OLD")).Replace("DECLARE"+code)
}

// functionSettings pin how keys print whatever the application's session says, where that could matter.
func (t *Table) functionSettings() []string {
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

// createFunction makes or replaces the trigger function, without any lock on the table.
func (t *Table) createFunction() []string {
	body := t.functionBody()
	tag := "$capture$"
	for strings.Contains(body, tag) {
		tag = strings.TrimSuffix(tag, "$") + "_$"
	}
	return []string{
		"CREATE OR REPLACE FUNCTION " + t.function() + " RETURNS trigger LANGUAGE plpgsql\nSET " +
			strings.Join(t.functionSettings(), "\nSET ") + "\nAS " + tag + body + tag,
		"COMMENT ON FUNCTION " + t.function() + " IS " + comment("sends the changed keys of table "+t.Name().String()),
	}
}

func (t *Table) createTrigger(g trigger) []string {
	on := QuoteIdentifier(g.name) + " ON " + t.Name().Quoted()
	return []string{
		"CREATE TRIGGER " + QuoteIdentifier(g.name) + " AFTER " + g.event + " ON " + t.Name().Quoted() + " " + g.tables +
			"FOR EACH " + g.level + " EXECUTE FUNCTION " + t.function(),
		// Also where session_replication_role says replica.
		"ALTER TABLE " + t.Name().Quoted() + " ENABLE ALWAYS TRIGGER " + QuoteIdentifier(g.name),
		"COMMENT ON TRIGGER " + on + " IS " + comment("notifies capture of changes"),
	}
}

// triggerState is what the database has of a table's triggers and function.
type triggerState struct {
	hasFunction  bool
	functionOurs bool   // says its comment
	source       string // of the function
	triggers     map[string]triggerEntry
}

type triggerEntry struct {
	enabled string // pg_trigger.tgenabled; "A" always
	serves  bool   // calls the function, at the level that is right
}

func (t *Table) triggerState(ctx context.Context, q Querier) (triggerState, error) {
	s := triggerState{triggers: map[string]triggerEntry{}}
	// tgtype: 1 for each row. On a partitioned table all partitions' copies must be enabled as well.
	rows, err := q.Query(ctx, `
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
		t.Schema, objectName(t.Name()), t.OID, t.rowTriggers())
	if err != nil {
		return s, Explain(fmt.Errorf("look for triggers on table %s: %w", t.Name(), err))
	}
	var name string
	var e triggerEntry
	_, err = pgx.ForEachRow(rows, []any{&s.source, &s.functionOurs, &name, &e.enabled, &e.serves}, func() error {
		s.hasFunction = true
		if name != "" {
			s.triggers[name] = e
		}
		return nil
	})
	if err != nil {
		return s, Explain(fmt.Errorf("look for triggers on table %s: %w", t.Name(), err))
	}
	return s, nil
}

// CheckTriggers is nil where the triggers that notify of every change of the table are there, whole and enabled;
// otherwise a [*Problem] that says what is missing.
func CheckTriggers(ctx context.Context, q Querier, table *Table) error {
	s, err := table.triggerState(ctx, q)
	if err != nil {
		return err
	}
	p := &Problem{Reason: "changes of the table send no notification", Hint: "capture setup --source notify --table " + table.Name().String()}
	switch {
	case !s.hasFunction:
		p.Summary = fmt.Sprintf("table %s has no triggers of capture", table.Name())
		return p
	case s.source != table.functionBody():
		p.Summary = fmt.Sprintf("the trigger function of table %s is not the one for its key as it is now", table.Name())
		return p
	}
	for _, g := range table.triggers() {
		e, ok := s.triggers[g.name]
		switch {
		case !ok || !e.serves:
			p.Summary = fmt.Sprintf("trigger %s is missing from table %s", g.name, table.Name())
			return p
		case e.enabled != "A":
			p.Summary = fmt.Sprintf("trigger %s on table %s is disabled, or can be bypassed", g.name, table.Name())
			return p
		}
	}
	return nil
}

// setupTriggers is the statements that are missing. They lock the table only where a trigger is.
func (t *Table) setupTriggers(ctx context.Context, q Querier) ([]string, error) {
	s, err := t.triggerState(ctx, q)
	if err != nil {
		return nil, err
	}
	if s.hasFunction && !s.functionOurs {
		return nil, problemf("it does not say that it is capture's", "rename it, or drop it where nobody needs it",
			"function %s exists", t.function())
	}
	var statements []string
	if s.source != t.functionBody() {
		statements = t.createFunction()
	}
	wanted := t.triggers()
	for name := range s.triggers {
		if !slices.ContainsFunc(wanted, func(g trigger) bool { return g.name == name }) {
			statements = append(statements, "DROP TRIGGER "+QuoteIdentifier(name)+" ON "+t.Name().Quoted())
		}
	}
	for _, g := range wanted {
		e, ok := s.triggers[g.name]
		if ok && e.serves && e.enabled == "A" {
			continue
		}
		if ok {
			statements = append(statements, "DROP TRIGGER "+QuoteIdentifier(g.name)+" ON "+t.Name().Quoted())
		}
		statements = append(statements, t.createTrigger(g)...)
	}
	return statements, nil
}
