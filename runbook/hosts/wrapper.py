"""The shell texts that run on the hosts, and how they are put together.

They are POSIX sh (dash, bash, BusyBox ash) and constant: what comes from a plan is only ever a quoted word behind
``set --``. A script travels through the shell's standard input, never in a command line: login shells differ in their
quoting, and sudo writes command lines into the host's log, secrets included. It is one compound command, so that a
script cut off half-way is a syntax error and never a shorter command.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence

from runbook.step import Command
from runbook.transport import LOCK, Claim, Copy

TAIL = 64 * 1024
"""So many bytes of a changing command's output and errors come back; all of it stays on the host."""
BEAT = 5
"""Seconds between two signs of life while a command runs."""
STALL = 15
"""Seconds without a byte after which a host gives an upload up."""
KILL = 5
"""Seconds between SIGTERM and SIGKILL for a changing command that outlives its timeout."""
WAIT = 3
"""Seconds for which a start waits for the flock, which a waiter may hold for a moment."""

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
# The flock is the one truth about "a command of this run runs": the detached process holds it as long as it lives.
await_flock() {
  left=$1
  (: >>lock) 2>/dev/null || refuse 1 "cannot write in $dir; nothing was started"
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
# Nobody newer has the run, nobody took it over unknown to us, and from here on it is ours.
claim() {
  exec 8>>epoch.lock
  flock 8
  held=0 by=
  [ -f epoch ] && IFS=' ' read -r held by <epoch
  case $held in '' | *[!0-9]*) held=0 by= ;; esac
  [ "$held" -le "$epoch" ] || refuse 97 "a newer engine has this run: its epoch is $held, ours is $epoch"
  if [ -n "$by" ] && [ "$by" != "$owner" ]; then
    [ "$held" -lt "$epoch" ] || refuse 97 "another engine took this run over at the same moment (epoch $held)"
    case " $known " in
      *" * "* | *" $by "*) ;;
      *) refuse 97 "this run was taken over on another machine (epoch $held)" ;;
    esac
  fi
  if [ "$held" -lt "$epoch" ]; then
    { printf '%s\n' "$epoch${owner:+ $owner}" >epoch.new && fsync epoch.new && mv -f epoch.new epoch && fsync .; } ||
      refuse 1 "cannot write in $dir; nothing was started"
  fi
  exec 8>&-
  # A start that we gave up on may still be on its way to this host: with an intent it can only be found, not begun.
  for given_up in $void; do
    [ -e "commands/$given_up.intent" ] || printf '%s\n' '{"void": true}' >"commands/$given_up.intent"
  done
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
  [ ! -f "$f.out" ] || tail -c "$(( tail + 1 ))" "$f.out"
  [ ! -f "$f.err" ] || tail -c "$(( tail + 1 ))" "$f.err" >&2
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

SETTLE = r"""
enter 0
await_flock "$wait" || busy
claim
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
finish() {
  printf '%s\n' "$2" >"$f.err"
  record "$1"
  report
}
# Writes standard input to the part file. A sender that is cut off leaves this side waiting for hours, so a watcher in
# the background ends cat (whose pid is $$) when the file stops growing.
feed='
part=$1 stall=$2
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
    finish 0 "already there, with this sha256; nothing was sent"
  fi
fi
if [ -n "$from" ]; then
  /bin/sh -c "$feed" sh "$part" "$stall" <"$from"
else
  frame go 0
  /bin/sh -c "$feed" sh "$part" "$stall"
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

_KEY = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:@+=-]{0,199}")
_COMMENTS = re.compile(r"^[ \t]*#.*\n", re.MULTILINE)


def checked_key(key: str) -> str:
    """The key of a command, which names its files; ValueError where it is no plain file name."""
    if not _KEY.fullmatch(key) or key.endswith((".intent", ".out", ".err", ".rc", ".new")):
        raise ValueError(f"{key!r} cannot name a command's files")
    return key


def quote(words: Sequence[str]) -> bytes:
    """Words for a shell, exactly as they are; ValueError where one holds NUL, which no program can be given."""
    if any("\0" in word for word in words):
        raise ValueError("a word of a command holds a NUL byte")
    return b" ".join(shlex.quote(word).encode("utf-8", "surrogateescape") for word in words)


def shell(elevates: bool) -> str:
    """What the login shell is given, whichever it is: a shell that takes its script from standard input."""
    return f"exec {'sudo -n ' if elevates else ''}env LC_ALL=C /bin/sh -s"


def streaming_shell(elevates: bool, size: int) -> str:
    """The same where data follows the script, of which ``size`` bytes are then read, and not one more."""
    sudo = "sudo -n " if elevates else ""
    return f"exec {sudo}env LC_ALL=C /bin/sh -c 'eval \"$(dd bs=1 count={size} 2>/dev/null)\"'"


def _script(nonce: str, words: Sequence[str], *texts: str) -> bytes:
    body = _COMMENTS.sub("", PRELUDE + "".join(texts))
    return b"{\nset -- " + quote([nonce, *words]) + body.encode() + b"exit 0\n}\n"


def ask(nonce: str, commands: Sequence[Command]) -> bytes:
    """All read-only commands of a host, one after the other; the frames have their numbers and exit codes."""
    lines = [b"%s </dev/null; frame %d $?\n" % (_limited(c, kill=2), n) for n, c in enumerate(commands)]
    head = _COMMENTS.sub("", PRELUDE).encode()
    return b"{\nset -- " + quote([nonce]) + head + b"".join(lines) + b"exit 0\n}\n"


def bare(nonce: str, command: Command) -> bytes:
    """One changing command without the wrapper; the frame's name is ``end``."""
    line = b"%s </dev/null; frame end $?\n" % _limited(command, kill=KILL)
    return b"{\nset -- " + quote([nonce]) + _COMMENTS.sub("", PRELUDE).encode() + line + b"exit 0\n}\n"


def _limited(command: Command, kill: int) -> bytes:
    return quote(["timeout", "-k", str(kill), str(limit(command.timeout)), *command.words()])


def limit(timeout: float) -> int:
    """Whole seconds for ``timeout``, of which every implementation understands them; 0 would mean none."""
    return max(1, -int(-timeout // 1))


def _guard(run_dir: str, run: str, claim: Claim, void: Sequence[str]) -> list[str]:
    known = " ".join(claim.known)
    return [run_dir, run, str(claim.epoch), claim.owner, known, LOCK, " ".join(checked_key(key) for key in void)]


def _numbers(wait: int) -> str:
    return f"beat={BEAT} wait={wait} tail={TAIL}\n"


class Guarded:
    """Scripts that respect the run's flock, its epoch and the host's lock, for one host of one run."""

    def __init__(self, run_dir: str, run: str, claim: Claim, void: Sequence[str] = ()) -> None:
        self._guard = _guard(run_dir, run, claim, void)

    def run(self, nonce: str, key: str, intent: str, command: Command) -> bytes:
        """Start a changing command detached, or find it again; wait for its end; frame ``end`` with its code."""
        words = [checked_key(key), intent, RUNNER, str(limit(command.timeout)), str(KILL), *command.words()]
        return _script(nonce, [*self._guard, *words], _numbers(WAIT), GUARD, RUN)

    def settle(self, nonce: str, wait: float) -> bytes:
        """Wait for the flock, then claim the run."""
        return _script(nonce, self._guard, _numbers(max(0, -int(-wait // 1))), GUARD, SETTLE)

    def keep(self, nonce: str, copies: Sequence[Copy]) -> bytes:
        """Write pieces of files into the run's directory; frame ``end`` with 0, 94 (not so long), 95, 96 or 97."""
        pieces = [(c.name, str(c.offset), c.data.decode("utf-8", "surrogateescape")) for c in copies]
        words = [word for piece in pieces for word in piece]
        return _script(nonce, [*self._guard, *words], _numbers(WAIT), GUARD, KEEP)

    def receive(
        self,
        nonce: str,
        key: str,
        intent: str,
        dest: str,
        size: int,
        sha256: str,
        mode: int,
        origin: str,
        timeout: float,
    ) -> bytes:
        """Receive a file of so many bytes after the frame ``go``; ``origin`` is a file of this host to take instead."""
        words = [
            checked_key(key),
            intent,
            dest,
            str(size),
            sha256,
            f"{mode:04o}",
            origin,
            str(limit(timeout)),
            str(STALL),
        ]
        return _script(nonce, [*self._guard, *words], _numbers(WAIT), GUARD, RECEIVE)


def read(nonce: str, path: str) -> bytes:
    """Send a file of this host: a frame ``size`` with its bytes, then the bytes themselves on standard output."""
    return _script(nonce, [path], READ)
