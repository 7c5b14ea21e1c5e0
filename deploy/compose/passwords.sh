#!/bin/sh
# Writes the passwords of docker-compose.yml's database, and the token of capture's page, into volumes, each readable only by the container that needs it.
# A password is the one that .env sets, otherwise the one written before, otherwise a generated one.
#
#   docker compose run --rm passwords renew     generates them all again; then: docker compose up -d
set -eu
umask 077

# password NAME [VALUE]: prints the password.
password() {
  if [ -n "${2:-}" ]; then
    printf %s "$2"
  elif [ -s "/passwords/$1" ] && [ "$mode" != renew ]; then
    cat "/passwords/$1"
  else
    head -c 24 /dev/urandom | base64 | tr +/ -_
  fi
}
# put FILE OWNER MODE: replaces FILE by standard input, at once.
put() {
  cat >"$1.new"
  chmod "$3" "$1.new"
  chown "$2" "$1.new"
  mv "$1.new" "$1"
}

mode=${1:-}
superuser=$(password postgres)
rag=$(password rag "${POSTGRES_PASSWORD:-}")
capture=$(password capture "${CAPTURE_DB_PASSWORD:-}")
token=$(password token)
printf '%s\n' "$superuser" | put /passwords/postgres postgres 0400
printf '%s\n' "$rag" | put /passwords/rag postgres 0400
printf '%s\n' "$capture" | put /passwords/capture postgres 0400
printf '%s\n' "$token" | put /passwords/token postgres 0400
# In a PGPASSFILE, \ and : are escaped. 65532 is capture's user in its image.
printf '%s\n' "$capture" | sed 's/[\\:]/\\&/g; s/^/*:*:*:capture:/' | put /capture-password/pgpass 65532 0400
printf '%s\n' "$token" | put /capture-password/token 65532 0400
# The application may run as any user, but only its container has this volume.
printf '%s\n' "$rag" | put /rag-password/password root 0444
