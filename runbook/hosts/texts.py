"""The shell texts that run on the hosts: a command under the flock, an upload, a copy of the journal, a file read.

They are POSIX sh (dash, bash, BusyBox ash) and constant: what comes from a plan is only ever a quoted word behind
``set --``, which ``wrapper`` puts before them.
"""

from __future__ import annotations

PRELUDE = r"""
PATH=${PATH:+$PATH:}/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
LC_ALL=C
export PATH LC_ALL
umask 077
nonce=$1
shift
frame() {
  printf '\n%s %s %s\n' "$nonce" "$1" "$2"
  printf '\n%s %s %s\n' "$nonce" "$1" "$2" >&2
}
frame start 0
"""

GUARD = r"""
dir=$1 run=$2 epoch=$3 owner=$4 known=$5 lock=$6 void=$7
shift 7
answer() {
  frame end "$1"
  exit 0
}
refuse() {
  printf '%s\n' "$2" >&2
  answer "$1"
}
fsync() { sync "$@" 2>/dev/null || sync; }
for tool in flock timeout setsid; do
  command -v "$tool" >/dev/null || refuse 127 "$tool is missing on this host (packages util-linux and coreutils)"
done
enter() {
  cd "$dir" 2>/dev/null || refuse "$1" "the run's directory $dir is gone"
  [ -d commands ] || mkdir commands 2>/dev/null || [ -d commands ] ||
    refuse 1 "cannot write in $dir; nothing was started"
}
writable=
# The flock is the one truth about "a command of this run runs": the detached process holds it as long as it lives.
await_flock() {
  left=$1
  [ -n "$writable" ] || (: >>lock) 2>/dev/null || refuse 1 "cannot write in $dir; nothing was started"
  writable=1
  exec 9>>lock
  until flock -w "$(( left < beat ? left : beat ))" 9; do
    left=$(( left - beat ))
    [ "$left" -gt 0 ] || return 1
    frame beat 0
  done
}
busy() {
  other=
  [ ! -f running ] || IFS= read -r other <running
  refuse 96 "another command of this run still runs on this host: ${other:-unknown}"
}
# Nobody newer has the run, nobody took it over unknown to us, and from here on it is ours. An epoch that has our own
# word already needs no lock to be read: a file of one line that is only ever replaced.
claim() {
  read_epoch
  [ "$held $by" = "$epoch $owner" ] || raise_epoch
  # A start that we gave up on may still be on its way to this host: with an intent it can only be found, not begun.
  for given_up in $void; do
    [ -e "commands/$given_up.intent" ] || printf '%s\n' '{"void": true}' >"commands/$given_up.intent"
  done
}
read_epoch() {
  held=0 by=
  [ -f epoch ] && IFS=' ' read -r held by <epoch
}
# Who has the run, by the line with which that engine began in the journal's copy; nothing where that is not here yet.
whose() {
  [ -z "$by" ] || grep -F -e "\"owner\":\"$by\"" journal.jsonl 2>/dev/null | tail -n 1 |
    sed -n 's/^{"seq":[0-9]*,"at":"\([-0-9]*\)T\([0-9:]*\)[^"]*".*"holder":"\([^"\\]*\)".*/, by \3 since \1 \2 UTC/p'
}
forgotten() {
  refuse 97 "this run was taken over $1$(whose); this engine changes nothing more"
}
raise_epoch() {
  exec 8>>epoch.lock
  flock 8
  read_epoch
  case $held in '' | *[!0-9]*) held=0 by= ;; esac
  [ "$held" -le "$epoch" ] || refuse 97 "a newer engine has this run$(whose): its epoch is $held, ours is $epoch"
  if [ -n "$by" ] && [ "$by" != "$owner" ]; then
    [ "$held" -lt "$epoch" ] || forgotten elsewhere
    case " $known " in
      *" * "* | *" $by "*) ;;
      *) forgotten "on another machine" ;;
    esac
  fi
  if [ "$held" -lt "$epoch" ]; then
    { printf '%s\n' "$epoch${owner:+ $owner}" >epoch.new && fsync epoch.new && mv -f epoch.new epoch && fsync .; } ||
      refuse 1 "cannot write in $dir; nothing was started"
  fi
  exec 8>&-
}
owned() {
  [ -e "$lock" ] || [ -L "$lock" ] || return 0
  line=
  IFS= read -r line <"$lock" || [ -n "$line" ] || refuse 98 "the lock $lock of this host cannot be read"
  case $line in *"\"run\": \"$run\""* | *"\"run\":\"$run\""*) return 0 ;; esac
  printf '%s\n' "$line"
  refuse 98 "another run holds this host: $lock says $line"
}
intend() {
  { printf '%s\n' "$1" >"$f.intent" && fsync "$f.intent" commands; } ||
    refuse 1 "cannot write in $dir; nothing was started"
}
record() {
  printf '%s\n' "$1" >"$f.rc.new"
  fsync "$f.rc.new"
  mv -f "$f.rc.new" "$f.rc"
}
# One byte more than the tail tells that there is more.
tails() {
  [ ! -s "$f.out" ] || tail -c "$(( tail + 1 ))" "$f.out"
  [ ! -s "$f.err" ] || tail -c "$(( tail + 1 ))" "$f.err" >&2
}
report() {
  code=lost
  IFS= read -r code <"$f.rc"
  tails
  answer "${code:-lost}"
}
"""

# Started under the flock, which it inherits as descriptor 9. `timeout` holds it too, should this shell be killed; the
# command itself does not, or a daemon that it leaves behind would hold it for ever.
RUNNER = r"""
f=$1 limit=$2 kill=$3
shift 3
timeout -k "$kill" "$limit" /bin/sh -c 'exec 9>&-; exec "$@"' sh "$@"
code=$?
printf '%s\n' "$code" >"$f.rc.new"
sync "$f.rc.new" 2>/dev/null || sync
mv -f "$f.rc.new" "$f.rc"
"""

RUN = r"""
key=$1 intent=$2 runner=$3 limit=$4 kill=$5
shift 5
enter 95
f=commands/$key
[ ! -e "$f.rc" ] || report
if await_flock "$wait"; then
  [ ! -e "$f.rc" ] || report
  if [ ! -e "$f.intent" ]; then
    claim
    owned
    intend "$intent"
    printf '%s\n' "$key" >running
    setsid /bin/sh -c "$runner" runner "$f" "$limit" "$kill" "$@" </dev/null >"$f.out" 2>"$f.err" &
  fi
elif [ ! -e "$f.intent" ]; then
  busy
fi
# Ours has the flock now, started here or before: to get it back is to see the end. Letting go at once matters: while
# a waiter has it, a start would think that a command runs.
exec 9>&-
await_flock 2147483647
exec 9>&-
[ ! -e "$f.rc" ] || report
tails
answer lost
"""

# What was begun here is told once nothing more can be, by anybody else: a barred start was none.
SETTLE = r"""
enter 95
await_flock "$wait" || busy
claim
grep -L -x -F '{"void": true}' commands/*.intent 2>/dev/null | sed 's|^commands/||; s|[.]intent$||'
answer 0
"""

RECEIVE = r"""
key=$1 intent=$2 dest=$3 size=$4 sha=$5 mode=$6 from=$7 limit=$8 stall=$9
shift 9
part=$dest.$nonce.part
f=commands/$key
enter 95
digest() {
  if command -v openssl >/dev/null; then openssl dgst -sha256 -r; else sha256sum; fi
}
# What was hashed need not be hashed again, as long as this is still the same, untouched file (``scripts.PROVEN``), and
# the host still up: what the hash saw was in its memory.
prove() {
  is=$(stat -c '%i %s %y %z' "$dest") && read -r boot </proc/sys/kernel/random/boot_id &&
    printf '%s %s %s\n' "$sha" "$boot" "$is" >"$dest.proven" || rm -f "$dest.proven"
}
finish() {
  printf '%s\n' "$2" >"$f.err"
  record "$1"
  report
}
# Writes standard input to the part file. A sender that is cut off leaves this side waiting for hours, so a watcher in
# the background ends cat (whose pid is $$) when the file stops growing. A pipe holds 64 KiB, so that sshd and cat wait
# for each other at every packet; one of 1 MiB (1031 is F_SETPIPE_SZ) took a seventh off the time of a large file.
feed='
part=$1 stall=$2
[ "$3" -lt 33554432 ] || {
  perl -e "fcntl(STDIN, 1031, 1 << 20) or exit 1" || python3 -c "import fcntl; fcntl.fcntl(0, 1031, 1 << 20)"
} >/dev/null 2>&1
(
  old=none
  while sleep "$stall"; do
    now=$(stat -c %s "$part") && read -r name <"/proc/$$/comm" && [ "$name" = cat ] || exit
    [ "$now" != "$old" ] || { kill $$; exit; }
    old=$now
  done
) </dev/null >/dev/null 2>&1 9>&- &
exec cat >"$part"'
[ ! -e "$f.rc" ] || report
if ! await_flock "$wait"; then
  [ -e "$f.intent" ] || busy
  await_flock "$limit" || busy
fi
[ ! -e "$f.rc" ] || report
claim
owned
intend "$intent"
printf '%s\n' "$key" >running
rm -f "$dest".*.part
if [ -n "$from" ]; then
  size=$(stat -L -c %s "$from") && [ -r "$from" ] && [ ! -d "$from" ] || finish 1 "cannot read $from"
fi
if [ -f "$dest" ] && [ ! -L "$dest" ] && [ "$(stat -c %s "$dest")" = "$size" ]; then
  sum=$(digest <"$dest")
  if [ "${sum%% *}" = "$sha" ]; then
    chmod "$mode" "$dest" || finish 1 "cannot set the mode of $dest"
    prove
    finish 0 "already there, with this sha256; nothing was sent"
  fi
fi
if [ -n "$from" ]; then
  /bin/sh -c "$feed" sh "$part" "$stall" 0 <"$from"
elif [ $# -gt 0 ]; then
  printf '%s' "$1" >"$part"
else
  frame go 0
  /bin/sh -c "$feed" sh "$part" "$stall" "$size"
fi
fed=$?
# Hashed from the page cache while the disk is written. To hash on the way in, through tee, took four times as long.
fsync "$part" &
sum=$(digest <"$part")
sum=${sum%% *}
wait "$!" || fed=1
got=$(stat -c %s "$part" 2>/dev/null)
failed() {
  rm -f "$part"
  finish 1 "$1"
}
if [ "$fed" = 0 ] && [ "$sum" = "$sha" ] && [ "$got" = "$size" ]; then
  { chmod "$mode" "$part" && mv -f -T "$part" "$dest"; } || failed "cannot put $part in its place $dest"
  fsync "$(dirname "$dest")"
  prove
  finish 0 "received, its sha256 proven"
fi
case $fed in
  0)
    [ "$got" != "$size" ] || failed "sha256 mismatch at $dest: expected $sha, got ${sum:-none}; the copy was removed"
    [ -z "$from" ] || failed "cannot copy $from: $got of $size bytes came; the copy was removed"
    ;;
  143) [ -z "$from" ] || failed "cannot copy $from: it stopped giving data; the copy was removed" ;;
  *) failed "cannot write $part; the copy was removed" ;;
esac
# Cut off: no exit code is recorded, so that the same upload may be tried again.
rm -f "$part"
printf '%s\n' "cut off after ${got:-0} of $size bytes; the copy was removed" >&2
answer cut
"""

# Beside any command that runs: the copies have a flock of their own. An engine that was superseded writes nothing.
KEEP = r"""
enter 95
(: >>copies.lock) 2>/dev/null || refuse 1 "cannot write in $dir"
exec 9>>copies.lock
flock -w "$wait" 9 || refuse 96 "another engine writes the copies of the journal"
claim
while [ $# -gt 0 ]; do
  name=$1 offset=$2 data=$3
  shift 3
  if [ "$offset" = 0 ]; then
    { printf '%s' "$data" >"$name.new" && fsync "$name.new" && mv -f "$name.new" "$name" && fsync .; } ||
      refuse 1 "cannot write $dir/$name"
  else
    [ "$(stat -c %s "$name" 2>/dev/null)" = "$offset" ] || refuse 94 "$dir/$name is not as long as it was"
    { printf '%s' "$data" >>"$name" && fsync "$name"; } || refuse 1 "cannot write $dir/$name"
  fi
done
answer 0
"""

READ = r"""
size=$(stat -L -c %s "$1") || { frame size none; exit 0; }
frame size "$size"
# The sender of this script says when it is ready to take bytes that no frame surrounds.
read -r go || exit 0
exec cat "$1"
"""
