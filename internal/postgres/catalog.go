package postgres

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"

	"github.com/jackc/pgx/v5"

	"capture/snapshot/rowjson"
)

// catalogEntry is the first document of a catalogQuery. It contains everything that determines which rows belong to the table,
// and how they become JSON. The document's hash is the fingerprint of the table's shape.
type catalogEntry struct {
	OID              uint32           `json:"oid"`
	Schema           string           `json:"schema"`
	Table            string           `json:"table"`
	Kind             string           `json:"kind"`              // pg_class.relkind
	Persistence      string           `json:"persistence"`       // pg_class.relpersistence
	ReplicaIdentity  string           `json:"identity"`          // pg_class.relreplident
	Primary          []int16          `json:"primary"`           // column numbers of the primary key
	PrimaryImmediate bool             `json:"primary_immediate"` // whether the primary key is immediate, not deferrable
	IdentityIndex    []int16          `json:"identity_index"`    // column numbers of the replica identity index
	Columns          []columnEntry    `json:"columns"`
	Types            []typeEntry      `json:"types"`
	Children         bool             `json:"children"`     // whether other tables inherit from this table
	KeyPeriod        bool             `json:"key_period"`   // whether the primary key is WITHOUT OVERLAPS
	Partitioning     []partitionEntry `json:"partitioning"` // the table and its partitions, if it is partitioned
}

// partitionEntry is a partitioned table or a partition.
type partitionEntry struct {
	OID        uint32   `json:"oid"`
	Name       string   `json:"name"`
	Parent     uint32   `json:"parent"` // OID of the partitioned table that the partition belongs to; 0 for the root
	Bound      string   `json:"bound"`
	Strategy   string   `json:"strategy"` // empty if the partition is not partitioned itself
	Definition string   `json:"definition"`
	Columns    []string `json:"columns"`
}

// partitioningOf returns how the entry with the given OID is partitioned, or nil if it is not partitioned. The first entry is
// the root; the others are sorted by OID.
func partitioningOf(entries []partitionEntry, oid uint32) *rowjson.Partitioning {
	i := slices.IndexFunc(entries, func(e partitionEntry) bool { return e.OID == oid })
	if i < 0 || entries[i].Strategy == "" {
		return nil
	}
	p := &rowjson.Partitioning{Strategy: entries[i].Strategy, Columns: entries[i].Columns, Definition: entries[i].Definition}
	for _, e := range entries {
		if e.Parent == oid {
			part := rowjson.Partition{Name: e.Name, Bound: e.Bound}
			if e.Strategy != "" {
				part.Partitioning = partitioningOf(entries, e.OID)
			}
			p.Partitions = append(p.Partitions, part)
		}
	}
	return p
}

type columnEntry struct {
	Num        int16                    `json:"num"`
	Name       string                   `json:"name"`
	Type       uint32                   `json:"type"`
	Typmod     int32                    `json:"typmod"`
	NotNull    bool                     `json:"not_null"`
	Identity   string                   `json:"identity"`   // pg_attribute.attidentity
	Generated  string                   `json:"generated"`  // pg_attribute.attgenerated
	TypeName   string                   `json:"type_name"`  // SQL text of the type
	Expression string                   `json:"expression"` // SQL text of the column's default, or of the expression of a generated column
	Collation  string                   `json:"collation"`  // SQL name of the collation; empty for the type's default
	Sequence   *rowjson.SequenceOptions `json:"sequence"`   // options of the column's own sequence; nil if they are the usual ones
	Sources    []int16                  `json:"sources"`    // numbers of the columns that a generated column's expression refers to
}

// facts is the second document of a catalogQuery. It contains properties of the table that may change without changing the JSON
// of any row.
type facts struct {
	User    string `json:"user"`
	Owner   string `json:"owner"`
	Owned   bool   `json:"owned"`   // whether the user has the rights of the table's owner
	Creates bool   `json:"creates"` // whether the user has CREATE on the database, which CREATE PUBLICATION requires

	OwnerCreates  bool   `json:"owner_creates"`  // whether the table's owner has CREATE on the database
	DatabaseOwner string `json:"database_owner"` // only for hints

	SchemaUsage bool        `json:"schema_usage"`
	Readable    bool        `json:"readable"`         // whether the user may read the whole table, including columns added later
	Columns     bool        `json:"columns_readable"` // whether the user may read at least one column
	RowSecurity bool        `json:"row_security"`     // whether row-level security applies to the user
	Rewritten   bool        `json:"rewritten"`        // see Table.Rewritten
	Renamed     bool        `json:"renamed"`          // see Table.Renamed
	Subscribed  bool        `json:"subscribed"`       // whether a subscription writes to the table; the apply worker fires row triggers, but no statement triggers
	Leaves      []leafEntry `json:"leaves"`

	PrimaryOperators  []keyOperator `json:"primary_operators"`
	IdentityOperators []keyOperator `json:"identity_operators"`
}

// keyOperator describes how values of a key column are compared.
type keyOperator struct {
	Operator string   `json:"operator"` // SQL text of the operator, with its schema
	Needs    []string `json:"needs"`    // schemas of the operator and of the column's type, except pg_catalog
	Schemas  []string `json:"schemas"`  // schemas in Needs that the user may not use

	asText bool // whether values are compared by their text, not with Operator
}

// ownName holds the SQL text of a column's type and default expression under the session's own search path, where names may
// lack a schema.
type ownName struct {
	Type       string `json:"type"`
	Expression string `json:"expression"`
}

// leafEntry is a partition that holds rows.
type leafEntry struct {
	Schema          string   `json:"schema"`
	Table           string   `json:"table"`
	Kind            string   `json:"kind"`
	Persistence     string   `json:"persistence"`
	ReplicaIdentity string   `json:"identity"`
	Primary         []string `json:"primary"`
	IdentityIndex   []string `json:"identity_index"`
}

// newTable returns the table that c describes. batchErr is the error that the batch returned.
func (c *catalogRow) newTable(ctx context.Context, q Querier, name Name, batchErr error) (*Table, error) {
	t, e, err := c.result(ctx, q, name, batchErr)
	if err != nil {
		return nil, err
	}
	if err := checkKind(e); err != nil {
		return nil, err
	}
	if err := t.addColumns(e, c.ownNames); err != nil {
		return nil, fmt.Errorf("read the catalog of table %s: %w", t.Name(), err)
	}
	if err := t.addKey(e); err != nil {
		return nil, err
	}
	return t, nil
}

// result returns what c.parse returns, or an error if the batch did not read the catalog. batchErr is the error that the batch
// returned.
func (c *catalogRow) result(ctx context.Context, q Querier, name Name, batchErr error) (*Table, *catalogEntry, error) {
	switch {
	case errors.Is(c.err, pgx.ErrNoRows):
		return nil, nil, explainMissingTable(ctx, q, name)
	case c.err != nil:
		batchErr = c.err
	case c.done:
		batchErr = nil // the catalog was read, so batchErr is the error of a later statement
	}
	if batchErr != nil {
		return nil, nil, Explain(fmt.Errorf("read the catalog of table %s: %w", name, batchErr))
	}
	t, e, err := c.parse()
	if err != nil {
		return nil, nil, fmt.Errorf("read the catalog of table %s: %w", name, err)
	}
	return t, e, nil
}

// parse returns the table without its columns and key, and the catalog entry that addColumns and addKey need to set them.
func (c *catalogRow) parse() (*Table, *catalogEntry, error) {
	var e catalogEntry
	t := &Table{}
	if err := json.Unmarshal([]byte(c.entry), &e); err != nil {
		return nil, nil, err
	}
	if err := json.Unmarshal([]byte(c.facts), &t.facts); err != nil {
		return nil, nil, err
	}
	sum := sha256.Sum256([]byte(c.entry))
	t.Shape = &rowjson.Shape{OID: e.OID, Schema: e.Schema, Table: e.Table, Fingerprint: hex.EncodeToString(sum[:16])}
	t.Partitioned = e.Kind == "p"
	t.KeyPeriod = e.KeyPeriod
	t.Partitioning = partitioningOf(e.Partitioning, e.OID)
	t.ReplicaIdentity = e.ReplicaIdentity
	return t, &e, nil
}

func (t *Table) addColumns(e *catalogEntry, ownNames string) error {
	own := map[string]ownName{}
	if ownNames != "" {
		if err := json.Unmarshal([]byte(ownNames), &own); err != nil {
			return err
		}
	}
	types := make(typeSet, len(e.Types))
	for _, te := range e.Types {
		types[te.OID] = te
	}
	t.columns, t.unstableType = e.Columns, types.unstableType()
	for _, c := range e.Columns {
		typ, err := types.resolveType(c.Type)
		if err != nil {
			return fmt.Errorf("column %s: %w", displayIdentifier(c.Name), err)
		}
		names, ok := own[strconv.Itoa(int(c.Num))]
		if !ok {
			names = ownName{c.TypeName, c.Expression}
		}
		t.Columns = append(t.Columns, rowjson.Column{
			Name: c.Name, TypeName: names.Type, NotNull: c.NotNull, Default: names.Expression, Identity: c.Identity,
			Collation: c.Collation, Sequence: c.Sequence, Generated: c.Generated, Published: c.Generated == "", TypeOID: c.Type, Typmod: c.Typmod, Type: typ,
		})
		t.selectExprs = append(t.selectExprs, types.selectExpr(c, &typ))
	}
	return nil
}

// addKey sets the table's key. If the table has a replica identity index, the key consists of the index's columns, because the
// old keys in the stream consist of these columns, too. Otherwise the key is the primary key.
func (t *Table) addKey(e *catalogEntry) error {
	key := e.Primary
	t.keyOperators = t.facts.PrimaryOperators
	t.hasIdentity = e.Primary != nil && e.PrimaryImmediate
	t.KeyImmediate = e.PrimaryImmediate || e.ReplicaIdentity == "i"
	switch e.ReplicaIdentity {
	case "i":
		t.hasIdentity = e.IdentityIndex != nil
		if e.IdentityIndex != nil {
			key, t.keyOperators = e.IdentityIndex, t.facts.IdentityOperators
		}
	case "f":
		t.hasIdentity = true
	case "n":
		t.hasIdentity = false
	}
	if key == nil {
		return problemf("capture identifies rows by a primary key or a replica identity index",
			fmt.Sprintf("ALTER TABLE %s ADD PRIMARY KEY (…);", t.Name().Quoted()), "table %s has no primary key", t.Name())
	}
	index := make(map[int16]int, len(e.Columns))
	for i, c := range e.Columns {
		index[c.Num] = i
	}
	for _, num := range key {
		i, ok := index[num]
		if !ok {
			return fmt.Errorf("read the catalog of table %s: its key has column number %d, which the table lacks", t.Name(), num)
		}
		t.Key = append(t.Key, i)
	}
	if len(t.keyOperators) != len(t.Key) {
		return fmt.Errorf("read the catalog of table %s: %d operators compare a key of %d columns", t.Name(), len(t.keyOperators), len(t.Key))
	}
	return nil
}
