-- Returns, as JSON, the names of the columns' types and the columns' default expressions as the session's own search path
-- shows them, for the table that resolve.sql has found. It runs with that path, so it names the schema of everything.
SELECT COALESCE(pg_catalog.jsonb_object_agg(a.attnum, pg_catalog.jsonb_build_object(
	'type', pg_catalog.format_type(a.atttypid, a.atttypmod),
	'expression', COALESCE(pg_catalog.pg_get_expr(d.adbin, d.adrelid), ''))), '{}')::pg_catalog.text
FROM pg_catalog.pg_attribute a
LEFT JOIN pg_catalog.pg_attrdef d
	ON d.adrelid OPERATOR(pg_catalog.=) a.attrelid AND d.adnum OPERATOR(pg_catalog.=) a.attnum
WHERE a.attrelid OPERATOR(pg_catalog.=) pg_catalog.current_setting('capture.table')::pg_catalog.oid
	AND a.attnum OPERATOR(pg_catalog.>) 0 AND NOT a.attisdropped
