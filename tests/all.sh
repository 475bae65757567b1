#!/bin/sh
# All tests, in two halves side by side: those on the lab mostly wait, and the others take what they leave of the machine;
# when these are done, the rows of the faults that CI runs follow, on labs of their own.
# Each has a directory of its own: pytest tidies up the usual one, and trips over another session that does so too.
# sh tests/all.sh BIN; the exit code is not 0 where any part failed.
set -u
bin=$1
dir=$(mktemp -d)
rest=$dir/rest
trap 'rm -rf "$dir"' EXIT
others() {
  trap 'kill "$child" 2> /dev/null; wait "$child"; exit 130' TERM
  nice -n 15 "$bin/pytest" -q -m "not sweep and not lab" --basetemp "$dir/tmp-others" --junitxml "$dir/others.xml" &
  child=$!
  wait "$child"
  unit=$?
  "$bin/python" -m tests.faults.table --third --results "$dir" &
  child=$!
  wait "$child"
  rows=$?
  echo "off the lab: pytest ended with $unit; the rows of the faults: $rows"
  [ "$unit" -eq 0 ] && [ "$rows" -eq 0 ]
}
others > "$rest" 2>&1 &
others=$!
trap 'kill "$others" 2> /dev/null; wait; exit 130' INT TERM
"$bin/pytest" -q -m "lab and not sweep" --basetemp "$dir/tmp-lab" --junitxml "$dir/lab.xml" tests/lab
lab=$?
wait "$others"
code=$?
cat "$rest"
echo "on the lab: pytest ended with $lab; all others: $code"
"$bin/python" -m tests.total "$dir" && [ "$lab" -eq 0 ] && [ "$code" -eq 0 ]
