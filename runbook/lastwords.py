"""What a container said before it ended: its most telling lines, few and short enough for a message. Pure.

etcd logs in JSON, one entry a line; what ends it stands in an entry of the level fatal or panic, or in Go's own
``panic:``, before a stack trace; a flag that it does not know stands before twenty lines of usage. The API server logs
in klog's form, ``E0409 14:03:00.000000 …``.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence

from runbook.redaction import redact
from runbook.shape import ParseError, Shape, from_json
from runbook.tables import printable

LINES, LENGTH = 3, 240
"""How many lines are told, and how many characters of each."""
CUT = "\n----\n"
"""What stands between crictl's two answers."""

_WORST = re.compile(r'"level":"(?:fatal|d?panic)"|^panic: |^fatal error: |^F\d{4} ')
_BAD = re.compile(
    r'"level":"error"|^E\d{4} |^(?i:error)[: ]'
    r"|^flag provided but not defined|^invalid (?:boolean )?value |^unknown flag"
)
_CRICTL = re.compile(r'^time="[^"]*" level=(?P<level>\w+) msg="(?P<said>.*)"')
"""A word of crictl's own on standard error, among the container's: without an /etc/crictl.yaml it warns each time."""
_DOUBT = re.compile(r'"level":"warn".*"error":')
_PLAIN = ("", "Error", "Completed")
"""Reasons of the runtime's that say no more than the exit code; ``OOMKilled`` does."""
_LEFT_OUT = ("level", "ts", "caller", "msg", "error", "stacktrace")


def of(name: str, said: str) -> str:
    """How the newest container of a component that has ended did so; "" where there is none.

    ``said`` is ``crictl inspect`` of it, a line ``----``, and the end of its log, both streams.
    """
    if not said.strip():
        return ""
    about, _, log = said.partition(CUT)
    every = redact(log).splitlines()
    crictl = [found for line in every if (found := _CRICTL.match(line))]
    lines = telling([line for line in every if not _CRICTL.match(line)])
    told = f"; its last words: {' / '.join(lines)}" if lines else ", and its log is empty"
    if not lines and crictl and crictl[-1]["level"] == "fatal":
        told = f"; its log cannot be read: {_short(crictl[-1]['said'])}"
    return f"the last container {name} that ended did so with {_end(about)}{told}"


def _end(about: str) -> str:
    """Exit code, the runtime's reason, and how often the kubelet had restarted it until then."""
    try:
        inspected = from_json(about, "crictl inspect")
        # From crictl 1.30 on it prints a list where it was asked for several.
        found = inspected[0] if isinstance(inspected, list) and inspected else inspected
        status = Shape(found, "crictl inspect").maybe("status")
        code, attempt = status.number("exitCode"), status.maybe("metadata").number("attempt", 0)
        why = [status.text(key, "") for key in ("reason", "message")]
    except ParseError:
        return "an exit code that crictl could not tell"
    shown = ": ".join(_short(redact(word)) for word in why if word not in _PLAIN)
    often = f"after {attempt} restart{'' if attempt == 1 else 's'}" if attempt else "at its first start"
    return f"exit code {code}{f' ({shown})' if shown else ''}, {often}"


def telling(log: Sequence[str]) -> list[str]:
    """The lines that tell why: the last of the worst kind that there is, then of the next; else simply the last."""
    lines = [line.strip() for line in log if line.strip()]
    kinds = [[line for line in lines if _kind(line) == kind] for kind in range(3)]
    found: list[str] = []
    for kind in [*kinds[:2], *([] if kinds[0] or kinds[1] else [kinds[2] or lines])]:
        shown = dict.fromkeys(_short(_entry(line)) for line in kind)
        found += [line for line in shown if line not in found][-(LINES - len(found)) :] if len(found) < LINES else []
    return found


def _kind(line: str) -> int:
    return next((kind for kind, form in enumerate((_WORST, _BAD, _DOUBT)) if form.search(line)), 3)


def _entry(line: str) -> str:
    """An entry of etcd's as a sentence, without its stack trace; another line as it is."""
    try:
        entry = json.loads(line) if line.startswith("{") else None
    except ValueError:
        entry = None
    if not isinstance(entry, dict):
        return line
    said = [str(entry[key]) for key in ("level", "msg", "error") if entry.get(key)]
    more = [f"{key} {value}" for key, value in entry.items() if key not in _LEFT_OUT and value not in ("", None)]
    return ": ".join(said) + (f" ({', '.join(more)})" if more else "")


def _short(line: str) -> str:
    plain = printable(line)
    return plain if len(plain) <= LENGTH else f"{plain[:LENGTH]}[…]"
