#!/bin/sh
# Installs the named Debian packages that are missing, or says what to install.
set -eu
missing=
for p in "$@"; do
	dpkg-query -W -f '${Status}' "$p" 2>/dev/null | grep -q 'ok installed' || missing="$missing $p"
done
[ -n "$missing" ] || exit 0
if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then
	echo "please install these packages (Debian's names), then run this again:$missing" >&2
	exit 1
fi

# A machine that has just been started often updates itself: apt's lock is waited for.
patience=${SETUP_PATIENCE:-300} # seconds
said=$(mktemp)
trap 'rm -f "$said"' EXIT
apt() {
	waited=0
	until apt-get -qq "$@" >/dev/null 2>"$said"; do
		if ! grep -q 'Could not get lock\|Unable to lock' "$said" || [ "$waited" -ge "$patience" ]; then
			cat "$said" >&2
			exit 1
		fi
		[ "$waited" -gt 0 ] || echo "waiting for another program that uses apt: $(grep -m 1 lock "$said")" >&2
		waited=$((waited + 1))
		sleep 1
	done
}

echo "installing:$missing"
export DEBIAN_FRONTEND=noninteractive
apt update
# shellcheck disable=SC2086 # a list of names
apt install -y --no-install-recommends $missing
