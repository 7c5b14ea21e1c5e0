#!/bin/sh
# Installs the object stores for the tests of copies if they are missing. Azurite, a server for Azure's protocol, is
# installed with npm. versitygw, a server for S3, is built with Go. Both are installed in a folder of the user's cache,
# where the tests look for them.
set -eu

azurite=3.35.0
versitygw=1.8.0
limit=900 # longest time for the installation of each server, in seconds

case $(uname) in
Darwin) cache=$HOME/Library/Caches ;; # the same folders as those of Go's os.UserCacheDir
*) cache=${XDG_CACHE_HOME:-$HOME/.cache} ;;
esac
tools=$cache/capture-test

say() {
	echo "install-stores: $*" >&2
}

as_root() {
	if [ "$(id -u)" -eq 0 ]; then
		"$@"
	elif command -v sudo >/dev/null 2>&1; then
		sudo "$@"
	else
		say "installing npm needs root: run \`make stores\` as root, or install npm"
		return 1
	fi
}

# Runs a command with a time limit, if the system has the program timeout.
bounded() {
	if command -v timeout >/dev/null 2>&1; then
		timeout "$limit" "$@"
	else
		"$@"
	fi
}

install_npm() {
	command -v npm >/dev/null 2>&1 && return
	say "installing npm"
	if command -v apt-get >/dev/null 2>&1; then
		as_root apt-get -qq update
		as_root env DEBIAN_FRONTEND=noninteractive apt-get -qq -y --no-install-recommends -o Dpkg::Use-Pty=0 \
			install nodejs npm >/dev/null
	elif command -v apk >/dev/null 2>&1; then
		as_root apk add --quiet nodejs npm
	elif command -v dnf >/dev/null 2>&1; then
		as_root dnf install -y -q nodejs npm
	elif command -v brew >/dev/null 2>&1; then
		brew install --quiet node
	else
		say "no npm, apt-get, apk, dnf or brew on this machine: install Node.js and npm by hand"
		return 1
	fi
}

# Each server is built under a temporary name and then renamed, so an interrupted run leaves nothing that looks complete.
mkdir -p "$tools"
tmp=$tools/tmp.$$
trap 'rm -rf "$tmp"' EXIT
mkdir "$tmp"

if [ ! -d "$tools/azurite-$azurite" ]; then
	install_npm
	say "installing Azurite $azurite"
	bounded npm install --prefix "$tmp/azurite" --no-audit --no-fund --no-progress --omit=optional --loglevel=error "azurite@$azurite" >&2
	mv "$tmp/azurite" "$tools/azurite-$azurite" 2>/dev/null || [ -d "$tools/azurite-$azurite" ] # another run may have been faster
fi

if [ ! -x "$tools/versitygw-$versitygw" ]; then
	say "building versitygw $versitygw"
	GOBIN=$tmp GOFLAGS= bounded go install "github.com/versity/versitygw/cmd/versitygw@v$versitygw"
	mv "$tmp/versitygw" "$tools/versitygw-$versitygw"
fi
