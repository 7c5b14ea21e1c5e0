#!/bin/sh
# Installs what `make bench` compares capture with: by Debian's package manager the server's output plugins wal2json and
# decoderbufs, and Python's driver for Postgres; by Go the modules of the followers in internal/bench/testdata. It does
# nothing where they are there already. The benchmarks leave out what is missing, so that what can't be had is said here and
# is no failure.
set -eu

say() {
	echo "install-bench: $*" >&2
}

# The places are those of internal/pgserver/bin.go, as far as Debian has them.
server() {
	if initdb=$(command -v initdb); then
		dirname "$(readlink -f "$initdb")"
	elif dir=$(pg_config --bindir 2>/dev/null) && [ -x "$dir/initdb" ]; then
		echo "$dir"
	else
		dirname "$(printf '%s\n' /usr/lib/postgresql/*/bin/initdb | sort -V | tail -n 1)"
	fi
}

plugins() {
	major=$("$1/postgres" --version 2>/dev/null | sed 's/^[^0-9]*\([0-9]*\).*/\1/')
	if [ "$1" != "/usr/lib/postgresql/$major/bin" ]; then
		say "the server in $1 is none of Debian's, whose wal2json and decoderbufs would not be for it: going on without"
		return
	fi
	for plugin in wal2json decoderbufs; do
		[ -e "/usr/lib/postgresql/$major/lib/$plugin.so" ] || echo "postgresql-$major-$plugin"
	done
}

driver() {
	for python in python3 /usr/bin/python3; do # as the benchmark looks for it
		"$python" -c 'import psycopg2' 2>/dev/null && return
	done
	echo python3-psycopg2
}

# A module proxy may have the archive of a module (here a follower's first one) and refuse the go.mod beside it, which is in
# the archive, too. Go compares both with go.sum.
complete() {
	python3 - "$(go env GOPROXY | sed 's/[,|].*//')" "$(go env GOMODCACHE)/cache/download" "$1" "$2" <<'EOF'
import io, json, os, sys, urllib.request, zipfile
proxy, cache, module, version = sys.argv[1:]
escaped = "".join("!" + c.lower() if c.isupper() else c for c in module)
archive = urllib.request.urlopen(f"{proxy}/{escaped}/@v/{version}.zip", timeout=60).read()
gomod = zipfile.ZipFile(io.BytesIO(archive)).read(f"{module}@{version}/go.mod")
folder = f"{cache}/{escaped}/@v"
os.makedirs(folder, exist_ok=True)
for end, data in ("info", json.dumps({"Version": version}).encode()), ("mod", gomod):
    with open(f"{folder}/{version}.{end}", "wb") as f:
        f.write(data)
EOF
}

modules() {
	for follower in "$(dirname "$0")"/../internal/bench/testdata/*/go.mod; do
		cd "$(dirname "$follower")"
		go mod download 2>/dev/null ||
			{ complete $(grep -om1 'github.com/[^ ]* v[^ ]*' go.mod) 2>/dev/null && go mod download 2>/dev/null; } ||
			say "no modules for $(basename "$PWD"): going on without it"
		cd - >/dev/null
	done
}

as_root() {
	if [ "$(id -u)" -eq 0 ]; then
		"$@"
	elif command -v sudo >/dev/null 2>&1; then
		sudo "$@"
	else
		say "this needs root: run \`make peers\` as root, or install sudo"
		return 1
	fi
}

packages() {
	if ! command -v apt-get >/dev/null 2>&1; then
		say 'no apt-get here: going on with what is there'
		return
	fi
	packages=$(plugins "$(server)"; driver)
	[ -n "$packages" ] || return 0
	say "installing" $packages
	as_root apt-get -qq update || say "there are no new lists of packages: going on with those that are there"
	for package in $packages; do # one at a time, so that one that can't be had keeps no other away
		as_root env DEBIAN_FRONTEND=noninteractive apt-get -qq -y --no-install-recommends -o Dpkg::Use-Pty=0 \
			install "$package" >/dev/null || say "no $package: going on without it"
	done </dev/null
}

packages
modules # for which Python may be needed
