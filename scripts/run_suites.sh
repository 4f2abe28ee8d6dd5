#!/bin/sh
# run_suites.sh SUITE...: make each suite, one after the other; stop at the first that fails; print the seconds of each.
set -u
table=
failed=
began=$(date +%s)
for suite; do
  started=$(date +%s)
  if ! make --no-print-directory "$suite"; then failed=$suite; fi
  table="$table$(printf '  %-16s %5d s%s' "$suite" $(($(date +%s) - started)) "${failed:+   FAILED}")
"
  [ -z "$failed" ] || break
done
printf '\nSuites:\n%s  %-16s %5d s\n' "$table" total $(($(date +%s) - began))
[ -z "$failed" ]
