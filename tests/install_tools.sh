#!/bin/sh
# Makes prometheus, promtool and redis-server available for the tests: does nothing where they are, installs Debian's
# packages as root, and otherwise says in one line what to install. No service is started, now or at the next boot.
set -eu

missing=""
command -v prometheus >/dev/null && command -v promtool >/dev/null || missing="prometheus"
command -v redis-server >/dev/null || missing="${missing:+$missing }redis-server"
[ -n "$missing" ] || exit 0

if [ "$(id -u)" -ne 0 ] || ! command -v apt-get >/dev/null; then
  echo "install_tools.sh: the tests need these packages (names as in Debian and Ubuntu): $missing" >&2
  exit 1
fi

log=$(mktemp)
# A package's scripts ask policy-rc.d before they start a service: 101 is "no". The file is ours only while we run.
policy=/usr/sbin/policy-rc.d
ours=$policy
[ -e "$policy" ] && ours=""
trap 'rm -f "$log" $ours' EXIT
trap 'exit 1' HUP INT TERM
if [ -n "$ours" ]; then
  printf '#!/bin/sh\nexit 101\n' >"$policy"
  chmod 755 "$policy"
fi

export DEBIAN_FRONTEND=noninteractive
# shellcheck disable=SC2086 # $missing is a list of words
if ! { apt-get update && apt-get install -y --no-install-recommends $missing; } </dev/null >"$log" 2>&1; then
  cat "$log" >&2
  echo "install_tools.sh: apt-get could not install: $missing" >&2
  exit 1
fi
for service in $missing; do
  # Covers systemd's units too. A machine without an init system may lack it, and starts nothing at boot anyway.
  if command -v update-rc.d >/dev/null; then
    update-rc.d "$service" disable >/dev/null 2>&1 || true
  fi
done
