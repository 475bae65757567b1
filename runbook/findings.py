"""What the checks found, for people and programs: each thing told once, with all the hosts on which it was found."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from runbook.facts import once, without_label
from runbook.held import in_words
from runbook.tables import columns, printable

if TYPE_CHECKING:
    from runbook.checks import Check, Finding
    from runbook.plan import Plan
    from runbook.step import Target

MARKS = {"ok": "✓", "warns": "!", "blocks": "✗", "held": "✗"}
NOT_ASKED = "?"
_WORST = ("held", "blocks", "warns", "ok")
_IN_THE_WAY = ("held", "blocks")
_AGO = re.compile(r" \([^()]* ago\)")
"""Hosts are asked a moment after each other, so that it may differ where nothing else does."""


@dataclass
class Group:
    """One thing that was found, on some hosts; ``todo`` says what to do about it, where it differs for each host."""

    severity: str
    saw: str
    hosts: list[str] = field(default_factory=list)
    todo: list[str] = field(default_factory=list)

    @property
    def where(self) -> str:
        """The hosts, or what else it is about."""
        return ", ".join(host or "plan" for host in self.hosts)

    @property
    def do(self) -> str:
        """What to do: once, where it is the same but for the host."""
        if len(self.todo) < 2:
            return "".join(self.todo)
        return f"{self.todo[0]} (likewise on {', '.join(self.hosts[1:])})"


def decisive(findings: Sequence[Finding]) -> list[Finding]:
    """Those that count: where another run holds a host, only that it does, for its outage explains all the rest.

    Where the snapshot itself is in the way, it is no news that its revision could not be read.
    """
    from runbook.checks.bump import UNREAD, Bump
    from runbook.checks.snapshot import SnapshotWhole

    held = [f for f in findings if f.severity == "held"]
    bad = any(f.check == SnapshotWhole.id() and f.severity == "blocks" for f in findings)
    return held or [f for f in findings if not (bad and f.check == Bump.id() and f.saw == UNREAD)]


def grouped(findings: Iterable[Finding]) -> list[Group]:
    """What is not well, the worst first, equal things as one."""
    found: dict[tuple[str, str, str], Group] = {}
    for f in findings:
        if f.severity == "ok":
            continue
        saw = without_label(once(in_words(f.saw)), f.host)
        key = (f.check, f.severity, _AGO.sub("", saw))
        group = found.setdefault(key, Group(str(f.severity), saw))
        group.hosts += [] if f.host in group.hosts else [f.host]
        group.todo += [f.do] if f.do and f.do not in group.todo else []
    return sorted(found.values(), key=lambda g: _WORST.index(g.severity))


def well(findings: Iterable[Finding]) -> list[str]:
    """What is told where all is well, too, each thing in a line."""
    worth = telling()
    seen = [f for f in findings if f.severity == "ok" and f.check in worth]
    return list(dict.fromkeys(printable(f"{MARKS['ok']} {f.host or 'plan'}: {f.saw}") for f in seen))


def telling() -> set[str]:
    """The checks of which that is so (``Check.tells``)."""
    from runbook.checks import all_checks

    return {c.id() for c in all_checks("preflight") if c.tells}


def in_the_way(findings: Iterable[Finding]) -> list[Group]:
    """Those because of which nothing may begin."""
    return [g for g in grouped(findings) if g.severity in _IN_THE_WAY]


def told(groups: Iterable[Group]) -> list[str]:
    """Each in a line, and what to do about it in a second."""
    lines = []
    for g in groups:
        lines.append(printable(f"{MARKS[g.severity]} {g.where}: {g.saw}"))
        lines += [f"    do: {printable(g.do)}"] if g.do else []
    return lines


def reason(what: str, groups: Sequence[Group]) -> str:
    """The message of an error: what says no, and all that it found."""
    return "\n".join([f"{what}:", *(f"  {line}" for line in told(groups))])


def counted(groups: Sequence[Group]) -> str:
    """How many of each kind, and on which hosts."""
    bad = [g for g in groups if g.severity in _IN_THE_WAY]
    rest = [g for g in groups if g.severity == "warns"]
    said = [f"{len(bad)} finding{_s(bad)} in the way ({_hosts(bad)})" if bad else "nothing is in the way"]
    said += [f"{len(rest)} warning{_s(rest)} ({_hosts(rest)})"] if rest else []
    return ", ".join(said)


def _s(things: Sequence[object]) -> str:
    return "s" if len(things) > 1 else ""


def _hosts(groups: Iterable[Group]) -> str:
    named = {host for g in groups for host in g.hosts}
    return ", ".join([*sorted(named - {""}), *(["plan"] if "" in named else [])])


# What could not be asked.


def not_asked(plan: Plan, targets: Sequence[Target], findings: Sequence[Finding]) -> dict[str, list[str]]:
    """By check, the hosts that it would have asked, had they answered."""
    from runbook.checks import all_checks

    checks = [c for c in all_checks("preflight") if c.applies(plan)]
    first = {c.id() for c in checks if c.round == 0}
    silent = {f.host for f in findings if f.check in first and f.host and f.severity == "blocks"}
    missed = {c.id(): _asked(c, [t for t in targets if t.name in silent]) for c in checks if c.round}
    return {check: hosts for check, hosts in missed.items() if hosts}


def _asked(check: Check, targets: Iterable[Target]) -> list[str]:
    return [t.name for t in targets if check.asks(t)]


def honest(
    findings: Sequence[Finding], targets: Sequence[Target], missed: Mapping[str, Collection[str]]
) -> list[Finding]:
    """The findings without those that all is well, by a check that no host at all has answered."""
    from runbook.checks import all_checks

    checks = {c.id(): c for c in all_checks("preflight")}
    blind = {check for check, hosts in missed.items() if len(_asked(checks[check], targets)) == len(hosts)}
    return [f for f in findings if not (f.severity == "ok" and f.check in blind)]


# The table.


def grid(
    findings: Sequence[Finding], hosts: Sequence[str], missed: Mapping[str, Collection[str]] | None = None
) -> list[list[str]]:
    """A heading, then a row for each check: a mark for each host, and for the plan or this machine."""
    missed = missed or {}
    here = [""] if any(not f.host for f in findings) else []
    places = [*dict.fromkeys([*hosts, *(f.host for f in findings if f.host)]), *here]
    cells: dict[str, dict[str, str]] = {}
    for f in findings:
        row = cells.setdefault(f.check, {})
        before = row.get(f.host, "ok")
        row[f.host] = min(before, str(f.severity), key=_WORST.index)
    rows = [["check", *(place or "plan" for place in places)]]
    for check in _in_order([*cells, *missed]):
        marks = dict.fromkeys(missed.get(check, ()), NOT_ASKED)
        marks |= {host: MARKS.get(severity, "") for host, severity in cells.get(check, {}).items()}
        rows.append([check, *(marks.get(place, " ") for place in places)])
    return rows


def table(
    findings: Sequence[Finding], hosts: Sequence[str], missed: Mapping[str, Collection[str]] | None = None
) -> list[str]:
    """Checks down, hosts across, a mark per cell; then what is not well and what to do; the count is the last line."""
    made = grid(findings, hosts, missed)
    titles = _titles({row[0] for row in made})
    lines = columns([[printable(titles.get(cell, cell)) for cell in row] for row in made])
    groups = grouped(findings)
    legend = [f"{NOT_ASKED} could not be asked: the host does not answer"] if missed else []
    said = [*well(findings), *told(groups)]
    return [*lines, *legend, "", *said, *([""] if said else []), counted(groups)]


def _in_order(ids: Iterable[str]) -> list[str]:
    """The checks in the order in which they are made; strange ones come last."""
    from runbook.checks import all_checks

    order = {c.id(): i for i, c in enumerate(all_checks("preflight"))}
    return sorted(dict.fromkeys(ids), key=lambda check: order.get(check, len(order)))


def _titles(ids: set[str]) -> dict[str, str]:
    """The checks' titles; a check that is not known keeps its id."""
    from runbook.checks import all_checks
    from runbook.connecting import LOCAL_FILES, LOCAL_FILES_TITLE

    titles = {c.id(): c.title() for group in ("preflight", "verify") for c in all_checks(group) if c.id() in ids}
    return {LOCAL_FILES: LOCAL_FILES_TITLE, **titles}


def document(findings: Sequence[Finding]) -> list[dict[str, Any]]:
    """The findings for programs."""
    return [
        {"check": f.check, "host": f.host or None, "severity": str(f.severity), "saw": f.saw, "do": f.do}
        for f in findings
    ]
