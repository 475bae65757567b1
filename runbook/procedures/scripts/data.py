"""The data: restored beside the old, swapped by renames, swapped back."""

from __future__ import annotations

RESTORE = r"""
set -eu
dir=$1
data=$2
wal=$3
run=$4
sha256=$5
owner=$6
shift 6
rm -f -- "$dir/restored" "$dir/.restored"
sync -- "$dir"
mkdir -p -m 700 -- "$data"
rm -rf -- "$data/.$run.restoring" "$data/.$run.restored"
if [ -n "$wal" ]; then
  rm -rf -- "$wal/.$run.restoring" "$wal/.$run.restoring.tmp" "$wal/.$run.restored"
fi
"$@"
snapshot=$dir/snapshot.db
boot=$(cat -- /proc/sys/kernel/random/boot_id 2>/dev/null || :)
is=$(stat -c '%i %s %y %z' -- "$snapshot")
if [ -z "$boot" ] || [ "$(cat -- "$snapshot.proven" 2>/dev/null || :)" != "$sha256 $boot $is" ]; then
  sum=$(openssl dgst -sha256 -r -- "$snapshot" 2>/dev/null || sha256sum -- "$snapshot")
  if [ "$sum" != "$sha256 *$snapshot" ] && [ "$sum" != "$sha256  $snapshot" ]; then
    echo "the snapshot was replaced before it was restored: its sha256 is not $sha256, but $sum" >&2
    exit 1
  fi
fi
for place in "$data" "$wal"; do
  if [ -n "$place" ]; then
    mv -T -- "$place/.$run.restoring" "$place/.$run.restored"
    like=$place
    if [ -e "$place/member" ]; then like=$place/member; fi
    if [ "$owner" = keep ]; then
      chown -R --reference="$like" -- "$place/.$run.restored"
    else
      chown -R -- "$owner" "$place/.$run.restored"
    fi
    if [ -e "$place/member" ]; then
      chmod --reference="$place/member" -- "$place/.$run.restored/member"
    fi
    if command -v selinuxenabled > /dev/null; then
      if selinuxenabled; then
        chcon -R --reference="$like" -- "$place/.$run.restored"
      fi
    fi
    sync -f -- "$place/.$run.restored"
    sync -- "$place"
  fi
done
printf '%s\n' "$sha256" > "$dir/.restored"
sync -- "$dir/.restored"
mv -T -- "$dir/.restored" "$dir/restored"
sync -- "$dir"
"""
"""run dir, data, wal or "", run, sha256, owner or ``keep``, etcdutl's words.

What was read is proven after it was read: another whole snapshot may have taken its place since it was last looked at.
What an attempt left would block the next, so it goes, the marker first. Renamed only after etcdutl ended with 0:
killed, it leaves the other name (and for a WAL etcd's own beside it, ``.tmp``). Owner, mode and label are the old
member's; where there is none, its parent's. The marker is written last: it alone says that the restore was whole.
"""

UNRESTORE = r"""
set -eu
rm -f -- "$1/restored" "$1/.restored"
sync -- "$1"
for place in "$2" "$3"; do
  if [ -d "$place" ]; then
    rm -rf -- "$place/.$4.restoring" "$place/.$4.restoring.tmp" "$place/.$4.restored"
    sync -- "$place"
  fi
done
"""
"""run dir, data, wal or "", run. What etcd has run on is not here any more: the swap's undo put it away."""

RESTORED = r"""
set -u
grep -qxF -- "$5" "$1/restored" 2>/dev/null || { echo "the restore was not completed"; exit 1; }
[ -d "$2/.$4.restored/member/snap" ] || { echo "$2/.$4.restored/member/snap is missing"; exit 1; }
wal=$2/.$4.restored/member/wal
if [ -n "$3" ]; then wal=$3/.$4.restored; fi
ls "$wal"/*.wal > /dev/null 2>&1 || { echo "no WAL in $wal"; exit 1; }
"""
"""run dir, data, wal or "", run, sha256; read-only."""

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
    if ls "$2"/*.wal > /dev/null 2>&1; then
      touch -- "$4/had-wal"
      sync -- "$4"
    fi
    mkdir -p -m 700 -- "$2/.$3.old"
    find -H "$2" -mindepth 1 -maxdepth 1 ! -name '.*' ! -name lost+found -exec mv -t "$2/.$3.old" -- {} +
    sync -- "$2" "$2/.$3.old"
    if ls "$2"/*.wal > /dev/null 2>&1; then
      echo "an old WAL file is still in $2" >&2
      exit 1
    fi
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
    find -H "$2/.$3.restored" -mindepth 1 -maxdepth 1 -exec mv -t "$2" -- {} +
    sync -- "$2" "$2/.$3.restored"
  fi
  test -d "$1/member/snap"
  stat -c '%i %W' -- "$1/member" > "$4/swapped.part"
  sync -- "$4/swapped.part"
  mv -T -- "$4/swapped.part" "$4/swapped"
  sync -- "$4"
fi
"""
"""data, wal or "", run, run dir. Old in place, between (``old-aside``), new in place (``swapped``, which holds the
inode and the birth time of what was put there: a later run's data is another one, also where it was given the inode of
what `finish` had removed. A file system without birth times says 0 or -, always: then the inode decides alone)."""

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
  if [ -e "$4/had-wal" ]; then
    ls "$2/.$3.old"/*.wal > /dev/null 2>&1 || {
      if [ ! -e "$4/new-away" ]; then
        echo "the old WAL that was in $2/.$3.old is gone: the new data stays in place" >&2
        exit 1
      fi
      ls "$2"/*.wal > /dev/null 2>&1 || {
        echo "the old WAL that was in $2/.$3.old is gone: nothing is in place" >&2
        exit 1
      }
    }
  fi
  if [ ! -e "$4/new-away" ]; then
    mkdir -p -m 700 -- "$1/.$3.discarded"
    if [ -e "$1/member" ]; then
      mv -T -- "$1/member" "$1/.$3.discarded/member"
    fi
    sync -- "$1" "$1/.$3.discarded"
    if [ -n "$2" ]; then
      mkdir -p -m 700 -- "$2/.$3.discarded"
      find -H "$2" -mindepth 1 -maxdepth 1 ! -name '.*' ! -name lost+found -exec mv -t "$2/.$3.discarded" -- {} +
      sync -- "$2" "$2/.$3.discarded"
      if ls "$2"/*.wal > /dev/null 2>&1; then
        echo "a new WAL file is still in $2" >&2
        exit 1
      fi
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
    find -H "$2/.$3.old" -mindepth 1 -maxdepth 1 -exec mv -t "$2" -- {} +
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
rm -f -- "$4/had-member" "$4/had-wal"
sync -- "$4"
"""
"""data, wal or "", run, run dir. What was in place is renamed to ``discarded``, never removed.

``find -H``: a WAL directory may be a symbolic link, which find alone would take for a file and list nothing of.
"""

SWAPPED = r"""
set -u
[ -e "$4/swapped" ] || { echo "the new data is not in place"; exit 1; }
[ -d "$1/member/snap" ] || { echo "$1/member/snap is missing"; exit 1; }
[ ! -e "$1/.$3.restored/member" ] || { echo "$1/.$3.restored/member was not moved"; exit 1; }
wal=${2:-$1/member/wal}
ls "$wal"/*.wal > /dev/null 2>&1 || { echo "no WAL in $wal: never start etcd on it"; exit 1; }
[ -n "$2" ] || exit 0
if ls "$2/.$3.restored"/*.wal > /dev/null 2>&1; then echo "a WAL file in $2/.$3.restored was not moved"; exit 1; fi
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

KEPT = r"""
set -u
[ -e "$4/old-aside" ] || exit 0
[ ! -e "$4/new-away" ] || exit 0
gone=
if [ -e "$4/had-member" ]; then
  [ -e "$1/.$3.old/member" ] || gone=$1/.$3.old/member
fi
if [ -e "$4/had-wal" ]; then
  ls "$2/.$3.old"/*.wal > /dev/null 2>&1 || gone=$2/.$3.old
fi
[ -n "$gone" ] || exit 0
echo "the old data that was at $gone is gone: put it back there; or roll back without this host," \
  "and afterwards let it join the old cluster as a new member"
"""
"""data, wal or "", run, run dir; read-only. Says so where there is nothing to go back to."""

LATER = r"""
set -u
[ -e "$3/old-aside" ] || exit 0
[ -e "$3/swapped" ] || exit 0
[ ! -e "$3/new-away" ] || exit 0
[ ! -e "$1/.$2.discarded/member" ] || exit 0
here=$(stat -c '%i %W' -- "$1/member" 2>/dev/null)
mine=$(cat -- "$3/swapped")
[ "$here" != "$mine" ] || exit 0
echo "$1/member is not what this run put there"
for dir in "$1"/.*.old; do
  if [ -d "$dir" ] && [ "$dir" != "$1/.$2.old" ]; then echo "this run's data may be ${dir##*/}"; fi
done
"""
"""data, run, run dir; read-only. Says so where the data in place is not this run's, and which runs have moved some."""
