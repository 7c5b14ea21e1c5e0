package postgres

import (
	"fmt"
	"slices"
)

// checkLogical says whether tables of this server can be followed by logical replication: nil, or the [*Problem] that
// stands in the way. The right to replicate is not asked for, since only a replication connection tells; see
// [ConnectReplication].
func (s *Server) checkLogical() error {
	switch {
	case s.VersionNum < MinVersion:
		return problemf("capture follows PostgreSQL 13 and later", "upgrade the server", "the server is PostgreSQL %s", s.Version)
	case s.InRecovery:
		return problemf("its tables cannot be published from here", "point --database-url at the primary",
			"the server is a standby or still recovering")
	case s.WALLevel != "logical":
		return problemf("logical replication needs it at logical", "ALTER SYSTEM SET wal_level = logical; -- and restart the server",
			"wal_level is %s", s.WALLevel)
	}
	return nil
}

// checkIdentity refuses a table whose UPDATE or DELETE would fail once it is published, or would arrive without a key.
func (t *Table) checkIdentity(version int) error {
	name := t.Name()
	if !t.usable {
		return &Problem{
			Summary: fmt.Sprintf("table %s has no usable replica identity (%s)", name, t.identityText()),
			Reason:  "once published, the application's own UPDATE and DELETE would fail",
			Hint:    t.identityMend(),
		}
	}
	for _, i := range t.Key {
		if c := t.Columns[i]; c.Generated == "v" || c.Generated != "" && version < 180000 {
			return &Problem{
				Summary: fmt.Sprintf("key column %s of table %s is generated", displayIdentifier(c.Name), name),
				Reason:  "this server leaves generated columns out of the stream, so rows could not be told apart",
				Hint:    "use --source notify, or give the table a key of ordinary columns",
			}
		}
	}
	if t.identity == "f" {
		for _, c := range t.Columns {
			if c.Generated == "v" {
				return &Problem{
					Summary: fmt.Sprintf("table %s has replica identity full and the virtual generated column %s", name, displayIdentifier(c.Name)),
					Reason:  "once published, the application's own UPDATE and DELETE would fail",
					Hint:    fmt.Sprintf("ALTER TABLE %s REPLICA IDENTITY DEFAULT;", name.Quoted()),
				}
			}
		}
	}
	for i := range t.facts.Leaves {
		if err := t.checkLeaf(&t.facts.Leaves[i]); err != nil {
			return err
		}
	}
	return nil
}

func (t *Table) identityText() string {
	switch t.identity {
	case "n":
		return "it is set to nothing"
	case "i":
		return "its index is gone"
	}
	return "its primary key is deferrable"
}

func (t *Table) identityMend() string {
	alter := "ALTER TABLE " + t.Name().Quoted()
	if t.identity == "d" {
		return alter + " REPLICA IDENTITY FULL; -- or make the primary key not deferrable"
	}
	return alter + " REPLICA IDENTITY DEFAULT;"
}

// checkLeaf looks at one partition: writes are checked, and old keys made, by the partition's own identity.
func (t *Table) checkLeaf(l *leafEntry) error {
	name := Name{Schema: l.Schema, Table: l.Table}
	p := &Problem{Reason: "once published, the application's own UPDATE and DELETE would fail"}
	switch {
	case l.Kind != "r":
		p.Reason = "its changes are not in the stream"
		p.Summary, p.Hint = fmt.Sprintf("partition %s is a foreign table", name), "use --source poll, or detach it"
		return p
	case l.Persistence != "p":
		p.Reason = "its changes are not in the stream"
		p.Summary = fmt.Sprintf("partition %s is not a logged table", name)
		p.Hint = fmt.Sprintf("ALTER TABLE %s SET LOGGED;", name.Quoted())
		return p
	}
	identity := l.Primary
	switch l.Identity {
	case "f":
		return nil
	case "i":
		identity = l.IdentityIndex
	case "n":
		identity = nil
	}
	key := t.keyNames()
	slices.Sort(key)
	slices.Sort(identity)
	switch {
	case identity == nil:
		p.Summary = fmt.Sprintf("partition %s has no usable replica identity", name)
	case !slices.Equal(key, identity):
		p.Summary = fmt.Sprintf("partition %s has another replica identity than its table", name)
		p.Reason = "its deletes would arrive without the table's key"
	default:
		return nil
	}
	p.Hint = fmt.Sprintf("ALTER TABLE %s REPLICA IDENTITY FULL;", name.Quoted())
	if l.Primary != nil && t.identity != "i" {
		p.Hint = fmt.Sprintf("ALTER TABLE %s REPLICA IDENTITY DEFAULT;", name.Quoted())
	}
	return p
}

func (t *Table) keyNames() []string {
	names := make([]string, len(t.Key))
	for i, k := range t.Key {
		names[i] = t.Columns[k].Name
	}
	return names
}
