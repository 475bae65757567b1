#!/bin/sh
# All tests, in two halves side by side: those on the lab mostly wait, and the others take what they leave of the machine.
# sh tests/all.sh BIN; the exit code is not 0 where either half failed.
set -u
bin=$1
rest=$(mktemp)
trap 'rm -f "$rest"' EXIT
nice -n 15 "$bin/pytest" -q -m "not sweep and not lab" > "$rest" 2>&1 &
others=$!
trap 'kill "$others" 2> /dev/null; wait; exit 130' INT TERM
"$bin/pytest" -q -m "lab and not fault and not sweep"
lab=$?
wait "$others"
code=$?
cat "$rest"
echo "on the lab: pytest ended with $lab; all others: $code"
[ "$lab" -eq 0 ] && [ "$code" -eq 0 ]
