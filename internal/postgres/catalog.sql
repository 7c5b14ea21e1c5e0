-- Reads the catalog of one table in one statement, so that everything is of one moment. It returns two JSON documents: what
-- decides how the table's rows read and which rows it has (the hash of this document is the shape's fingerprint), and other
-- facts about the table. See catalog.go.
--
-- It runs with an empty search path: names of types, expressions and operators are complete, and can be used in SQL. The
-- setting capture.table has the table's OID; see resolve.sql.
WITH RECURSIVE rel AS (
	SELECT c.*, n.nspname
	FROM pg_catalog.pg_class c
	JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
	WHERE c.oid = pg_catalog.current_setting('capture.table')::oid
), col AS (
	-- xmin shows a rewrite that leaves the type as it was (ALTER TYPE with USING): it updates the column's entry.
	SELECT a.attnum, a.attname, a.atttypid, a.atttypmod, a.attnotnull, a.attidentity, a.attgenerated, a.xmin::text AS changed,
		-- The sequence that the column owns (serial, identity), if its options are not those that CREATE TABLE gives it.
		(SELECT pg_catalog.jsonb_build_object('start', q.seqstart, 'increment', q.seqincrement, 'min', q.seqmin, 'max', q.seqmax,
				'cache', q.seqcache, 'cycle', q.seqcycle)
			FROM pg_catalog.pg_depend o JOIN pg_catalog.pg_sequence q ON q.seqrelid = o.objid
			WHERE o.classid = 'pg_catalog.pg_class'::regclass AND o.refclassid = 'pg_catalog.pg_class'::regclass
				AND o.refobjid = rel.oid AND o.refobjsubid = a.attnum AND o.deptype IN ('a', 'i')
				AND (q.seqstart, q.seqincrement, q.seqmin, q.seqmax, q.seqcache, q.seqcycle) <> (1, 1, 1, CASE a.atttypid
					WHEN 'int2'::regtype THEN 32767 WHEN 'int4'::regtype THEN 2147483647 ELSE 9223372036854775807 END, 1, false)
			ORDER BY o.objid LIMIT 1) AS sequence,
		pg_catalog.format_type(a.atttypid, a.atttypmod) AS typename,
		COALESCE(pg_catalog.pg_get_expr(d.adbin, d.adrelid), '') AS expression,
		-- The columns that a generated column's expression refers to. Up to 14 the column depends on them, since 15 its
		-- expression does.
		(SELECT pg_catalog.jsonb_agg(DISTINCT p.refobjsubid) FROM pg_catalog.pg_depend p
			WHERE a.attgenerated <> '' AND p.refclassid = 'pg_catalog.pg_class'::regclass AND p.refobjid = rel.oid
				AND p.refobjsubid NOT IN (0, a.attnum)
				AND (p.classid, p.objid, p.objsubid) IN (('pg_catalog.pg_class'::regclass, rel.oid, a.attnum),
					('pg_catalog.pg_attrdef'::regclass, d.oid, 0))) AS sources,
		(SELECT pg_catalog.quote_ident(n.nspname) || '.' || pg_catalog.quote_ident(k.collname)
			FROM pg_catalog.pg_collation k JOIN pg_catalog.pg_namespace n ON n.oid = k.collnamespace
			JOIN pg_catalog.pg_type t ON t.oid = a.atttypid
			WHERE k.oid = a.attcollation AND a.attcollation <> t.typcollation) AS textcollation
	FROM rel
	JOIN pg_catalog.pg_attribute a ON a.attrelid = rel.oid AND a.attnum > 0 AND NOT a.attisdropped
	LEFT JOIN pg_catalog.pg_attrdef d ON d.adrelid = a.attrelid AND d.adnum = a.attnum
), typ(oid) AS (
	SELECT atttypid FROM col
	UNION
	SELECT x.oid
	FROM typ
	JOIN pg_catalog.pg_type t ON t.oid = typ.oid
	CROSS JOIN LATERAL (
		SELECT t.typbasetype WHERE t.typtype = 'd'
		UNION ALL SELECT t.typelem WHERE t.typelem <> 0 AND t.typlen = -1
		UNION ALL SELECT r.rngsubtype FROM pg_catalog.pg_range r WHERE r.rngtypid = t.oid
		-- The range type of a multirange. to_jsonb, because 13 has no column rngmultitypid.
		UNION ALL SELECT r.rngtypid FROM pg_catalog.pg_range r
			WHERE t.typtype = 'm' AND pg_catalog.to_jsonb(r)->>'rngmultitypid' = t.oid::text
		UNION ALL SELECT a.atttypid FROM pg_catalog.pg_attribute a
			WHERE t.typtype = 'c' AND a.attrelid = t.typrelid AND a.attnum > 0 AND NOT a.attisdropped
	) x(oid)
), tree(oid) AS (
	-- The table and its partitions. TreeSQL tells why it is not pg_partition_tree.
	SELECT rel.oid FROM rel
	UNION ALL
	SELECT i.inhrelid
	FROM tree
	JOIN pg_catalog.pg_inherits i ON i.inhparent = tree.oid
	JOIN pg_catalog.pg_class p ON p.oid = i.inhrelid AND p.relispartition
	WHERE NOT COALESCE((pg_catalog.to_jsonb(i)->>'inhdetachpending')::bool, false)
), part AS (
	SELECT c.oid, c.relkind, c.relpersistence, c.relreplident, n.nspname, c.relname,
		-- DETACH and ATTACH change this xmin. The partition's changes in between are not in the stream.
		(SELECT i.xmin::text FROM pg_catalog.pg_inherits i WHERE i.inhrelid = c.oid) AS attached,
		-- TRUNCATE of a partition by its own name is not in a stream that is published via the partition root, but gives the
		-- partition another file.
		CASE WHEN c.relkind = 'r' THEN c.relfilenode ELSE 0 END AS filenode
	FROM rel
	CROSS JOIN tree p
	JOIN pg_catalog.pg_class c ON c.oid = p.oid
	JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
	WHERE rel.relkind = 'p'
), ident AS (
	-- Primary keys and replica identity indexes of the table and of its partitions.
	SELECT i.indrelid, i.indisprimary AND i.indisvalid AS isprimary,
		i.indisreplident AND i.indisvalid AND i.indimmediate AS isidentity, i.indimmediate,
		(SELECT pg_catalog.jsonb_agg(i.indkey[k] ORDER BY k) FROM pg_catalog.generate_series(0, i.indnkeyatts - 1) k) AS nums,
		(SELECT pg_catalog.jsonb_agg(a.attname ORDER BY k) FROM pg_catalog.generate_series(0, i.indnkeyatts - 1) k
			JOIN pg_catalog.pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = i.indkey[k]) AS names,
		-- The operators by which the index finds equal keys, with the schemas that one must be able to use in order to name them
		-- and the columns' types. An index that is not a B-tree (403) names none: types with such keys have Postgres' own.
		(SELECT pg_catalog.jsonb_agg(pg_catalog.jsonb_build_object(
				'operator', 'OPERATOR(' || COALESCE(pg_catalog.quote_ident(n.nspname) || '.' || o.oprname, 'pg_catalog.=') || ')',
				'schemas', ARRAY(SELECT DISTINCT u.nspname FROM pg_catalog.pg_namespace u
					WHERE u.oid IN (n.oid, t.typnamespace) AND NOT pg_catalog.has_schema_privilege(u.oid, 'USAGE')),
				'needs', ARRAY(SELECT DISTINCT u.nspname FROM pg_catalog.pg_namespace u
					WHERE u.oid IN (n.oid, t.typnamespace) AND u.nspname <> 'pg_catalog')
			) ORDER BY k)
			FROM pg_catalog.generate_series(0, i.indnkeyatts - 1) k
			JOIN pg_catalog.pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = i.indkey[k]
			JOIN pg_catalog.pg_type t ON t.oid = a.atttypid
			LEFT JOIN pg_catalog.pg_opclass oc ON oc.oid = i.indclass[k] AND oc.opcmethod = 403
			LEFT JOIN pg_catalog.pg_amop ao ON ao.amopfamily = oc.opcfamily AND ao.amopstrategy = 3
				AND ao.amoplefttype = oc.opcintype AND ao.amoprighttype = oc.opcintype
			LEFT JOIN pg_catalog.pg_operator o ON o.oid = ao.amopopr
			LEFT JOIN pg_catalog.pg_namespace n ON n.oid = o.oprnamespace) AS operators
	FROM pg_catalog.pg_index i
	WHERE i.indrelid IN (SELECT oid FROM rel UNION SELECT oid FROM part) AND (i.indisprimary OR i.indisreplident)
)
SELECT pg_catalog.jsonb_build_object(
	'oid', rel.oid::int8, 'schema', rel.nspname, 'table', rel.relname,
	'kind', rel.relkind, 'persistence', rel.relpersistence, 'identity', rel.relreplident,
	'primary', (SELECT nums FROM ident WHERE indrelid = rel.oid AND isprimary),
	'primary_immediate', (SELECT indimmediate FROM ident WHERE indrelid = rel.oid AND isprimary),
	'identity_index', (SELECT nums FROM ident WHERE indrelid = rel.oid AND isidentity),
	'columns', (SELECT pg_catalog.jsonb_agg(pg_catalog.jsonb_build_object(
			'num', attnum, 'name', attname, 'type', atttypid::int8, 'typmod', atttypmod, 'not_null', attnotnull,
			'identity', attidentity, 'generated', attgenerated, 'changed', changed, 'type_name', typename,
			'expression', expression, 'sources', sources, 'collation', textcollation, 'sequence', sequence
		) ORDER BY attnum) FROM col),
	'types', (SELECT pg_catalog.jsonb_agg(pg_catalog.jsonb_build_object(
			'oid', t.oid::int8, 'type', t.typtype, 'base', t.typbasetype::int8, 'basemod', t.typtypmod,
			'relation', t.typrelid::int8, 'delim', t.typdelim,
			'elem', CASE WHEN t.typlen = -1 AND COALESCE(pg_catalog.to_jsonb(t)->>'typsubscript', 'array_subscript_handler')
				IN ('array_subscript_handler', 'pg_catalog.array_subscript_handler') THEN t.typelem::int8 ELSE 0 END,
			-- NULL if the function takes another type, as refcursor's does, or lies outside pg_catalog, where it may need a
			-- privilege: then it is not called by its name.
			'output', (SELECT 'pg_catalog.' || pg_catalog.quote_ident(p.proname)
				FROM pg_catalog.pg_proc p JOIN pg_catalog.pg_type a ON a.oid = p.proargtypes[0]
				WHERE p.oid = t.typoutput AND p.pronamespace = 'pg_catalog'::regnamespace AND (a.oid = t.oid OR a.typtype = 'p')),
			-- NULL if naming the type may need a privilege.
			'sql', CASE WHEN t.typnamespace = 'pg_catalog'::regnamespace THEN pg_catalog.format_type(t.oid, -1) END,
			'cast', t.oid >= 16384 AND EXISTS (SELECT FROM pg_catalog.pg_cast k
				WHERE k.castsource = t.oid AND k.casttarget = 114 AND k.castmethod = 'f'),
			-- The versions of what prints the type's values: the functions, and the extension that the type belongs to.
			'functions', (SELECT pg_catalog.jsonb_agg(p.oid::int8 || ' ' || p.xmin ORDER BY p.oid) FROM pg_catalog.pg_proc p
				WHERE t.oid >= 16384 AND (p.oid = t.typoutput
					OR p.oid IN (SELECT k.castfunc FROM pg_catalog.pg_cast k WHERE k.castsource = t.oid AND k.casttarget = 114))),
			'extension', (SELECT x.extname || ' ' || x.extversion FROM pg_catalog.pg_depend d
				JOIN pg_catalog.pg_extension x ON x.oid = d.refobjid
				WHERE d.classid = 'pg_catalog.pg_type'::regclass AND d.objid = t.oid AND d.deptype = 'e'
					AND d.refclassid = 'pg_catalog.pg_extension'::regclass),
			-- xmin shows that a field or a label was renamed and renamed back: rows that were read in between have the other name.
			'fields', (SELECT pg_catalog.jsonb_agg(pg_catalog.jsonb_build_object('name', a.attname, 'type', a.atttypid::int8,
					'changed', a.xmin::text)
					ORDER BY a.attnum)
				FROM pg_catalog.pg_attribute a
				WHERE t.typtype = 'c' AND a.attrelid = t.typrelid AND a.attnum > 0 AND NOT a.attisdropped),
			'labels', (SELECT pg_catalog.jsonb_agg(e.enumlabel || ' ' || e.xmin ORDER BY e.enumsortorder)
				FROM pg_catalog.pg_enum e WHERE e.enumtypid = t.oid)
		) ORDER BY t.oid) FROM pg_catalog.pg_type t WHERE t.oid IN (SELECT oid FROM typ)),
	-- WITHOUT OVERLAPS, since 18. 13 to 17 have no column conperiod.
	'key_period', COALESCE((SELECT (pg_catalog.to_jsonb(k)->>'conperiod')::boolean FROM pg_catalog.pg_constraint k
		WHERE k.conrelid = rel.oid AND k.contype = 'p'), false),
	-- How the table and its partitions are partitioned, and the partitions' bounds.
	'partitioning', (SELECT pg_catalog.jsonb_agg(pg_catalog.jsonb_build_object('oid', c.oid::int8, 'name', c.relname,
			'parent', (SELECT i.inhparent::int8 FROM pg_catalog.pg_inherits i WHERE i.inhrelid = c.oid AND c.oid <> rel.oid),
			'bound', CASE WHEN c.oid <> rel.oid THEN pg_catalog.pg_get_expr(c.relpartbound, c.oid) END,
			'strategy', CASE p.partstrat WHEN 'r' THEN 'RANGE' WHEN 'l' THEN 'LIST' WHEN 'h' THEN 'HASH' END,
			'definition', pg_catalog.pg_get_partkeydef(p.partrelid),
			-- NULL if the key has more than columns with their usual collations and operators.
			'columns', CASE WHEN p.partexprs IS NULL AND NOT EXISTS (
					SELECT FROM pg_catalog.generate_series(0, p.partnatts - 1) k
					JOIN pg_catalog.pg_opclass oc ON oc.oid = p.partclass[k]
					JOIN pg_catalog.pg_attribute a ON a.attrelid = c.oid AND a.attnum = p.partattrs[k]
					WHERE NOT oc.opcdefault OR p.partcollation[k] <> a.attcollation)
				THEN (SELECT pg_catalog.jsonb_agg(a.attname ORDER BY k) FROM pg_catalog.generate_series(0, p.partnatts - 1) k
					JOIN pg_catalog.pg_attribute a ON a.attrelid = c.oid AND a.attnum = p.partattrs[k]) END
		) ORDER BY c.oid <> rel.oid, c.oid)
		FROM pg_catalog.pg_class c LEFT JOIN pg_catalog.pg_partitioned_table p ON p.partrelid = c.oid
		WHERE rel.relkind = 'p' AND c.oid IN (SELECT rel.oid UNION SELECT part.oid FROM part)),
	'children', EXISTS (SELECT FROM pg_catalog.pg_inherits i WHERE i.inhparent = rel.oid),
	'partitions', (SELECT pg_catalog.jsonb_agg(pg_catalog.jsonb_build_object('oid', oid::int8, 'filenode', filenode::int8, 'attached', attached)
		ORDER BY oid) FROM part),
	-- A database that has taken another one's name may be a copy of it, with the same OIDs.
	'database', (SELECT d.oid::int8 FROM pg_catalog.pg_database d WHERE d.datname = pg_catalog.current_database()),
	-- money (type OID 790) prints differently under another lc_monetary.
	'monetary', CASE WHEN EXISTS (SELECT FROM typ WHERE oid = 790) THEN pg_catalog.current_setting('lc_monetary') END
)::text, pg_catalog.jsonb_build_object(
	'user', current_user,
	'owner', pg_catalog.pg_get_userbyid(rel.relowner),
	'owned', pg_catalog.pg_has_role(rel.relowner, 'USAGE'),
	'creates', pg_catalog.has_database_privilege(pg_catalog.current_database(), 'CREATE'),
	'owner_creates', pg_catalog.has_database_privilege(rel.relowner, pg_catalog.current_database(), 'CREATE'),
	'database_owner', (SELECT pg_catalog.pg_get_userbyid(d.datdba) FROM pg_catalog.pg_database d WHERE d.datname = pg_catalog.current_database()),
	'schema_usage', pg_catalog.has_schema_privilege(rel.relnamespace, 'USAGE'),
	'readable', pg_catalog.has_table_privilege(rel.oid, 'SELECT'),
	'columns_readable', pg_catalog.has_any_column_privilege(rel.oid, 'SELECT'),
	'row_security', pg_catalog.row_security_active(rel.oid),
	'rewritten', (SELECT pg_catalog.bool_or(c.relfilenode <> 0 AND c.relfilenode IS DISTINCT FROM pg_catalog.pg_relation_filenode(c.oid))
		FROM pg_catalog.pg_class c WHERE c.oid IN (SELECT rel.oid UNION SELECT oid FROM part)),
	-- pg_class shows names as of the snapshot, but statements find tables by their present names, as to_regclass does.
	'renamed', pg_catalog.has_schema_privilege(rel.relnamespace, 'USAGE') AND rel.oid IS DISTINCT FROM
		pg_catalog.to_regclass(pg_catalog.quote_ident(rel.nspname) || '.' || pg_catalog.quote_ident(rel.relname))::oid,
	'primary_operators', (SELECT operators FROM ident WHERE indrelid = rel.oid AND isprimary),
	'identity_operators', (SELECT operators FROM ident WHERE indrelid = rel.oid AND isidentity),
	'subscribed', EXISTS (SELECT FROM pg_catalog.pg_subscription_rel r WHERE r.srrelid = rel.oid),
	'leaves', (SELECT pg_catalog.jsonb_agg(pg_catalog.jsonb_build_object(
			'schema', nspname, 'table', relname, 'kind', relkind, 'persistence', relpersistence, 'identity', relreplident,
			'primary', (SELECT names FROM ident WHERE indrelid = part.oid AND isprimary AND indimmediate),
			'identity_index', (SELECT names FROM ident WHERE indrelid = part.oid AND isidentity)
		) ORDER BY oid) FROM part WHERE relkind <> 'p')
)::text
FROM rel
