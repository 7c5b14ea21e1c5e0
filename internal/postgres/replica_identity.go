package postgres

import (
	"fmt"
	"slices"
)

const (
	// writesWouldFail is the reason why a table without a usable replica identity gets no publication.
	writesWouldFail = "once published, the application's own UPDATE and DELETE would fail"
	notInStream     = "its changes are not in the stream"
)

// checkReplicaIdentity returns a [*Problem] if publishing the table would have one of these effects: UPDATE or DELETE fail,
// changes are missing from the stream, or changes arrive without the key. See REPLICA IDENTITY in Postgres' documentation of
// ALTER TABLE.
func (t *Table) checkReplicaIdentity(version int) error {
	name := t.Name()
	if !t.hasIdentity {
		return problemf(writesWouldFail, t.replicaIdentityHint(), "table %s has no usable replica identity (%s)", name, t.replicaIdentityDefect())
	}
	for _, i := range t.Key {
		if c := t.Columns[i]; c.Generated == "v" || c.Generated != "" && version < 180000 {
			return problemf("this server leaves generated columns out of the stream, so it could not identify the rows",
				"use --source notify, or give the table a key of ordinary columns",
				"key column %s of table %s is generated", displayIdentifier(c.Name), name)
		}
	}
	if t.ReplicaIdentity == "f" {
		for _, c := range t.Columns {
			if c.Generated == "v" {
				return problemf(writesWouldFail, fmt.Sprintf("ALTER TABLE %s REPLICA IDENTITY DEFAULT;", name.Quoted()),
					"table %s has replica identity full and the virtual generated column %s", name, displayIdentifier(c.Name))
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

func (t *Table) replicaIdentityDefect() string {
	switch t.ReplicaIdentity {
	case "n":
		return "it is set to nothing"
	case "i":
		return "its index is gone"
	}
	return "its primary key is deferrable"
}

func (t *Table) replicaIdentityHint() string {
	alter := "ALTER TABLE " + t.Name().Quoted()
	if t.ReplicaIdentity == "d" {
		return alter + " REPLICA IDENTITY FULL; -- or make the primary key not deferrable"
	}
	return alter + " REPLICA IDENTITY DEFAULT;"
}

// checkLeaf checks that the stream can contain the changes of a leaf partition, and checks the partition's replica identity.
// When Postgres checks a write or sends an old key, it uses the replica identity of the partition, not that of the table.
func (t *Table) checkLeaf(l *leafEntry) error {
	name := Name{Schema: l.Schema, Table: l.Table}
	switch {
	case l.Kind != "r":
		return problemf(notInStream, "use --source poll, or detach it", "partition %s is a foreign table", name)
	case l.Persistence != "p":
		return problemf(notInStream, fmt.Sprintf("ALTER TABLE %s SET LOGGED;", name.Quoted()), "partition %s is not a logged table", name)
	}
	identity := l.Primary
	switch l.ReplicaIdentity {
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
	hint := fmt.Sprintf("ALTER TABLE %s REPLICA IDENTITY FULL;", name.Quoted())
	if l.Primary != nil && t.ReplicaIdentity != "i" {
		hint = fmt.Sprintf("ALTER TABLE %s REPLICA IDENTITY DEFAULT;", name.Quoted())
	}
	switch {
	case identity == nil:
		return problemf(writesWouldFail, hint, "partition %s has no usable replica identity", name)
	case !slices.Equal(key, identity):
		return problemf("its deletes would arrive without the table's key", hint, "partition %s has another replica identity than its table", name)
	}
	return nil
}

func (t *Table) keyNames() []string {
	names := make([]string, len(t.Key))
	for i, k := range t.Key {
		names[i] = t.Columns[k].Name
	}
	return names
}
