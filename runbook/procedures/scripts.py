"""The shell texts of the procedure: constants, into which no plan text is ever put.

A plan's values reach them as positional arguments only. They keep to a small subset of POSIX shell (one simple command
a line, ``if``/``fi``, no functions, no pipes where files change) so that a reviewer can read them at once and the
tests' fake can interpret the very same text, stopping between any two of its commands.

Every script that changes files can be run again from any state in which it may have been cut off, and makes durable
(``sync``) what it did before it records that it did it.
"""

from __future__ import annotations

LOCK = r"""
set -eu
if [ ! -e "$1" ]; then
  printf '{"run": "%s", "holder": "%s", "since": "%s"}\n' "$2" "$3" "$(date -u +%FT%TZ)" > "$1.$2"
  sync -- "$1.$2"
  ln -T -- "$1.$2" "$1" || :
fi
rm -f -- "$1.$2"
grep -qF -- "\"run\": \"$2\"," "$1"
"""
"""lock, run, holder. ``ln`` is what decides between two that come at once."""

UNLOCK = r"""
set -eu
rm -f -- "$1.$2"
if [ -e "$1" ]; then
  if grep -qF -- "\"run\": \"$2\"," "$1"; then
    rm -- "$1"
    sync -- "${1%/*}"
  fi
fi
"""
"""lock, run. Synced: after a power cut the lock of a run that has ended would refuse every later one."""

SAVE = r"""
set -eu
mkdir -p -m 700 -- "$2"
cp -a -- "$1/$3" "$2/.$3"
sync -- "$2/.$3"
mv -T -- "$2/.$3" "$2/$3"
sync -- "$2"
"""
"""manifests, saved, file."""

UNSAVE = r"""
set -eu
rm -f -- "$2/.$3"
if [ -e "$1/$3" ]; then
  rm -f -- "$2/$3"
fi
"""
"""manifests, saved, file. The saved copy goes only where the manifest itself is in its place."""

PARK = r"""
set -eu
if [ -e "$1/$3" ]; then
  cmp -- "$1/$3" "$2/$3"
  rm -- "$1/$3"
fi
sync -- "$1"
"""
"""manifests, saved, file. A manifest leaves only where its saved, durable copy is the same to the byte."""

UNPARK = r"""
set -eu
if [ ! -e "$1/$3" ]; then
  cp -a -- "$2/$3" "$1/.$3.$4"
  sync -- "$1/.$3.$4"
  mv -T -- "$1/.$3.$4" "$1/$3"
fi
sync -- "$1"
"""
"""manifests, saved, file, run. The kubelet ignores dot-files, so it never reads half a manifest."""

GONE = r"""
set -u
end=$(( $(date +%s) + $2 ))
while :; do
  if ids=$(crictl ps -q --name "^$1\$" --label io.kubernetes.pod.namespace=kube-system); then
    if [ -z "$ids" ]; then exit 0; fi
  fi
  if [ "$(date +%s)" -gt "$end" ]; then break; fi
  sleep 0.2
done
echo "the kubelet did not stop $1 within $2 s; crictl stop" >&2
crictl stop --timeout 30 $ids && exit 0
ids=$(crictl ps -q --name "^$1\$" --label io.kubernetes.pod.namespace=kube-system) || exit 1
[ -z "$ids" ]
"""
"""container, seconds. A kubelet that started while the API server was down may refuse to delete pods.

A container that ends between the question and `crictl stop` makes that fail, and is gone all the same.
"""

ETCD_ANSWERED = r"""
set -eu
mark=$1
shift
if "$@"; then
  touch -- "$mark"
fi
"""
"""mark, then the etcdctl words that ask this host's own member."""

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

STATUS = r"""
set -eu
"$1" snapshot status "$2" -w json > "$3.part"
sync -- "$3.part"
mv -T -- "$3.part" "$3"
sync -- "${3%/*}"
"""
"""etcdutl, snapshot, where its figures are kept. They are needed in the outage, so their name is made durable too."""

CLEAR = r"""
set -eu
rm -f -- "$1/restored" "$1/.restored"
sync -- "$1"
mkdir -p -m 700 -- "$2"
rm -rf -- "$2/.$4.restoring" "$2/.$4.restored"
if [ -n "$3" ]; then
  rm -rf -- "$3/.$4.restoring" "$3/.$4.restored"
fi
"""
"""run dir, data, wal or "", run. What an attempt left would block the next; the marker goes first."""

FIT = r"""
set -eu
like=$1
if [ -e "$1/member" ]; then
  like=$1/member
fi
if [ "$3" = keep ]; then
  chown -R --reference="$like" -- "$2"
else
  chown -R -- "$3" "$2"
fi
if [ -e "$1/member" ]; then
  chmod --reference="$1/member" -- "$2/member"
fi
if command -v selinuxenabled > /dev/null; then
  if selinuxenabled; then
    chcon -R --reference="$like" -- "$2"
  fi
fi
"""
"""old directory, new directory, owner or ``keep``. Where there is no old member, its parent is the example."""

MOVE = r"""
set -eu
mv -T -- "$2/.$4.restoring" "$2/.$4.restored"
if [ -n "$3" ]; then
  mv -T -- "$3/.$4.restoring" "$3/.$4.restored"
fi
"""
"""run dir, data, wal or "", run. Only after etcdutl ended with 0: killed, it leaves the other name."""

SEAL = r"""
set -eu
sync -f -- "$2/.$4.restored"
sync -- "$2"
if [ -n "$3" ]; then
  sync -f -- "$3/.$4.restored"
  sync -- "$3"
fi
printf '%s\n' "$5" > "$1/.restored"
sync -- "$1/.restored"
mv -T -- "$1/.restored" "$1/restored"
sync -- "$1"
"""
"""run dir, data, wal or "", run, sha256. The marker is written last: it alone says that the restore was whole."""

UNRESTORE = r"""
set -eu
rm -f -- "$1/restored" "$1/.restored"
sync -- "$1"
rm -rf -- "$2/.$4.restoring" "$2/.$4.restored"
if [ -n "$3" ]; then
  rm -rf -- "$3/.$4.restoring" "$3/.$4.restored"
fi
"""
"""run dir, data, wal or "", run. What etcd has run on is not here any more: the swap's undo put it away."""

SWAP = r"""
set -eu
if [ ! -e "$4/old-aside" ]; then
  mkdir -p -m 700 -- "$1/.$3.old"
  if [ -e "$1/member" ]; then
    touch -- "$4/had-member"
    sync -- "$4"
    mv -T -- "$1/member" "$1/.$3.old/member"
  fi
  sync -- "$1" "$1/.$3.old"
  if [ -n "$2" ]; then
    mkdir -p -m 700 -- "$2/.$3.old"
    find "$2" -mindepth 1 -maxdepth 1 ! -name '.*' ! -name lost+found -exec mv -t "$2/.$3.old" -- {} +
    sync -- "$2" "$2/.$3.old"
  fi
  touch -- "$4/old-aside"
  sync -- "$4"
fi
if [ ! -e "$4/swapped" ]; then
  if [ -e "$1/.$3.restored/member" ]; then
    mv -T -- "$1/.$3.restored/member" "$1/member"
  fi
  sync -- "$1" "$1/.$3.restored"
  if [ -n "$2" ]; then
    find "$2/.$3.restored" -mindepth 1 -maxdepth 1 -exec mv -t "$2" -- {} +
    sync -- "$2" "$2/.$3.restored"
  fi
  test -d "$1/member/snap"
  stat -c %i -- "$1/member" > "$4/swapped.part"
  sync -- "$4/swapped.part"
  mv -T -- "$4/swapped.part" "$4/swapped"
  sync -- "$4"
fi
"""
"""data, wal or "", run, run dir. Old in place, between (``old-aside``), new in place (``swapped``, which holds the
inode of what was put there: a later run's data is another one)."""

SWAP_BACK = r"""
set -eu
if [ -e "$4/old-aside" ]; then
  if [ -e "$4/had-member" ]; then
    if [ ! -e "$1/.$3.old/member" ]; then
      if [ ! -e "$4/new-away" ]; then
        echo "the old data that was at $1/.$3.old/member is gone: the new data stays in place" >&2
        exit 1
      fi
      if [ ! -e "$1/member" ]; then
        echo "the old data that was at $1/.$3.old/member is gone: nothing is in place" >&2
        exit 1
      fi
    fi
  fi
  if [ ! -e "$4/new-away" ]; then
    mkdir -p -m 700 -- "$1/.$3.discarded"
    if [ -e "$1/member" ]; then
      mv -T -- "$1/member" "$1/.$3.discarded/member"
    fi
    sync -- "$1" "$1/.$3.discarded"
    if [ -n "$2" ]; then
      mkdir -p -m 700 -- "$2/.$3.discarded"
      find "$2" -mindepth 1 -maxdepth 1 ! -name '.*' ! -name lost+found -exec mv -t "$2/.$3.discarded" -- {} +
      sync -- "$2" "$2/.$3.discarded"
    fi
    touch -- "$4/new-away"
    sync -- "$4"
  fi
fi
if [ -e "$1/.$3.old/member" ]; then
  mv -T -- "$1/.$3.old/member" "$1/member"
fi
sync -- "$1"
if [ -n "$2" ]; then
  if [ -d "$2/.$3.old" ]; then
    find "$2/.$3.old" -mindepth 1 -maxdepth 1 -exec mv -t "$2" -- {} +
    sync -- "$2"
    rmdir -- "$2/.$3.old"
  fi
fi
if [ -d "$1/.$3.old" ]; then
  rmdir -- "$1/.$3.old"
fi
rm -f -- "$4/old-aside"
sync -- "$4"
rm -f -- "$4/swapped" "$4/swapped.part"
rm -f -- "$4/new-away"
rm -f -- "$4/had-member"
sync -- "$4"
"""
"""data, wal or "", run, run dir. What was in place is renamed to ``discarded``, never removed."""

SWAPPED = r"""
set -u
[ -e "$4/swapped" ] || { echo "the new data is not in place"; exit 1; }
[ -d "$1/member/snap" ] || { echo "$1/member/snap is missing"; exit 1; }
[ ! -e "$1/.$3.restored/member" ] || { echo "$1/.$3.restored/member was not moved"; exit 1; }
wal=${2:-$1/member/wal}
ls "$wal"/*.wal > /dev/null 2>&1 || { echo "no WAL in $wal: never start etcd on it"; exit 1; }
"""
"""data, wal or "", run, run dir; read-only."""

UNSWAPPED = r"""
set -u
[ ! -e "$4/old-aside" ] || { echo "the old data is still aside"; exit 1; }
[ ! -e "$1/.$3.old" ] || { echo "$1/.$3.old is still there"; exit 1; }
[ -e "$4/had-member" ] || exit 0
[ -d "$1/member" ] || { echo "$1/member is missing"; exit 1; }
"""
"""data, wal or "", run, run dir; read-only."""

RESTORED = r"""
set -u
grep -qxF -- "$5" "$1/restored" 2>/dev/null || { echo "the restore was not completed"; exit 1; }
[ -d "$2/.$4.restored/member/snap" ] || { echo "$2/.$4.restored/member/snap is missing"; exit 1; }
wal=$2/.$4.restored/member/wal
if [ -n "$3" ]; then wal=$3/.$4.restored; fi
ls "$wal"/*.wal > /dev/null 2>&1 || { echo "no WAL in $wal"; exit 1; }
"""
"""run dir, data, wal or "", run, sha256; read-only."""

DIGEST = r"""
openssl dgst -sha256 -r -- "$1" 2>/dev/null || sha256sum -- "$1"
"""
"""file; read-only. openssl is several times faster than sha256sum on many hosts, and not on all of them."""

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

COMPACTED = SNAPSHOT_REVISION.replace('"$@" --rev "$at"', '"$@" --rev "$(( at - 1 ))"')
"""The same, one revision before: it must be refused as compacted."""

FIGURES_AND = r"""
cat -- "$1"
echo
shift
"$@" || exit 4
"""
"""snapshot figures, etcdctl words; read-only. Exit 4: the figures are there, etcd did not answer."""

LATER = r"""
set -u
[ -e "$3/old-aside" ] || exit 0
[ -e "$3/swapped" ] || exit 0
[ ! -e "$3/new-away" ] || exit 0
[ ! -e "$1/.$2.discarded/member" ] || exit 0
here=$(stat -c %i -- "$1/member" 2>/dev/null)
mine=$(cat -- "$3/swapped")
[ "$here" != "$mine" ] || exit 0
echo "$1/member is not what this run put there"
for dir in "$1"/.*.old; do
  if [ -d "$dir" ] && [ "$dir" != "$1/.$2.old" ]; then echo "this run's data may be ${dir##*/}"; fi
done
"""
"""data, run, run dir; read-only. Says so where the data in place is not this run's, and which runs have moved some."""

UNCHANGED = r"""
set -u
from=$1
saved=$2
shift 2
for f in "$@"; do
  [ -e "$from/$f" ] || continue
  [ -e "$saved/$f" ] || continue
  cmp -- "$from/$f" "$saved/$f" > /dev/null || echo "$from/$f was changed since this run saved it ($saved/$f)"
done
"""
"""manifests, saved, files; read-only."""

SWEEP = r"""
set -u
for name in restoring restored old discarded; do
  for dir in "$1" "$2"; do
    if [ -n "$dir" ]; then
      rm -rf -- "$dir/.$3.trash" || exit 1
      if [ -e "$dir/.$3.$name" ]; then
        mv -T -- "$dir/.$3.$name" "$dir/.$3.trash" || exit 1
        sync -- "$dir" || exit 1
        rm -rf -- "$dir/.$3.trash" || exit 1
      fi
    fi
  done
done
for dir in "$1" "$2"; do
  if [ -n "$dir" ]; then sync -- "$dir" || exit 1; fi
done
rm -rf -- "$4" || exit 1
rmdir --ignore-fail-on-non-empty -- "${4%/*}" 2>/dev/null || :
"""
"""data or "" on a worker, wal or "", run, run dir. Only what carries this run's id, and an empty workspace.
Data is renamed first: half of it must never pass for the whole."""

PARKED = r"""
set -u
from=$1
saved=$2
shift 2
for f in "$@"; do
  [ ! -e "$from/$f" ] || { echo "$from/$f is still there"; exit 1; }
  [ -e "$saved/$f" ] || { echo "$saved/$f is missing"; exit 1; }
done
"""
"""manifests, saved, files; read-only."""

IN_PLACE = r"""
set -u
from=$1
saved=$2
shift 2
for f in "$@"; do
  cmp -- "$from/$f" "$saved/$f" || exit 1
done
"""
"""manifests, saved, files; read-only."""

ABSENT = r"""
set -u
for f in "$@"; do
  [ ! -e "$f" ] || { echo "$f is still there"; exit 1; }
done
"""
"""files; read-only."""
