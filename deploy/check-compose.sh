#!/usr/bin/env bash
# Starts docker-compose.yml as a temporary project, checks that it works as documented, and removes everything:
#
#   deploy/check-compose.sh
#
# It needs Docker with Compose 2.24 or newer, and bash. It uses a project, an image, volumes and a port of its own, so it
# does not disturb a stack that is running on this machine. CHECK_KEEP=1 leaves everything running.
set -euo pipefail
cd "$(dirname "$0")/.."
# The caller's variables must not change this project. (--env-file /dev/null excludes the caller's .env.)
unset CAPTURE_ALERT_URL CAPTURE_KEEP CAPTURE_MEMORY CAPTURE_TABLE CAPTURE_TOKEN_PATH POSTGRES_PASSWORD CAPTURE_DB_PASSWORD
project=capture-check-$$
export CAPTURE_PORT=0 CAPTURE_IMAGE=$project VERSION=0.0.0-check COMMIT=check
work=$(mktemp -d)
token_path=$work/token
cat >"$work/override.yml" <<YAML
volumes:
  azure-rag-usage-logs: {name: $project-usage}
  azure-rag-error-logs: {name: $project-errors}
  azure-rag-feedback-fallback: {name: $project-fallback}
YAML

compose() {
  docker compose --project-name "$project" --env-file /dev/null -f docker-compose.yml -f "$work/override.yml" "$@"
}
tear_down() {
  local code=$?
  trap - EXIT
  if [ "$code" != 0 ]; then
    echo "--- health checks, and the last log lines of the containers" >&2
    inspect '{{range .State.Health.Log}}{{.ExitCode}} {{.Output}}{{end}}' >&2 || true
    compose logs --no-color --tail 20 >&2 || true
  fi
  if [ -n "${CHECK_KEEP:-}" ]; then
    echo "left running: docker compose --project-name $project -f docker-compose.yml -f $work/override.yml" >&2
    exit "$code"
  fi
  compose down --volumes --remove-orphans --timeout 10 >/dev/null 2>&1 || code=1
  docker image rm "$project" >/dev/null 2>&1 || true
  rm -rf "$work"
  exit "$code"
}
trap tear_down EXIT
trap 'exit 130' INT TERM

ok() { printf 'ok    %s\n' "$*"; }
fail() { printf 'FAIL  %s\n' "$*" >&2; exit 1; }
# is WHAT EXPECTED FOUND
is() { [ "$2" = "$3" ] || fail "$1: expected \"$2\", found \"$3\""; ok "$1: $3"; }
# has WHAT TEXT PART
has() { case $2 in *"$3"*) ok "$1" ;; *) fail "$1: no \"$3\" in: $2" ;; esac; }
# eventually SECONDS WHAT COMMAND…
eventually() {
  local deadline=$((SECONDS + $1)) what=$2
  shift 2
  until "$@" >/dev/null 2>&1; do
    [ "$SECONDS" -lt "$deadline" ] || fail "$what: not in time"
    sleep 0.3
  done
  ok "$what"
}

sql() { compose exec -T postgres psql -X -q -v ON_ERROR_STOP=1 -U rag -d rag -At -c "$1"; }
id() { compose ps --all --quiet capture; }
inspect() { docker inspect --format "$1" "$(id)"; }
healthy() { [ "$(inspect '{{.State.Health.Status}}')" = healthy ]; }
unhealthy() { [ "$(inspect '{{.State.Health.Status}}')" = unhealthy ]; }

# on_volume USER:GROUP VOLUME COMMAND…: runs a command in another container that mounts the volume read-only.
on_volume() {
  local user=$1 volume=$2
  shift 2
  docker run --rm --network none --user "$user" --entrypoint "" -v "$volume:/volume:ro" postgres:18 "$@"
}
# The RAG application reads the file as another user, with capture's group. Only capture's user may read the logs.
feedback() { on_volume 1234:65532 "$project-fallback" cat /volume/feedback.json; }
cannot_read() {
  if on_volume "$1" "$2" cat "/volume/$3" >/dev/null 2>&1; then fail "$1 can read $2/$3"; fi
  ok "$1 cannot read $2/$3"
}
# other SQL URL: runs SQL from another container in the network of the database, as every user of this machine can.
other() {
  docker run --rm --network "${project}_default" --entrypoint psql postgres:18 -X -q -At -c "$1" "$2"
}

# same: checks that feedback.json equals the table.
same() {
  local file
  file=$(feedback) && [ -n "$file" ] || return 1
  [ "$(compose exec -T postgres psql -X -q -v ON_ERROR_STOP=1 -U rag -d rag -At <<SQL
SELECT coalesce(json_agg(row_to_json(votes) ORDER BY vote_id), '[]')::jsonb = \$file\$$file\$file\$::jsonb FROM votes
SQL
  )" = t ]
}

# http METHOD PATH [HEADER]: prints the status code, a newline and the response. It needs no program but bash.
http() {
  local port answer
  port=$(compose port capture 8080)
  port=${port##*:}
  exec 3<>"/dev/tcp/127.0.0.1/$port"
  printf '%s %s HTTP/1.0\r\nHost: localhost:%s\r\n%sContent-Length: 0\r\n\r\n' "$1" "$2" "$port" "${3:+$3$'\r\n'}" >&3
  answer=$(cat <&3)
  exec 3>&-
  printf '%s\n%s' "${answer:9:3}" "$answer"
}
code() { http "$@" | head -n 1; }
code_is() { [ "$(code "$2" "$3")" = "$1" ]; }

echo "== configuration"
shipped=$(docker compose --env-file /dev/null -f docker-compose.yml config)
for name in azure-rag-usage-logs azure-rag-error-logs azure-rag-feedback-fallback; do
  has "volume $name" "$shipped" "name: $name"
done
for target in /app/logs/usage /app/logs/errors /app/data/fallback; do
  has "mounted on $target" "$shipped" "target: $target"
done
has "published on loopback only" "$shipped" "host_ip: 127.0.0.1"
case $shipped in
*GOMEMLIMIT* | *CAPTURE_KEEP:\ [!n]* | *CAPTURE_TABLE:\ [!n]* | *CAPTURE_ALERT_URL:\ [!n]* | *PASSWORD:\ [!n]*) fail "sets what is not set: $shipped" ;;
esac
ok "no value for unset settings, and no password"
for override in compose.token.yml compose.app.yml; do
  RAG_APP_IMAGE=example docker compose --env-file /dev/null -f docker-compose.yml -f "deploy/$override" config --quiet
  ok "deploy/$override is valid"
done
existing=$(POSTGRES_HOST=db.example POSTGRES_PORT=6432 POSTGRES_DB=app POSTGRES_USER=reader POSTGRES_PASSWORD=word \
  POSTGRES_SSL_MODE=verify-full docker compose --env-file /dev/null -f docker-compose.yml -f deploy/compose.existing.yml config)
for setting in 'PGHOST: db.example' 'PGPORT: "6432"' 'PGDATABASE: app' 'PGUSER: reader' 'PGPASSWORD: word' 'PGSSLMODE: verify-full'; do
  has "an existing database: $setting" "$existing" "$setting"
done
case $existing in *PGPASSFILE*) fail "compose.existing.yml has two passwords" ;; esac
case $existing in *postgres:18* | *depends_on*) fail "compose.existing.yml starts the bundled Postgres" ;; esac
ok "an existing database: the bundled Postgres is not started"

echo "== start"
compose up --build --detach --wait --wait-timeout 300
healthy || fail "not healthy after up --wait"
ok "healthy"
is "user" 65532:65532 "$(inspect '{{.Config.User}}')"
is "root file system read-only" true "$(inspect '{{.HostConfig.ReadonlyRootfs}}')"
is "capabilities dropped" '[ALL]' "$(inspect '{{.HostConfig.CapDrop}}')"
is "security" '[no-new-privileges:true]' "$(inspect '{{.HostConfig.SecurityOpt}}')"
[ "$(inspect '{{.HostConfig.Memory}}')" -gt 0 ] && [ "$(inspect '{{.HostConfig.PidsLimit}}')" -gt 0 ] || fail "no memory or pids limit"
ok "memory and pids limited"
has "version stamped in" "$(compose exec -T capture capture version)" "capture 0.0.0-check"
if out=$(compose exec -T capture capture snapshot --output /elsewhere.json 2>&1); then fail "capture can write outside of its volumes"; fi
has "no writes outside of the volumes" "$out" "read-only file system"

echo "== following"
eventually 10 "empty table, empty array" same
sql "INSERT INTO votes (user_query, bot_response, evaluation_json, feedback_tags, comment, citations)
     SELECT 'How many? ' || n, 'About ' || n || E' \"quoted\"\nlines, ü, 語', '{\"score\": 1.50}', '{good,\"not, bad\"}', NULL, '[1, {\"a\": null}]'
     FROM generate_series(1, 50) AS n"
eventually 10 "50 votes" same
sql "UPDATE votes SET comment = 'changed' WHERE vote_id % 3 = 0; DELETE FROM votes WHERE vote_id % 7 = 0"
eventually 10 "changed and deleted votes" same
status=$(compose exec -T capture capture status --json)
has "source is logical" "$status" '"source":"logical"'
for n in 1 2 3; do
  sql "INSERT INTO votes (user_query) VALUES ('barrier $n')"
  compose exec -T capture capture snapshot >/dev/null
  has "capture snapshot writes vote $n at once" "$(feedback)" "\"barrier $n\""
done
compose exec -T capture capture status >/dev/null
ok "capture status exits 0"
on_volume 65532 "$project-usage" grep -q '"@level":"info"' /volume/usage.log || fail "no usage log"
ok "usage log written"
on_volume 65532 "$project-errors" test -f /volume/error.log || fail "no error log"
ok "error log exists"

echo "== passwords and roles"
if docker build --quiet --force-rm --build-arg VERSION='1 -linkmode=external' . >/dev/null 2>&1; then fail "VERSION can hold flags of the linker"; fi
ok "VERSION cannot hold flags of the linker"
for known in rag:rag-only-for-trying postgres:rag-only-for-trying capture:capture-only-for-trying postgres: rag:rag; do
  out=$(other "SELECT 1" "postgres://$known@postgres/rag" 2>&1) && fail "a known password works: $known"
  has "not a password: $known" "$out" "password"
done
for service in postgres capture; do
  environment=$(docker inspect --format '{{.Config.Env}}' "$(compose ps --quiet "$service")")
  case $environment in *PASSWORD=*) fail "a password in the environment of $service: $environment" ;; esac
  ok "no password in the environment of $service"
done
cannot_read 1234 "${project}_passwords" capture
cannot_read 65532 "${project}_passwords" capture
cannot_read 1234:65532 "${project}_capture-password" pgpass
cannot_read 1234 "$project-fallback" feedback.json
cannot_read 1234:65532 "$project-usage" usage.log
is "role rag is no superuser" f "$(sql "SELECT rolsuper OR rolcreaterole OR rolcreatedb OR rolreplication FROM pg_roles WHERE rolname = 'rag'")"
is "owner of the publication" capture "$(sql "SELECT pg_get_userbyid(pubowner) FROM pg_publication")"
is "role capture owns the publication only" 1 "$(sql "SELECT count(*) FROM pg_shdepend WHERE deptype = 'o' AND refobjid = 'capture'::regrole")"
# The RAG application: any user, with the group that compose.app.yml adds.
app() {
  RAG_APP_IMAGE=postgres:18 compose -f deploy/compose.app.yml run --rm --no-deps -T --user 1234 --entrypoint sh rag-app -c "$1" 2>/dev/null
}
[ "$(app 'cat "$FEEDBACK_FALLBACK"')" = "$(feedback)" ] || fail "the application cannot read the file"
ok "the application reads the file"
is "the application connects" rag "$(app 'PGPASSWORD=$(cat "$POSTGRES_PASSWORD_FILE") exec psql -XAt -h "$POSTGRES_HOST" -U rag -d rag -c "SELECT current_user"')"
if app 'echo >"$FEEDBACK_FALLBACK"'; then fail "the application writes the file"; fi
ok "the application cannot write the file"

echo "== least privilege"
password=$(on_volume 65532 "${project}_capture-password" sed 's/.*://' /volume/pgpass)
denied() {
  local out
  if out=$(other "$1" "postgres://capture:$password@postgres/rag" 2>&1); then
    fail "role capture may: $1"
  fi
  has "role capture may not: $1" "$out" "$2"
}
denied "INSERT INTO votes (comment) VALUES ('x')" "permission denied"
denied "DELETE FROM votes" "permission denied"
denied "CREATE TABLE mine (n int)" "permission denied"
denied "CREATE ROLE other" "permission denied"
# The attribute REPLICATION would let the role copy the cluster, with all password hashes. The image's pg_hba.conf prevents
# this, because it has no entry for physical replication.
if out=$(other "IDENTIFY_SYSTEM" "postgres://capture:$password@postgres/rag?replication=true" 2>&1); then fail "role capture may copy the cluster"; fi
has "role capture may not copy the cluster" "$out" "no pg_hba.conf entry for replication"

echo "== HTTP from outside the container"
is "GET /healthz" 200 "$(code GET /healthz)"
is "GET /readyz" 200 "$(code GET /readyz)"
has "GET /metrics" "$(http GET /metrics)" "capture_rows "
is "GET /feedback.json without the token" 401 "$(code GET /feedback.json)"
is "POST /snapshot without the token" 401 "$(code POST /snapshot)"
is "GET /feedback.json with the generated token" 200 "$(code GET /feedback.json "Authorization: Bearer $(compose exec -T postgres cat /passwords/token)")"

echo "== restart, kill, unreachable database"
compose stop capture >/dev/null 2>&1
is "exit code of a clean stop" 0 "$(inspect '{{.State.ExitCode}}')"
sql "INSERT INTO votes (user_query) VALUES ('while it was stopped')"
is "replication slots left behind" 0 "$(sql 'SELECT count(*) FROM pg_replication_slots')"
compose start capture >/dev/null 2>&1
eventually 30 "votes from while it was stopped" same
eventually 60 "healthy after a restart" healthy

# Kill capture as the kernel's OOM killer does. After `docker kill`, Docker would not restart the container.
pid=$(inspect '{{.State.Pid}}')
sql "INSERT INTO votes (user_query) SELECT 'before the kill' FROM generate_series(1, 500)"
docker run --rm --pid host --user 0 --entrypoint bash postgres:18 -c "kill -KILL $pid"
feedback | tail -n 1 | grep -qx ']' || fail "feedback.json is incomplete after SIGKILL"
ok "feedback.json is complete after SIGKILL"
restarted() { [ "$(inspect '{{.RestartCount}}')" -ge 1 ] && [ "$(inspect '{{.State.Running}}')" = true ]; }
eventually 30 "restarted by itself" restarted
eventually 30 "all votes after the kill" same
eventually 60 "healthy after the kill" healthy

before=$(feedback)
compose stop postgres >/dev/null 2>&1
eventually 60 "503 while the database is unreachable" code_is 503 GET /readyz
is "healthz while the database is unreachable" 200 "$(code GET /healthz)"
if compose exec -T capture capture status >/dev/null 2>&1; then fail "capture status exits 0 without a database"; fi
ok "capture status exits 1"
eventually 90 "the container is unhealthy" unhealthy
[ "$(feedback)" = "$before" ] || fail "feedback.json changed while the database was unreachable"
ok "feedback.json is unchanged"
compose start postgres >/dev/null 2>&1
eventually 90 "200 after the database is back" code_is 200 GET /readyz
sql "INSERT INTO votes (user_query) VALUES ('after the outage')"
eventually 30 "votes after the outage" same

echo "== start again, with other passwords"
before=$(on_volume 65532 "${project}_capture-password" cat /volume/pgpass)
started=$(inspect '{{.State.StartedAt}}')
compose up --detach --wait --wait-timeout 120 >/dev/null 2>&1
[ "$(on_volume 65532 "${project}_capture-password" cat /volume/pgpass)" = "$before" ] || fail "a second start changed the password"
ok "the password stays"
is "capture was not restarted" "$started" "$(inspect '{{.State.StartedAt}}')"
compose run --rm passwords renew >/dev/null 2>&1
compose up --detach --wait --wait-timeout 120 >/dev/null 2>&1
renewed=$(on_volume 65532 "${project}_capture-password" cat /volume/pgpass)
[ "$renewed" != "$before" ] || fail "the password was not renewed"
if other "SELECT 1" "postgres://capture:$password@postgres/rag" >/dev/null 2>&1; then fail "the old password still works"; fi
ok "the password was renewed"
compose exec -T postgres psql -X -q -U postgres -Atc "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE usename = 'capture'" >/dev/null
sql "INSERT INTO votes (user_query) VALUES ('after the new password')"
eventually 30 "votes after the new password" same
compose down --timeout 10 >/dev/null 2>&1
docker volume rm "${project}_passwords" "${project}_capture-password" "${project}_rag-password" >/dev/null
CAPTURE_DB_PASSWORD='a:b\c '"'"'"$d' compose up --detach --wait --wait-timeout 120 >/dev/null 2>&1
sql "INSERT INTO votes (user_query) VALUES ('lost volumes, and a password from .env')"
eventually 30 "votes after the passwords' volumes were lost, with a password from .env" same

echo "== volumes without containers; a token"
token=check-$RANDOM$RANDOM
printf '%s\n' "$token" >"$token_path"
chmod 755 "$work" && chmod 400 "$token_path"
chown 65532 "$token_path" 2>/dev/null || sudo chown 65532 "$token_path"
compose down --timeout 10 >/dev/null 2>&1
same_file=$(feedback)
[ -n "$same_file" ] || fail "feedback.json disappeared with the containers"
ok "feedback.json exists without containers"
CAPTURE_TOKEN_PATH=$token_path compose -f deploy/compose.token.yml up --detach --wait --wait-timeout 120 >/dev/null 2>&1
eventually 30 "the same votes after a new start" same
is "GET /feedback.json with the token" 200 "$(code GET /feedback.json "Authorization: Bearer $token")"
is "GET /feedback.json with a wrong token" 401 "$(code GET /feedback.json "Authorization: Bearer wrong")"
compose exec -T capture capture snapshot >/dev/null
ok "capture snapshot finds the token"

echo "all checks passed"
