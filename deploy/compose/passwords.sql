-- Sets the passwords in /passwords: init.sql when the database is created, roles.sh at each later start.
\set ON_ERROR_STOP on
\set rag_password `cat /passwords/rag`
\set capture_password `cat /passwords/capture`
BEGIN;
-- The application's role may create functions and operators in its database. None of them takes part in this.
SET LOCAL search_path = '';
-- The server's log gets none of these statements.
SET LOCAL log_statement = none;
SET LOCAL log_min_duration_statement = -1;
SET LOCAL log_min_error_statement = panic;
SELECT format('ALTER ROLE %I PASSWORD %L', rolname, CASE rolname WHEN 'rag' THEN :'rag_password' ELSE :'capture_password' END)
FROM pg_catalog.pg_roles WHERE rolname IN ('rag', 'capture')
\gexec
COMMIT;
