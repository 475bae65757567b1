"""What etcd is asked, and waited for; and the figures of the snapshot, with which its answers are compared."""

from __future__ import annotations

STATUS = r"""
set -eu
"$1" snapshot status "$2" -w json > "$3.part"
sync -- "$3.part"
mv -T -- "$3.part" "$3"
sync -- "${3%/*}"
"""
"""etcdutl, snapshot, where its figures are kept. They are needed in the outage, so their name is made durable too."""

ETCD_ANSWERED = r"""
set -eu
mark=$1
shift
if "$@"; then
  touch -- "$mark"
fi
"""
"""mark, then the etcdctl words that ask this host's own member."""

KEEP_DISCARDED = r"""
set -u
mark=$1
to=$2
shift 2
[ -e "$mark" ] || exit 0
[ ! -e "$to" ] || exit 0
"$@" "$to" || { rm -f -- "$to.part"; exit 1; }
chmod 600 -- "$to"
sync -- "$to" "${to%/*}"
"""
"""mark, file, then the etcdctl words that save a snapshot. etcdctl writes FILE.part and renames it once it is whole."""

LEADER_LAST = r"""
set -u
end=$(( $(date +%s) + $1 ))
shift
status=$("$@" 2>/dev/null | tr ',{}' '\n\n\n') || exit 0
leader=$(echo "$status" | sed -n 's/^ *"leader": *\([0-9][0-9]*\) *$/\1/p')
member=$(echo "$status" | sed -n 's/^ *"member_id": *\([0-9][0-9]*\) *$/\1/p')
[ -n "$leader" ] && [ "$leader" = "$member" ] || exit 0
while [ -n "$(ss -Htn state established '( sport = :2380 )')" ]; do
  if [ "$(date +%s)" -ge "$end" ]; then exit 0; fi
  sleep 0.1
done
"""
"""seconds, etcdctl words. A leader that stops with its followers waits seven seconds for one of them to take over."""

AWAIT_ETCD = r"""
set -u
mark=$1
end=$(( $(date +%s) + $2 ))
shift 2
[ -e "$mark" ] || exit 0
while ! "$@"; do
  if [ "$(date +%s)" -ge "$end" ]; then exit 1; fi
  sleep 0.5
done
"""
"""mark, seconds, etcdctl words. Waits only where this member answered before it was stopped."""

SNAPSHOT_REVISION = r"""
set -u
rev=$(tr ',{}' '\n\n\n' < "$1" | sed -n 's/^ *"revision": *\([0-9][0-9]*\) *$/\1/p')
[ -n "$rev" ] || { echo "no revision in $1" >&2; exit 3; }
at=$(( rev + $2 ))
shift 2
echo "$at"
"$@" --rev "$at"
"""
"""snapshot figures, bump, etcdctl words. Prints the revision that the restored data has, then asks etcdctl about it."""

REVISION_NOW = r"""
set -u
rev=$(tr ',{}' '\n\n\n' < "$1" | sed -n 's/^ *"revision": *\([0-9][0-9]*\) *$/\1/p')
[ -n "$rev" ] || { echo "no revision in $1" >&2; exit 3; }
echo "$(( rev + $2 ))"
shift 2
status=$("$@" endpoint status -w json | tr ',{}' '\n\n\n')
now=$(echo "$status" | sed -n 's/^ *"revision": *\([0-9][0-9]*\) *$/\1/p' | sort -n | head -n 1)
[ -n "$now" ] || { echo "no member tells its revision" >&2; exit 3; }
"$@" endpoint hashkv --rev "$now" -w json
"""
"""snapshot figures, bump, etcdctl words without a command. Prints the revision that the restored data had, and the
hashes at the lowest revision that any member has now: those that serve have compacted the restored one away."""

COMPACTED = SNAPSHOT_REVISION.replace('"$@" --rev "$at"', '"$@" --rev "$(( at - 1 ))"')
"""The same, one revision before: it must be refused as compacted."""

FIGURES_AND = r"""
cat -- "$1"
echo
shift
"$@" || exit 4
"""
"""snapshot figures, etcdctl words; read-only. Exit 4: the figures are there, etcd did not answer."""
