package postgres

// TreeSQL returns a subquery for the OIDs of a table and all its partitions. tableOID is an SQL expression for the table's OID.
//
// The function pg_partition_tree would be shorter, but it locks the partitions, and not the table, until the transaction ends
// (find_all_inheritors in Postgres' pg_inherits.c). A statement of the application, such as ALTER TABLE, locks the table first
// and then waits for these locks. If the transaction with the locks then needs the table, one of the two transactions fails
// with a deadlock. Reading pg_inherits locks no partition. catalog.sql.tmpl has the same query.
//
// Like Postgres, the query omits a partition whose DETACH CONCURRENTLY is not finished. It uses to_jsonb because version 13 has
// no column inhdetachpending.
func TreeSQL(tableOID string) string {
	return `(WITH RECURSIVE tree(oid) AS (
		SELECT ` + tableOID + `::pg_catalog.oid
		UNION ALL SELECT i.inhrelid
		FROM tree
		JOIN pg_catalog.pg_inherits i ON i.inhparent = tree.oid
		JOIN pg_catalog.pg_class p ON p.oid = i.inhrelid AND p.relispartition
		WHERE NOT COALESCE((pg_catalog.to_jsonb(i)->>'inhdetachpending')::pg_catalog.bool, false)
	) SELECT oid FROM tree)`
}
