#!/bin/sh
# Installs Chromium with the system's package manager if the machine has none. The tests of the feedback page need it.
set -eu

for browser in chromium chromium-browser google-chrome google-chrome-stable chrome; do
	command -v "$browser" >/dev/null 2>&1 && exit 0
done
[ -x '/Applications/Chromium.app/Contents/MacOS/Chromium' ] && exit 0
[ -x '/Applications/Google Chrome.app/Contents/MacOS/Google Chrome' ] && exit 0

fail() {
	echo "install-chromium: $*" >&2
	exit 1
}

as_root() {
	if [ "$(id -u)" -eq 0 ]; then
		"$@"
	elif command -v sudo >/dev/null 2>&1; then
		sudo "$@"
	else
		fail "installing Chromium needs root: run \`make chromium\` as root, or install sudo"
	fi
}

echo "install-chromium: installing Chromium" >&2
if command -v apt-get >/dev/null 2>&1; then
	as_root apt-get -qq update
	as_root env DEBIAN_FRONTEND=noninteractive apt-get -qq -y --no-install-recommends -o Dpkg::Use-Pty=0 \
		install chromium >/dev/null
elif command -v apk >/dev/null 2>&1; then
	as_root apk add --quiet chromium
elif command -v dnf >/dev/null 2>&1; then
	as_root dnf install -y -q chromium
elif command -v brew >/dev/null 2>&1; then
	brew install --quiet --cask chromium
else
	fail "no apt-get, apk, dnf or brew on this machine: install Chromium by hand, and put it in PATH"
fi
