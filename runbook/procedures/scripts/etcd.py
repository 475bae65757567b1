"""What etcd is asked, and waited for; and the figures of the snapshot, with which its answers are compared.

Where nothing listens on etcd's port it is not asked at all: etcdctl would try for seconds, and a dead cluster is what
this is for.
"""

from __future__ import annotations

FIGURES = r"""
set -eu
etcdutl=$1
dir=$2
shift 2
if "$@" > "$dir/living.json.part"; then
  sync -- "$dir/living.json.part"
  mv -T -- "$dir/living.json.part" "$dir/living.json"
fi
rm -f -- "$dir/living.json.part"
"$etcdutl" snapshot status "$dir/snapshot.db" -w json > "$dir/snapshot.json.part"
sync -- "$dir/snapshot.json.part" "$dir"
mv -T -- "$dir/snapshot.json.part" "$dir/snapshot.json"
sync -- "$dir"
"""
"""etcdutl, run dir, etcdctl words. Both are needed in the outage, so their names are made durable too: the snapshot's
figures, and where etcd lives its status, which is a lower bound of its last revision. The figures come last: where
they are, the step is done, and nothing would ask for the status again."""

LAST_REVISION = r"""
set -u
dir=$1
port=$2
shift 2
cat -- "$dir/snapshot.json" || exit 1
echo
open=$(ss -Hltn sport = ":$port")
if [ -n "$open" ]; then
  if now=$("$@"); then
    echo "$now"
    exit 0
  fi
fi
if [ -e "$dir/living.json" ]; then cat -- "$dir/living.json"; fi
exit 4
"""
"""run dir, port, etcdctl words; read-only. The snapshot's figures, then etcd's status. Exit 4: etcd gives no answer,
and the status, if any, is that of the time of the preparation."""

ANSWERED = r"""
set -eu
mark=$1
port=$2
shift 2
open=$(ss -Hltn sport = ":$port")
if [ -n "$open" ]; then
  if "$@"; then
    touch -- "$mark"
  fi
fi
"""
"""mark, port, then the words that ask this host's own member or API server. Who has no open port is not asked."""

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
dir=$1
port=$2
peers=$3
end=$(( $(date +%s) + $4 ))
shift 4
status=
[ -z "$(ss -Hltn sport = ":$port")" ] || status=$("$@" 2>/dev/null | tr ',{}' '\n\n\n')
leader=$(echo "$status" | sed -n 's/^ *"leader": *\([0-9][0-9]*\) *$/\1/p')
member=$(echo "$status" | sed -n 's/^ *"member_id": *\([0-9][0-9]*\) *$/\1/p')
if [ -n "$dir" ] && [ -z "$member" ] && [ -e "$dir/living.json" ]; then
  echo "etcd answered while this was prepared, and does not now: how far it has come since is not known, so the" \
    "restored revision was compared with that of then" >&2
  exit 4
fi
case $leader in '' | 0) exit 0 ;; esac
[ -z "$dir" ] || touch -- "$dir/etcd-answered"
[ "$leader" = "$member" ] || exit 0
while [ -n "$(ss -Htn state established "( sport = :$peers )")" ]; do
  if [ "$(date +%s)" -ge "$end" ]; then exit 0; fi
  sleep 0.1
done
"""
"""run dir or "", client port, peer port, seconds, etcdctl words. A leader that stops with its followers waits seven
seconds for one of them to take over. In the run directory it is noted that this member served, for who starts it
again."""

AWAIT = r"""
set -u
mark=$1
end=$(( $(date +%s) + $2 ))
shift 2
[ -e "$mark" ] || exit 0
while ! "$@" > /dev/null; do
  if [ "$(date +%s)" -ge "$end" ]; then
    rm -f -- "$mark" "${mark%/*}/api-answered"
    what=${mark##*/}
    echo "${what%-answered} does not serve by now, as it did before this run stopped it; the rollback goes on" >&2
    exit 1
  fi
  sleep 0.5
done
"""
"""mark, seconds, then the words that ask. Waits only where that served before it was stopped; once in vain, and never
again, for the API server neither where its etcd does not serve."""

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
