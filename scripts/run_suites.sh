#!/bin/sh
# run_suites.sh BESIDE SUITES: make each suite of the two lists, the lists side by side; print the seconds of each.
# BESIDE are suites that need no lab and no time of their own: they get one processor and what the others leave of it, and
# what such a suite prints is shown when it has ended. After the first suite that fails no other one begins, unless make was
# told to keep going (make -k test-all): then the table says of each whether it failed.
set -u
: "${MAKEFLAGS:=}"
beside=$1
suites=$2
notes=$(mktemp -d)
trap 'rm -rf "$notes"' EXIT
began=$(date +%s)
modest="nice -n 19"
last=$(taskset -cp $$ 2> /dev/null | sed 's/.*[-, ]//')
[ -z "$last" ] || modest="taskset -c $last $modest"

# make gives its flags without a value first and without a dash.
case "${MAKEFLAGS%% *}" in -* | *=*) keep_going= ;; *k*) keep_going=yes ;; *) keep_going= ;; esac

over() { # whether no other suite is to begin
  [ -e "$notes/failed" ] && [ -z "$keep_going" ]
}

run() { # run SUITE PREFIX...: make it behind that prefix
  suite=$1
  shift
  started=$(date +%s)
  if "$@" make --no-print-directory "$suite"; then outcome=; else outcome='   FAILED'; : > "$notes/failed"; fi
  printf '  %-16s %5d s%s\n' "$suite" $(($(date +%s) - started)) "$outcome" >> "$notes/table"
}

for suite in $beside; do
  over && break
  run "$suite" $modest > "$notes/$suite.log" 2>&1
  cat "$notes/$suite.log"
done &
for suite in $suites; do
  over || run "$suite" env
done
wait
printf '\nSuites:\n%s\n  %-16s %5d s\n' "$(cat "$notes/table")" total $(($(date +%s) - began))
[ ! -e "$notes/failed" ]
