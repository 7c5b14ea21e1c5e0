#!/bin/sh
# Installs strace with the system's package manager if the machine has none. Tests on Linux use strace to record system
# calls, and to make system calls fail. On other systems, this script does nothing.
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

echo "install-strace: installing strace" >&2
if command -v apt-get >/dev/null 2>&1; then
	as_root apt-get -qq update
	as_root env DEBIAN_FRONTEND=noninteractive apt-get -qq -y --no-install-recommends -o Dpkg::Use-Pty=0 \
		install strace >/dev/null
elif command -v apk >/dev/null 2>&1; then
	as_root apk add --quiet strace
elif command -v dnf >/dev/null 2>&1; then
	as_root dnf install -y -q strace
else
	fail "no apt-get, apk or dnf on this machine: install strace by hand, and put it in PATH"
fi
