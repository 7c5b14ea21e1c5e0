#!/bin/sh
# Installs PostgreSQL's server programs (initdb and postgres, 13 or later) with the system's package manager, if the machine
# has none. The tests and the demo use these programs to start servers of their own. This script creates no cluster and
# starts no server.
set -eu

# internal/pgserver/bin.go looks in the same folders.
installed() {
	command -v initdb >/dev/null 2>&1 && return
	if dir=$(pg_config --bindir 2>/dev/null) && [ -x "$dir/initdb" ]; then
		return
	fi
	for initdb in /usr/lib/postgresql/*/bin/initdb /usr/pgsql-*/bin/initdb /usr/libexec/postgresql*/initdb \
		/opt/homebrew/opt/postgresql*/bin/initdb /usr/local/opt/postgresql*/bin/initdb \
		/home/linuxbrew/.linuxbrew/opt/postgresql*/bin/initdb \
		/Applications/Postgres.app/Contents/Versions/*/bin/initdb /usr/local/pgsql/bin/initdb; do
		[ -x "$initdb" ] && return
	done
	return 1
}

fail() {
	echo "install-postgres: $*" >&2
	exit 1
}

as_root() {
	if [ "$(id -u)" -eq 0 ]; then
		"$@"
	elif command -v sudo >/dev/null 2>&1; then
		sudo "$@"
	else
		fail "installing PostgreSQL needs root: run \`make postgres\` as root, or install sudo"
	fi
}

debian() {
	# By default, Debian's package creates a cluster and starts it now and at every boot. This setting prevents that.
	conf=/etc/postgresql-common/createcluster.conf
	if ! grep -qs '^ *create_main_cluster' "$conf"; then
		as_root mkdir -p "${conf%/*}"
		echo 'create_main_cluster = false' | as_root tee -a "$conf" >/dev/null
		echo "install-postgres: set create_main_cluster = false in $conf, so the package starts no server" >&2
	fi
	as_root apt-get -qq update
	as_root env DEBIAN_FRONTEND=noninteractive apt-get -qq -y --no-install-recommends \
		-o Dpkg::Options::=--force-confold -o Dpkg::Use-Pty=0 install postgresql >/dev/null
}

installed && exit 0
echo "install-postgres: installing PostgreSQL's server programs" >&2
if command -v apt-get >/dev/null 2>&1; then
	debian
elif command -v apk >/dev/null 2>&1; then
	as_root apk add --quiet postgresql
elif command -v dnf >/dev/null 2>&1; then
	as_root dnf install -y -q postgresql-server
elif command -v brew >/dev/null 2>&1; then
	brew install --quiet postgresql@17
else
	fail "no apt-get, apk, dnf or brew on this machine: install PostgreSQL's server (13 or later) by hand, and put initdb in PATH"
fi </dev/null
installed || fail "the package manager succeeded, but there is no initdb in PATH or in the usual folders"
