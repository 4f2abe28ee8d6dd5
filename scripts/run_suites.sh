#!/bin/sh
# run_suites.sh BESIDE SUITES: make each suite of the two lists, the lists side by side; print the seconds of each.
# BESIDE are suites that need no lab and no quiet processor: they run at a lower priority, and what one of them prints is
# shown when it has ended. After the first suite that fails no other one begins.
set -u
beside=$1
suites=$2
notes=$(mktemp -d)
trap 'rm -rf "$notes"' EXIT
began=$(date +%s)

run() { # run PRIORITY SUITE
  started=$(date +%s)
  if nice -n "$1" make --no-print-directory "$2"; then outcome=; else outcome='   FAILED'; : > "$notes/failed"; fi
  printf '  %-16s %5d s%s\n' "$2" $(($(date +%s) - started)) "$outcome" >> "$notes/table"
}

for suite in $beside; do
  [ -e "$notes/failed" ] || { run 10 "$suite" > "$notes/$suite.log" 2>&1; cat "$notes/$suite.log"; }
done &
for suite in $suites; do
  [ -e "$notes/failed" ] || run 0 "$suite"
done
wait
printf '\nSuites:\n%s\n  %-16s %5d s\n' "$(cat "$notes/table")" total $(($(date +%s) - began))
[ ! -e "$notes/failed" ]
