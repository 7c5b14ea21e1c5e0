package restore

import (
	"context"
	"fmt"
	"regexp"
	"slices"
	"strings"

	"capture/internal/postgres"
	"capture/snapshot/rowjson"
)

// Limits of a manifest's partitions. capture writes no manifest beyond these limits.
const (
	maxPartitions     = 10_000
	maxPartitionDepth = 8
)

// partitionBy returns the PARTITION BY clause for p, which comes from the manifest. It builds the clause from p.Strategy and
// p.Columns. p.Definition is only for messages.
func (c *creation) partitionBy(p *rowjson.Partitioning) (string, error) {
	if !slices.Contains([]string{"RANGE", "LIST", "HASH"}, p.Strategy) || len(p.Columns) == 0 {
		return "", errNotSimple
	}
	return " PARTITION BY " + p.Strategy + " (" + columnList("", p.Columns) + ")", nil
}

// createPartitions creates the partitions of a table, and the partitions of these partitions. A partition gets the name that
// it has in the manifest, in the schema of the created table. If that name is taken, the created table's name and an
// underscore are put before it.
func (c *creation) createPartitions(ctx context.Context, parent string, p *rowjson.Partitioning, depth int) error {
	if c.partitions += len(p.Partitions); c.partitions > maxPartitions || depth > maxPartitionDepth {
		return errNotSimple
	}
	for i := range p.Partitions {
		part := &p.Partitions[i]
		bound, err := c.partitionBound(ctx, part.Bound, p)
		if err != nil {
			return err
		}
		if part.Partitioning != nil {
			by, err := c.partitionBy(part.Partitioning)
			if err != nil {
				return err
			}
			bound += by
		}
		var name string
		for _, table := range []string{part.Name, c.name.Table + "_" + part.Name} {
			name = postgres.Name{Schema: c.schema, Table: table}.Quoted()
			err = withSavepoint(ctx, c.tx, func() error {
				return withOwnPath(ctx, c.tx, func() error {
					return execAlone(ctx, c.tx, "CREATE TABLE "+name+" PARTITION OF "+parent+" "+bound)
				})
			})
			if postgres.SQLState(err) != duplicateTable {
				break
			}
		}
		if err != nil {
			return err
		}
		if part.Partitioning != nil {
			if err := c.createPartitions(ctx, name, part.Partitioning, depth+1); err != nil {
				return err
			}
		}
	}
	return nil
}

// hashPattern matches the bound of a hash partition.
var hashPattern = regexp.MustCompile(`^FOR VALUES WITH \(modulus ([0-9]{1,9}), remainder ([0-9]{1,9})\)$`)

// partitionBound returns SQL for the bound of a partition. bound is in the form that pg_get_expr prints.
// partitioning is that of the partition's parent. The SQL consists only of fixed words, numbers
// that hashPattern has matched, and values that defaultParser has accepted and that the partition key's columns take.
func (c *creation) partitionBound(ctx context.Context, bound string, partitioning *rowjson.Partitioning) (string, error) {
	if bound == "DEFAULT" {
		return bound, nil
	}
	if hash := hashPattern.FindStringSubmatch(bound); hash != nil {
		return fmt.Sprintf("FOR VALUES WITH (MODULUS %s, REMAINDER %s)", hash[1], hash[2]), nil
	}
	var columns []serverType
	for _, name := range partitioning.Columns {
		i := slices.IndexFunc(c.manifest.Columns, func(column rowjson.Column) bool { return column.Name == name })
		if i < 0 {
			return "", errNotSimple
		}
		columns = append(columns, c.types[i])
	}
	p := defaultParser{ctx: ctx, types: &c.names, rest: bound}
	var sql string
	switch {
	case p.take("FOR VALUES IN ("):
		list, err := p.parseBounds(func(int) *serverType { return &columns[0] })
		if err != nil {
			return "", err
		}
		sql = "FOR VALUES IN (" + list + ")"
	case p.take("FOR VALUES FROM ("):
		columnAt := func(i int) *serverType { return &columns[min(i, len(columns)-1)] }
		from, err := p.parseBounds(columnAt)
		if err == nil && !p.take(" TO (") {
			err = errNotSimple
		}
		if err != nil {
			return "", err
		}
		to, err := p.parseBounds(columnAt)
		if err != nil {
			return "", err
		}
		sql = "FOR VALUES FROM (" + from + ") TO (" + to + ")"
	default:
		return "", errNotSimple
	}
	if p.rest != "" {
		return "", errNotSimple
	}
	return sql, nil
}

// parseBounds parses a list of bounds and the parenthesis that closes it. Postgres casts the bound at index i to the type that
// columnAt returns for i.
func (p *defaultParser) parseBounds(columnAt func(i int) *serverType) (string, error) {
	var list []string
	for {
		if word := boundPattern.FindString(p.rest); word != "" {
			p.take(word)
			list = append(list, word)
		} else {
			sql, value, err := p.parse(0)
			if err == nil && !columnAt(len(list)).takes(value) {
				err = errNotSimple
			}
			if err != nil {
				return "", err
			}
			list = append(list, sql)
		}
		if p.take(")") {
			return strings.Join(list, ", "), nil
		}
		if !p.take(", ") {
			return "", errNotSimple
		}
	}
}

// boundPattern matches MINVALUE and MAXVALUE, the two bounds of a range that are not values.
var boundPattern = regexp.MustCompile(`^(?:MINVALUE|MAXVALUE)\b`)
