#!/bin/sh
# The system packages that only tests need: there already, or installed by root on Debian and Ubuntu, or named.
#   scripts/test_packages.sh sshd:openssh-server nginx:nginx-light chromium:chromium      program:package, any of them
#   scripts/test_packages.sh /lib/systemd/systemd:systemd                a program that is not in PATH, by its place
#   scripts/test_packages.sh fc-list:fontconfig lang=ko:fonts-nanum      a font with a language's letters, as fc-list knows it
set -eu
PATH="$PATH:/usr/sbin:/usr/local/sbin"
has() {
  case $1 in
    lang=*) [ -n "$(fc-list ":$1" 2> /dev/null)" ] ;; # without fc-list the font counts as missing
    *) command -v "$1" > /dev/null ;;
  esac
}
missing=
for pair in "$@"; do
  has "${pair%%:*}" || missing="$missing ${pair#*:}"
done
[ -n "$missing" ] || exit 0
if [ "$(id -u)" != 0 ] || ! command -v apt-get > /dev/null; then
  echo "The tests need the system packages$missing, which are not there, and only root on Debian or Ubuntu installs them" \
       "by itself. Expected: these programs in PATH or /usr/sbin, and these fonts. Next: install them (apt-get install$missing)." >&2
  exit 1
fi
# The packages start services when they are installed. The tests start their own, and nothing else shall listen here.
policy=/usr/sbin/policy-rc.d
if [ ! -e "$policy" ]; then
  printf '#!/bin/sh\nexit 101\n' > "$policy"
  chmod +x "$policy"
  trap 'rm -f "$policy"' EXIT
fi
log=$(mktemp)
export DEBIAN_FRONTEND=noninteractive
# shellcheck disable=SC2086  # a list of names
if ! { apt-get update && apt-get install --yes --no-install-recommends $missing; } > "$log" 2>&1; then
  tail -n 20 "$log" >&2
  echo "The tests need the system packages$missing, and apt-get could not install them. Next: see above." >&2
  rm -f "$log"
  exit 1
fi
rm -f "$log"
