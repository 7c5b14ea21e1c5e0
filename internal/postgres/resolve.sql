-- Finds the table in the session's own search path and stores its OID in the setting capture.table, for the statements that
-- follow in the transaction; 0 if there is none. It runs with that path, so it names the schema of everything, of operators
-- too. See catalog.go.
--
-- $1 and $2 are the schema ('' means the search path) and the table as written. $3 and $4 are the same in lower case, for
-- parts that were written without quotes.
SELECT pg_catalog.set_config('capture.table', COALESCE(
	CASE WHEN $1::pg_catalog.text OPERATOR(pg_catalog.=) '' THEN COALESCE(
		pg_catalog.to_regclass(pg_catalog.quote_ident($2::pg_catalog.text)),
		pg_catalog.to_regclass(pg_catalog.quote_ident($4::pg_catalog.text)))::pg_catalog.oid
	ELSE (
		SELECT c.oid
		FROM pg_catalog.pg_class c
		JOIN pg_catalog.pg_namespace n ON n.oid OPERATOR(pg_catalog.=) c.relnamespace
		WHERE c.relname OPERATOR(pg_catalog.=) ANY (ARRAY[$2::pg_catalog.name, $4::pg_catalog.name])
			AND n.nspname OPERATOR(pg_catalog.=) ANY (ARRAY[$1::pg_catalog.name, $3::pg_catalog.name])
		ORDER BY (n.nspname OPERATOR(pg_catalog.<>) $1::pg_catalog.name)::pg_catalog.int4
				OPERATOR(pg_catalog.+) (c.relname OPERATOR(pg_catalog.<>) $2::pg_catalog.name)::pg_catalog.int4, n.nspname
		LIMIT 1
	) END, '0'::pg_catalog.oid)::pg_catalog.text, true)
