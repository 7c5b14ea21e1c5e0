#!/bin/sh
# Installs strace by the system's package manager, for the tests that refuse a writer's system calls and cut its power. It
# does nothing where it is there already, nor on other systems than Linux, where those tests are not.
set -eu

[ "$(uname -s)" = Linux ] || exit 0
command -v strace >/dev/null 2>&1 && exit 0

fail() {
	echo "install-strace: $*" >&2
	exit 1
}

as_root() {
	if [ "$(id -u)" -eq 0 ]; then
		"$@"
	elif command -v sudo >/dev/null 2>&1; then
		sudo "$@"
	else
		fail "installing strace needs root: run \`make strace\` as root, or install sudo"
	fi
}

echo "install-strace: no strace on this machine; installing it" >&2
if command -v apt-get >/dev/null 2>&1; then
	as_root apt-get -qq update
	as_root env DEBIAN_FRONTEND=noninteractive apt-get -qq -y --no-install-recommends -o Dpkg::Use-Pty=0 \
		install strace >/dev/null
elif command -v apk >/dev/null 2>&1; then
	as_root apk add --quiet strace
elif command -v dnf >/dev/null 2>&1; then
	as_root dnf install -y -q strace
else
	fail "this system's package manager is not known here: install strace, and put it on PATH"
fi
