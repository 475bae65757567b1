"""Another run holds a host: which, whose, since when, its last sign of life; in words, and as the error of exit code 6.

While it does, nothing else that looks wrong on the hosts says anything: it may be that run's own work.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from runbook.errors import NOTE, Held, command
from runbook.plan import Node, Paths, Worker
from runbook.tables import duration, stamp
from runbook.transport import LOCK

if TYPE_CHECKING:
    from runbook.checks.locks import Holder
    from runbook.step import Target
    from runbook.transport import Hosts

_RAW = re.compile(
    r"(?:another run holds this host: )?" + re.escape(LOCK) + r" (?:names another run:|says) (\{[^{}]*\})"
)
MEANS = (
    "the cluster may be in the outage of that run, and what else looks wrong on the hosts may be its work; "
    "two runs at once would destroy each other's"
)


def in_words(text: str) -> str:
    """The text with every lock that it shows as the host has it, a line of JSON, told in words."""
    return _RAW.sub(lambda raw: _told(raw[1]) or raw[0], text) if LOCK in text else text


def _told(line: str) -> str:
    found = _holder(line)
    return f"another run holds it: {described(found)}" if found else ""


def _holder(line: str) -> Holder | None:
    """Who holds a host, by the lock's one line; None where that does not say."""
    from runbook.checks.locks import holder

    found = holder(f"\nlock {line}")
    return found if found and found.run else None


def described(found: Holder) -> str:
    """Who holds a host."""
    since = f", since {stamp(found.since)}" if found.since else ""
    return f"{found.run}, by {found.holder or 'nobody named'}{since}{_life(found)}"


def _life(found: Holder) -> str:
    if not found.life:
        return ""
    ago = f" ({duration(max(0.0, round(found.ago)))} ago)" if found.ago is not None else ""
    return f", last sign of life {stamp(found.life)}{ago}"


def look(hosts: Hosts, nodes: Sequence[Target]) -> dict[str, Holder]:
    """Who holds each of these hosts now, as far as they answer; a host that nobody holds is not among them."""
    from runbook.checks.locks import READ, holder
    from runbook.checks.words import script

    answers = hosts.ask({n.name: [script(READ, LOCK, n.place.paths.workspace)] for n in nodes})
    found = {host: holder(result.out) for host, (result,) in answers.items() if result.ok}
    return {host: who for host, who in found.items() if who}


def by_another(hosts: Hosts, nodes: Sequence[Target], saw: Mapping[str, str], *, true: str, again: str = "") -> Held:
    """The error. The hosts are asked once more, for the holder's last sign of life.

    ``saw`` is what was seen of the lock, by host; ``true`` is what the caller has or has not changed; ``again`` is
    what to type once the other run has ended, which is said of it where it has no note of its own.
    """
    concerned = [n for n in nodes if n.name in saw]
    found = look(hosts, concerned)
    for host, text in saw.items():
        seen = _RAW.search(text)
        before = _holder(seen[1]) if seen and host not in found else None
        found |= {host: before} if before else {}
    of_run: dict[str, list[str]] = {}
    for host in saw:
        of_run.setdefault(found[host].run if host in found else "", []).append(host)
    told, next_ = [], []
    for run, names in of_run.items():
        if run:
            # The newest sign of life counts: a run may be waiting for one host, and at work on another.
            who = min((found[h] for h in names), key=lambda f: f.ago if f.ago is not None else float("inf"))
            told.append(f"another run holds {', '.join(names)}: {described(who)}")
            next_ += _advice(who, [n for n in concerned if n.name in names])
        else:
            told += [f"{host} is locked: {saw[host]}" for host in names]
            next_ += [_removal(n) for n in concerned if n.name in names and n.name in found]
    if again:
        next_.append(again if NOTE in again else f"{again}{NOTE}once that run has ended")
    return Held("; ".join(told), true=true, means=MEANS, next=next_)


def _advice(who: Holder, nodes: Sequence[Target]) -> list[str]:
    """What to type about a run that holds these hosts: here, where it is known; else there, or to take it over."""
    from runbook import runs, situation
    from runbook.errors import RunbookError

    mine = next((r for r in runs.all_runs() if r.id == who.run), None)
    if mine is None:
        ask = f"ask {who.holder or 'around'}; on that machine: runbook status {who.run}"
        here = adoption(nodes[0].place, who.run, who.workspace)
        return [ask, f"{here}{NOTE}only where that machine is lost: takes its run over here"]
    status = f"runbook status {who.run}"
    engine = mine.engine()
    if engine:
        return [f"{status}{NOTE}{engine} is at work on it"]
    try:
        past = mine.replay()
    except RunbookError:  # damaged: `status` tells how
        return [status]
    if past.closed:
        return [*(_removal(n, "that run is closed, and left its lock there") for n in nodes), status]
    return [status, *(c for c in situation.advice(past, who.run) if " report " not in c)]


def adoption(place: Node | Worker, run: str, workspace: str = "", *, without: str = "") -> str:
    """The command that takes a run over, by this host of it, with the plan's login; ``without`` one of its options.

    ``workspace`` is where that run's directories lie on its hosts, where it is known; else it is taken for the plan's.
    """
    ssh, host = place.ssh, place.host
    if ssh.port not in (0, 22):
        host = f"[{host}]:{ssh.port}" if ":" in host else f"{host}:{ssh.port}"
    workspace = workspace or place.paths.workspace
    options = {
        "--host": f"{ssh.user}@{host}",
        "--run": run,
        "--identity-file": str(ssh.identity_file or ""),
        "--known-hosts-file": str(ssh.known_hosts_file),
        "--jump": ssh.jump or "",
        "--workspace": workspace if workspace != Paths().workspace else "",
    }
    return command(("runbook", "adopt"), options | {without: ""})


def _removal(n: Target, why: str = "only once you know who made it") -> str:
    """For a lock that no command gives back: it names a closed run, or none, so that a person must say whose it is."""
    from runbook.checks.words import on

    return f"{on(n.place, 'rm', LOCK)}{NOTE}{why}"
