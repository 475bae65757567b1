"""Taking a snapshot on one host: saved there, sent here as it lies there, and gone from there afterwards.

All of it is one script in one session. Whatever ends it (the end, an error, a dead connection, a signal) takes the
plain copy with it; what a killed script or a power cut leaves, the next one removes, because nobody holds its lock.
"""

from __future__ import annotations

import shlex
import time
from collections.abc import Iterator
from dataclasses import dataclass

from runbook.errors import NOTE, Held, Refused, RunbookError
from runbook.hosts import wrapper
from runbook.hosts.connection import Link
from runbook.hosts.errands import GAP, MARGIN, START, nonce, refusal
from runbook.hosts.login import Unreachable
from runbook.hosts.session import Ended, Frame, Lost, Session
from runbook.snapshots.tools import Tool
from runbook.step import Target
from runbook.tables import duration
from runbook.transport import LOCK

RESERVE = 256 << 20
"""Bytes that must stay free on the host, whose disk is etcd's as well, mostly."""
CHUNK = 1 << 20
STALL = 180
"""Seconds for which nobody takes a byte of what a host sends before it gives up: a store that is restarted is waited
for, a minute or two."""

TAKE = r"""
dir=$1 name=$2 lock=$3 need=$4 limit=$5 beat=$6 stall=$7 utl=$8 bring=$9
shift 9
watched=0 watcher=
refuse() {
  printf '%s\n' "$2" >&2
  frame "$1" 0
  exit 0
}
[ ! -e "$lock" ] || { cat "$lock"; refuse restored "a restore holds this host"; }
mkdir -p "$dir" 2>/dev/null && chmod 700 "$dir" && : >>"$dir/lock" || refuse failed "cannot write in $dir"
exec 9>>"$dir/lock"
flock -n 9 || { cat "$dir/who" 2>/dev/null; refuse busy "another snapshot is being taken here"; }
own=$dir/$name saving= beater= sending= reading= begun=
# A shell beside, forked a moment ago, has these traps yet where it is bash: a signal then must not end all this there.
end() {
  self=$(exec sh -c 'echo "$PPID"')
  [ "${self:-$$}" = "$$" ] || return
  # A signal may come between the begin of something beside and the taking down of its number.
  [ "$!" = "$begun" ] || kill -- "-$!" 2>/dev/null || kill "$!"
  kill -- "-$saving" 2>/dev/null || kill "$saving"
  kill $beater $watcher $sending $reading
  rm -rf "$dir"/*.taking
}
trap 'end 2>/dev/null' EXIT
trap 'exit 1' HUP INT TERM PIPE
# In what works beside: a moment's sleep that a signal ends, and no more work once this shell is gone, whose pid may
# be another's by then, or has taken all away. A signal may be lost on a shell that has only begun, so a file tells each
# as well to end.
nap() {
  sleep "$beat" >/dev/null 2>&1 &
  wait "$!"
  kill -0 "$$" 2>/dev/null && [ -d "$own" ] || exit 0
}
rm -rf "$dir"/*.taking
printf 'since %s\n' "$(date -u '+%Y-%m-%d %H:%M:%S UTC')" >"$dir/who"
free=$(df -Pk "$dir" | awk 'NR == 2 { print $4 }')
[ "$(( free / 1024 ))" -ge "$(( need / 1048576 ))" ] ||
  refuse full "$(( free / 1024 )) MiB are free in $dir, and the snapshot needs $(( need / 1048576 )) MiB"
mkdir -m 700 "$own" || refuse failed "cannot write in $dir"
# Beside: a cable that is pulled says nothing, and its connection then stands for hours, with nothing under way. Whoever
# moves nothing for so long, as the words tell, has gone, and this shell ends.
watch_for() {
  watched=$(( watched + 1 ))
  (
    trap 'exit 0' TERM
    left=$stall old=
    while nap; [ ! -e "$own/over.$watched" ] && now=$("$@"); do
      [ "$now" = "$old" ] || left=$stall
      [ "$left" -gt 0 ] || { kill "$$"; exit 0; }
      left=$(( left - beat )) old=$now
    done
  ) 9>&- 8<&- </dev/null >/dev/null 2>&1 &
  watcher=$! begun=$!
}
moved() {
  : >"$own/over.$watched"
  kill "$watcher" 2>/dev/null
  watcher=
}
# One is asked for after the other, for what reads may take more than it was told to of what has come.
exec 8<&0
for each in $bring; do
  tool=${each%%:*} sum=${each#*:}
  size=${sum%%:*} sum=${sum#*:}
  : >"$own/$tool"
  frame bring "$tool"
  head -c "$size" <&8 >>"$own/$tool" 2>/dev/null &
  reading=$! begun=$!
  watch_for stat -c %s "$own/$tool"
  wait "$reading"
  moved
  reading=
  got=$(sha256sum <"$own/$tool")
  [ "${got%% *}" = "$sum" ] || refuse failed "$tool did not come whole: $(stat -c %s "$own/$tool") of $size bytes did"
  chmod 700 "$own/$tool"
  said=$("$own/$tool" version 2>&1 </dev/null) || refuse failed "the $tool that was brought does not run here: $said"
done
exec 8<&-
setsid timeout -k 5 "$limit" "$@" snapshot save "$own/snapshot.db" >"$own/said" 2>&1 </dev/null &
saving=$! begun=$!
# Whoever has left is noticed by this. It holds neither the lock nor, in its sleep, the connection, and ends between two
# signs of life and never within one: each is a mark on both streams.
(
  over=
  trap '' PIPE
  trap 'over=1' TERM
  while nap; [ -z "$over" ] && [ ! -e "$own/saved" ]; do
    frame beat 0 || { kill "$$"; exit 0; }
  done
) 9>&- </dev/null &
beater=$! begun=$!
wait "$saving"
code=$?
: >"$own/saved"
kill "$beater"
wait "$beater"
saving= beater=
[ "$code" -eq 0 ] || { tail -n 5 "$own/said"; refuse failed "etcdctl snapshot save ended with $code"; }
chmod 600 "$own/snapshot.db"
"$utl" snapshot status "$own/snapshot.db" -w json 2>&1
size=$(stat -c %s "$own/snapshot.db") || refuse failed "the snapshot is gone"
frame saved "$size"
# Whoever sent this script says when it is ready to take bytes that no frame surrounds.
watch_for true
read -r go || exit 0
moved
cat <"$own/snapshot.db" &
sending=$! begun=$!
watch_for cat "/proc/$sending/fdinfo/0"
wait "$sending"
moved
# What was brought is used beside until all is counted: then whoever sent this leaves.
[ -z "$bring" ] || { watch_for true; read -r over; }
"""

TIDY = r"""
cd "$1" 2>/dev/null || exit 0
flock -n lock sh -c 'rm -rf ./*.taking' 2>/dev/null
:
"""
"""What a power cut left, on a host where nobody takes a snapshot now."""


@dataclass(frozen=True)
class Order:
    """What to take: from ``target``, as ``name``; ``octets`` is how large its database is, as etcd says.

    ``tools`` are brought along, and lie there as long as the snapshot does.
    """

    target: Target
    name: str
    octets: int
    tools: tuple[Tool, ...] = ()


class Taking:
    """One snapshot, in one session. Used in a ``with``; at its end nothing is left on the host."""

    def __init__(self, link: Link, order: Order) -> None:
        self._link, self._order = link, order
        self._session: Session | None = None
        self.size = 0
        """Bytes of the snapshot, once it is saved."""
        self.status = ""
        """What ``etcdutl snapshot status -w json`` says of it."""

    def __enter__(self) -> Taking:
        return self

    def __exit__(self, *_: object) -> None:
        self._close()
        self._link.drop()

    def _close(self) -> None:
        if self._session is not None:
            self._session.__exit__(None, None, None)
            self._session = None

    def save(self) -> None:
        """Have etcd write it there. Raises Refused or Held; nothing is left there then."""
        word, n = nonce(), self._order.target
        text = wrapper.streaming(word, self._words(), TAKE)
        try:
            self._session = Session(
                self._link, wrapper.streaming_shell(self._link.address.elevates, len(text)), word, 1 << 16
            )
            self._session.send(text)
            self._session.next(START)
            frame = self._answer(n.plan.timeouts.restore)
        except Ended as error:
            raise self._refused(refusal(self._link, error)) from error
        except (Unreachable, Lost) as error:
            raise self._refused(f"{self._link.address.label}: {error}", lost=isinstance(error, Lost)) from error
        said = frame.err.decode(errors="replace").strip()
        shown = frame.out.decode(errors="replace").strip()
        if frame.name == "saved" and frame.code.isdecimal():
            self.size, self.status = int(frame.code), shown
        elif frame.name in ("busy", "restored"):
            raise self._held(frame.name, said, shown)
        else:
            raise self._refused(f"{self._link.address.label}: {said}{f': {shown}' if shown else ''}")

    def _answer(self, seconds: float) -> Frame:
        """The frame after the signs of life, and after the tools that the host asks for."""
        if self._session is None:
            raise Lost("not open")
        until = time.monotonic() + seconds + 5 + MARGIN
        while (frame := self._session.next(GAP)).name in ("beat", "bring"):
            if frame.name == "bring":
                self._bring(self._session, frame.code)
                until = time.monotonic() + seconds + 5 + MARGIN
            if time.monotonic() > until:
                raise Lost("the snapshot is not taken, and its time is over")
        return frame

    def _bring(self, session: Session, name: str) -> None:
        """Send one tool. Where it stops being read, the next frame says why."""
        tool = next(t for t in self._order.tools if t.name == name)
        try:
            for chunk in tool.chunks(session.packet):
                self._link.expires = time.monotonic() + 3 * wrapper.STALL
                if not session.push(chunk, wrapper.STALL):
                    return
        except OSError as error:
            raise self._refused(f"spec.tools.upload: cannot read {tool.path}: {error.strerror}") from error

    def tool(self, name: str) -> str:
        """Where ``etcdctl`` or ``etcdutl`` lies on that host, or how it is called there."""
        n, order = self._order.target, self._order
        if order.tools:
            return f"{directory(n)}/{order.name}.taking/{name}"
        return {"etcdctl": n.plan.tools.etcdctl, "etcdutl": n.plan.tools.etcdutl}[name]

    def _words(self) -> list[str]:
        n, order = self._order.target, self._order
        paths = n.node.paths
        # without --command-timeout: that would end the saving too
        etcdctl = (
            *(self.tool("etcdctl"), f"--endpoints={n.node.client_urls[0]}", f"--cacert={paths.etcd_ca}"),
            *(f"--cert={paths.etcd_cert}", f"--key={paths.etcd_key}", "--dial-timeout=5s"),
        )
        limit = str(wrapper.limit(n.plan.timeouts.restore))
        need = str(order.octets + sum(t.size for t in order.tools) + RESERVE)
        return [
            directory(n),
            f"{order.name}.taking",
            LOCK,
            need,
            limit,
            str(wrapper.BEAT),
            str(STALL),
            self.tool("etcdutl"),
            " ".join(t.word for t in order.tools),
            *etcdctl,
        ]

    def pieces(self) -> Iterator[bytes]:
        """All of it, as it lies there. Raises Refused where it does not come whole."""
        if self._session is None:
            raise self._refused("nothing was saved")
        came, label = 0, self._link.address.label
        try:
            self._session.send(b"go\n")
            for block in self._session.raw(wrapper.STALL):
                came += len(block)
                for at in range(0, len(block), CHUNK):
                    yield block[at : at + CHUNK]
                if came == self.size and self._order.tools:
                    return  # with the tools there the script ends with this session, and not before
        except Lost as error:
            raise self._refused(f"{label}: {came} of {self.size} bytes came: {error}", lost=True) from error
        if came != self.size:
            raise self._refused(
                f"{label}: the connection was lost when {came} of {self.size} bytes had come", lost=True
            )

    def _held(self, how: str, said: str, shown: str) -> RunbookError:
        label = self._link.address.label
        who = f" ({shown})" if shown else ""
        next_ = "once it has ended: the same command again"
        if how == "restored":
            next_ = "what has begun may not be mixed with what is restored: save again when that run is finished"
        return Held(
            f"{label}: {said}{who}",
            true="no snapshot was taken, and nothing was changed",
            means="what is there already stays as it is",
            next=(f"runbook snapshot save {self._file}{NOTE}{next_}",),
        )

    @property
    def _file(self) -> str:
        return shlex.quote(str(self._order.target.plan.file))

    def _refused(self, message: str, *, lost: bool = False) -> RunbookError:
        """``lost``: what became of the host nobody knows."""
        left = "and nothing is left on the host"
        if lost:
            left = f"and what that host may still hold of it, in {directory(self._order.target)}, goes within"
            left += f" {duration(2 * STALL)}; after a power cut, with the next one that is taken"
        return Refused(
            message,
            true=f"no snapshot was stored, {left}",
            means="the cluster is as it was; the newest snapshot is the one before",
            next=(f"runbook snapshot list {self._file}", f"runbook snapshot save {self._file}{NOTE}after mending it"),
        )


def directory(n: Target) -> str:
    """Where snapshots lie on a host while they are taken: 0700, root's."""
    return f"{n.node.paths.workspace}/snapshots"
