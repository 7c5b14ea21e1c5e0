#!/bin/sh
# Makes the roles' passwords equal to the files, at each start: .env may have changed, the passwords may have been renewed, and
# the database may be older than the files. Runs in the network of the postgres container, where the image trusts 127.0.0.1.
set -eu
export PGHOST=127.0.0.1 PGDATABASE=postgres PGUSER=rag
if [ "$(psql -XAtc 'SELECT rolsuper FROM pg_catalog.pg_roles WHERE rolname = current_user')" = t ]; then
  echo 'rag is a superuser in this database, which an earlier docker-compose.yml created. docs/operations.md says how to change that.'
else
  export PGUSER=postgres
fi
exec psql -Xqf /compose/passwords.sql
