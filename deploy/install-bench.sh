#!/bin/sh
# Installs what `make bench` compares capture with, if it is missing. From Debian's packages come the output plugins
# wal2json and decoderbufs and Python's driver for Postgres. The script also downloads the Go modules of the followers in
# internal/bench/testdata. If a package cannot be installed, the script reports this but does not fail, because the
# benchmarks skip programs that are missing.
set -eu

say() {
	echo "install-bench: $*" >&2
}

# Prints the folder of the server programs. internal/pgserver/bin.go looks in the same folders, and in more.
server_bin() {
	if initdb=$(command -v initdb); then
		dirname "$(readlink -f "$initdb")"
	elif dir=$(pg_config --bindir 2>/dev/null) && [ -x "$dir/initdb" ]; then
		echo "$dir"
	else
		dirname "$(printf '%s\n' /usr/lib/postgresql/*/bin/initdb | sort -V | tail -n 1)"
	fi
}

# Prints the packages of the output plugins that are missing.
missing_plugins() {
	major=$("$1/postgres" --version 2>/dev/null | sed 's/^[^0-9]*\([0-9]*\).*/\1/')
	if [ "$1" != "/usr/lib/postgresql/$major/bin" ]; then
		say "the server in $1 is not Debian's, so Debian's wal2json and decoderbufs do not fit: skipping them"
		return
	fi
	for plugin in wal2json decoderbufs; do
		[ -e "/usr/lib/postgresql/$major/lib/$plugin.so" ] || echo "postgresql-$major-$plugin"
	done
}

# Prints the package of Python's driver if it is missing.
missing_driver() {
	for python in python3 /usr/bin/python3; do # the benchmark tries the same names
		"$python" -c 'import psycopg2' 2>/dev/null && return
	done
	echo python3-psycopg2
}

# Takes go.mod from a module's archive, and puts it into Go's module cache. Some module proxies serve the archive of
# go-pq-cdc but not its go.mod, and `go mod download` fails. Go compares the archive and go.mod with go.sum.
cache_go_mod() {
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

install_modules() {
	for follower in "$(dirname "$0")"/../internal/bench/testdata/*/go.mod; do
		cd "$(dirname "$follower")"
		go mod download 2>/dev/null ||
			{ cache_go_mod $(grep -om1 'github.com/[^ ]* v[^ ]*' go.mod) 2>/dev/null && go mod download 2>/dev/null; } ||
			say "the modules of $(basename "$PWD") cannot be downloaded: skipping it"
		cd - >/dev/null
	done
}

as_root() {
	if [ "$(id -u)" -eq 0 ]; then
		"$@"
	elif command -v sudo >/dev/null 2>&1; then
		sudo "$@"
	else
		say "installing packages needs root: run \`make peers\` as root, or install sudo"
		return 1
	fi
}

install_packages() {
	if ! command -v apt-get >/dev/null 2>&1; then
		say 'there is no apt-get: skipping packages'
		return
	fi
	packages=$(missing_plugins "$(server_bin)"; missing_driver)
	[ -n "$packages" ] || return 0
	say "installing" $packages
	as_root apt-get -qq update || say "apt-get update failed: using the old package lists"
	for package in $packages; do # one package at a time, because a package that fails must not prevent the others
		as_root env DEBIAN_FRONTEND=noninteractive apt-get -qq -y --no-install-recommends -o Dpkg::Use-Pty=0 \
			install "$package" >/dev/null || say "$package cannot be installed: skipping it"
	done </dev/null
}

install_packages
install_modules # may need Python
