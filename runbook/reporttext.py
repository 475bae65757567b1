"""The report as Markdown. All that came from plans, hosts and people is escaped: it is text, never markup."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from runbook.replay import FOUND
from runbook.tables import duration, printable

_SPECIAL = re.compile(r"([\\`*_\[\]<>|&~#$!])")


def escaped(value: object) -> str:
    """Text in which Markdown sees no markup, no HTML, no link and no cell's end; one line."""
    plain = _SPECIAL.sub(r"\\\1", printable(value))
    plain = re.sub(r"(?i)\b(https?|ftp)://", r"\1:\\//", plain)  # no other is made a link of
    plain = re.sub(r"(?i)\bwww\.", lambda m: m.group()[:-1] + "\\.", plain)
    plain = re.sub(r"^(\d+)([.)])(?=\s|$)", r"\1\\\2", plain)
    return re.sub(r"^([-+=])", r"\\\1", plain)


def code(value: object) -> str:
    """Text as it stands, for commands; not for tables' cells with bars in them."""
    plain = printable(value)
    longest = max((len(run) for run in re.findall(r"`+", plain)), default=0)
    fence, pad = "`" * (longest + 1), " " if "`" in plain else ""
    return f"{fence}{pad}{plain}{pad}{fence}" if plain else ""


def table(heading: Sequence[str], rows: Iterable[Sequence[object]]) -> list[str]:
    """A Markdown table with every cell escaped; nothing where there are no rows."""
    body = [f"| {' | '.join(escaped(cell) for cell in row)} |" for row in rows]
    return [f"| {' | '.join(heading)} |", f"|{'---|' * len(heading)}", *body, ""] if body else []


def text(report: Mapping[str, Any]) -> str:
    """All of it."""
    lines = [f"# Restore {escaped(report['run'])}", "", *_outcome(report), *_head(report)]
    lines += _section("Engines", table(("epoch", "command", "who", "version", "from", "until"), _engines(report)))
    lines += _section(
        "Steps", table(("step", "", "result", "began", "took", "of it waiting", "commands"), _steps(report))
    )
    lines += _section("Hosts", table(("host", "what is true there", "commands", "failed"), _hosts(report)))
    lines += _section("Findings", table(("time", "host", "severity", "check", "seen", "do"), _findings(report)))
    lines += _section(
        "Failures", table(("time", "step", "host", "exit code", "last words", "action"), _failures(report))
    )
    lines += _objections(report)
    lines += _proof(report) + _left(report)
    lines += _section("Timeline", table(("time (UTC)", "epoch", "what"), _timeline(report)))
    return "\n".join(lines).rstrip() + "\n"


def _section(title: str, lines: Sequence[str]) -> list[str]:
    return [f"## {title}", "", *lines] if lines else []


def _outcome(report: Mapping[str, Any]) -> list[str]:
    outcome = report["outcome"]
    marks = [w for w, on in (("accepted", outcome["accepted"]), ("closed", outcome["closed"])) if on]
    halted = f" from {escaped(outcome['halted_from'])}" if outcome["halted_from"] else ""
    why = f": {escaped(outcome['why'])}" if outcome["why"] else ""
    called = "refused" if outcome["refused"] else outcome["state"]
    state = f"**{escaped(called)}**{halted}{''.join(f', {m}' for m in marks)}{why}"
    down = [] if report["outages"] else ["This run never stopped the Kubernetes API."]
    down += [_down(outage, superseded=outcome["superseded"]) for outage in report["outages"]]
    return [state, "", f"{escaped(outcome['means'])}.", "", *down, ""]


def _down(outage: Mapping[str, Any], *, superseded: bool) -> str:
    took = f"**{duration(outage['seconds'])}**"
    if outage["to"]:
        return (
            f"This run had the control plane stopped from {_time(outage['from'])} until {_time(outage['to'])}: {took}."
        )
    if superseded:
        return f"This run stopped the control plane at {_time(outage['from'])}: {took}, as far as this machine knows."
    return f"This run stopped the control plane at {_time(outage['from'])}, and it is still down: {took}."


def _head(report: Mapping[str, Any]) -> list[str]:
    header = report["header"]
    labels = {
        "plan": "plan",
        "plan_file": "plan file",
        "ticket": "ticket",
        "holder": "begun by",
        "version": "program version",
        "snapshot": "snapshot",
        FOUND: "snapshot found",
        "snapshot_sha256": "snapshot sha256",
        "plan_digest": "plan digest",
        "plan_sha256": "plan file sha256",
        "preview_digest": "preview digest",
    }
    rows = [(label, header[key]) for key, label in labels.items() if header.get(key)]
    rows += [("began", _time(report["began"])), ("last line", _time(report["ended"]))]
    return table(("", ""), rows)


def _engines(report: Mapping[str, Any]) -> list[Sequence[object]]:
    keys = ("epoch", "command", "holder", "version")
    return [(*(e[key] for key in keys), _time(e["at"]), _time(e["last"])) for e in report["engines"]]


def _steps(report: Mapping[str, Any]) -> list[Sequence[object]]:
    rows: list[Sequence[object]] = []
    for s in report["steps"]:
        took = (duration(s["seconds"]), duration(s["waited"])) if s["ended"] and s["what"] != "look" else ("", "")
        what = {"do": "", "undo": "undone", "look": "looked at"}[s["what"]]
        step = f"{s['id']} on {s['joining']}" if s["joining"] else s["id"]
        rows.append((step, what, s["result"], _clock(s["began"], report), *took, s["commands"]))
    return rows


def _hosts(report: Mapping[str, Any]) -> list[Sequence[object]]:
    return [(host, h["true"], h["commands"], h["failed"]) for host, h in report["hosts"].items()]


def _findings(report: Mapping[str, Any]) -> list[Sequence[object]]:
    keys = ("host", "severity", "check", "saw", "do")
    return [(_time(f["at"]), *(f[key] for key in keys)) for f in report["findings"]]


def _failures(report: Mapping[str, Any]) -> list[Sequence[object]]:
    return [
        (_time(f["at"]), f["step"], f["host"], "unknown" if f["code"] is None else f["code"], f["said"], f["action"])
        for f in report["failures"]
    ]


def _objections(report: Mapping[str, Any]) -> list[str]:
    rows = [
        (s["id"], s["result"], host or "here", saw)
        for s in report["steps"]
        for host, saw in s["saw"].items()
        if saw not in ("yes", "ready")
    ]
    return _section("What hosts said no to", table(("step", "result", "host", "seen"), rows))


def _proof(report: Mapping[str, Any]) -> list[str]:
    proof = report["proof"]
    if proof is None:
        return _section("Proof", ["The cross-member proof was not seen in this run.", ""])
    seen = (
        f"Seen at {_time(proof['at'])} by {escaped(', '.join(proof['hosts']))}, each of which asked the whole cluster:"
    )
    return _section("Proof", [seen, "", *(f"- {escaped(says)}" for says in proof["says"]), ""])


def _left(report: Mapping[str, Any]) -> list[str]:
    remains = [f"- {escaped(what)}" for what in report["remains"]] or ["Nothing that this run made."]
    lines = _section("What remains on the hosts", [*remains, ""])
    by_hand = [f"- {escaped(f['why'])}: on {escaped(f['on'])}: {code(f['command'])}" for f in report["follow_up"]]
    lines += _section("By hand, afterwards", [*by_hand, ""]) if by_hand else []
    never = [f"- {escaped(what)}" for what in report["never_restored"]]
    lines += _section("What the snapshot did not bring back", [*never, ""]) if report["proof"] else []
    following = [f"- {code(command)}" for command in report["next"]]
    return lines + _section("Next", [*following, ""] if following else [])


def _timeline(report: Mapping[str, Any]) -> list[Sequence[object]]:
    return [(_clock(entry["at"], report), entry["epoch"], entry["text"]) for entry in report["timeline"]]


def _clock(stamp: str, report: Mapping[str, Any]) -> str:
    """A journal's time of day; with its day, where the run did not end on the day on which it began."""
    one_day = report["began"][:10] == report["ended"][:10]
    return stamp[11:23] if one_day else f"{stamp[:10]} {stamp[11:23]}"


def _time(stamp: str | None) -> str:
    """A journal's time, to the second."""
    return f"{stamp[:10]} {stamp[11:19]} UTC" if stamp else ""
