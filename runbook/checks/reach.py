"""Can the hosts be reached, as root, and do they know each other's names and the time?"""

from __future__ import annotations

import ipaddress
import time
from collections.abc import Iterator, Mapping, Sequence
from urllib.parse import urlsplit

from runbook.checks import Answers, Check, Finding, Severity, heard, places
from runbook.checks.words import ask, is_node, listed, on, script
from runbook.plan import Node, Plan, Worker
from runbook.step import Binding, Command, Result, Target


def _advice(place: Node | Worker, text: str) -> str:
    """What to do about a connection that failed, from the transport's own words: the plan's key, and what to type."""
    low, known = text.lower(), place.ssh.known_hosts_file
    if "sudo" in low:
        return f"allow {place.ssh.user} `sudo -n` on {place.host} (NOPASSWD), or set spec.ssh.user: root"
    if "host key" in low or "known_hosts" in low or "known hosts" in low:
        port = f" -p {place.ssh.port}" if place.ssh.port != 22 else ""
        scan = f"ssh-keyscan{port} {place.host} >> {known}"
        if "has changed" in low:
            return "prove the new key on the host's console; only then remove the old one and add it, as told there"
        return f"is spec.ssh.knownHostsFile the right file? Then prove the key on the host's console, and: {scan}"
    if "authentication" in low or "permission denied" in low or "login" in low:
        return f"check spec.ssh.user and spec.ssh.identityFile; try: {on(place, 'true')}"
    return f"try: {on(place, 'true')}"


def _parted(place: Node | Worker, text: str) -> tuple[str, str]:
    """What the transport saw, and what it says to check: of several hosts the second is often the same.

    Of the transport's label, ``m3 (10.0.1.12:22)``, the address stays: the host is named beside it in every table.
    """
    saw, _, check = text.partition("; check ")
    label, colon, rest = saw.partition("): ")
    if colon and label.startswith(f"{place.name} ("):
        saw = f"{label.removeprefix(f'{place.name} (')}: {rest}"
    return saw, "" if not check or check.startswith("with: ") else f"check {check}; "


WORKER = "; or leave it out of spec.workers: nothing of the restore needs it, but its kubelet is not restarted"


def _or_without(check: Check, plan: Plan, answers: Answers) -> Mapping[str, str]:
    """What to do where silent nodes stay dead, by node."""
    silent = [n.name for n in plan.nodes for r in answers.get(n.name, ())[:1] if r.unknown and "no answer" in r.tail()]
    most = (len(plan.nodes) - 1) // 2
    if check.group != "preflight" or not most:
        return {}
    if len(silent) <= most:
        return {n: f"; where it stays dead: `runbook run`, or `resume`, with --without {n}" for n in silent}
    more = f"; a run goes on without {most} of {len(plan.nodes)} at most: boot {len(silent) - most} of {listed(silent)}"
    return dict.fromkeys(silent, f"{more}, then `runbook run`, or `resume`, with --without the other")


def _reached(check: Check, plan: Plan, answers: Answers) -> Iterator[Finding]:
    without = _or_without(check, plan, answers)
    for place in places(plan):
        spare = isinstance(place, Worker) and check.group == "preflight"
        say, more = (check.warns, WORKER) if spare else (check.blocks, "")
        for result in answers.get(place.name, ())[:1]:
            if result.unknown:
                saw, first = _parted(place, result.tail() or "no answer")
                more = without.get(place.name, more)
                yield say(place.name, saw, first + _advice(place, saw) + more)
            elif not result.ok:
                saw = f"commands cannot be run as root: {result.tail() or f'exit code {result.code}'}"
                yield say(place.name, saw, _advice(place, f"sudo {result.tail()}") + more)
            elif result.out.strip() != "0":
                saw = f"commands run with the user id {result.out.strip()}, not as root (0)"
                yield say(place.name, saw, _advice(place, "sudo") + more)
            else:
                yield check.ok(place.name, f"{place.ssh.user}@{place.host} answers, as root")


class Reachable(Check):
    """SSH answers, the host key is known, and commands run as root."""

    order, round = 0, 0

    def asks(self, n: Target) -> Sequence[Command]:
        """Whoever answers this has accepted the key and the sudo."""
        return [ask("id", "-u")]

    def judge(self, plan: Plan, bound: Binding, answers: Answers) -> Iterator[Finding]:
        """The one check that tells of a host that does not answer."""
        return _reached(self, plan, answers)


class StillReachable(Check):
    """Every host can still be reached."""

    group, order, round = "verify", 0, 0

    def within(self, plan: Plan) -> float:
        """A host may be busy for a moment."""
        return plan.timeouts.command

    def asks(self, n: Target) -> Sequence[Command]:
        """As before the restore."""
        return [ask("id", "-u")]

    def judge(self, plan: Plan, bound: Binding, answers: Answers) -> Iterator[Finding]:
        """As before the restore."""
        return _reached(self, plan, answers)


class Clocks(Check):
    """The hosts' clocks agree with this machine's within a second."""

    severity, order, round = Severity.WARNS, 15, 1
    limit = 1.0

    def asks(self, n: Target) -> Sequence[Command]:
        """Seconds since the epoch, with nanoseconds."""
        return [ask("date", "+%s.%N")]

    def look(self, plan: Plan, bound: Binding) -> Sequence[Result]:
        """The time here, just before the hosts are asked."""
        return [Result(0, repr(time.time()))]

    def judge(self, plan: Plan, bound: Binding, answers: Answers) -> Iterator[Finding]:
        """Etcd's leases and the certificates' dates hang on it; etcd itself warns above one second."""
        here, took = float(answers[""][0].out), answers[""][0].seconds
        for place, (result,) in heard(answers, places(plan)):
            try:
                off = float(result.out) - here
            except ValueError:
                yield self.warns(
                    place.name, f"`date` said {result.out.strip() or result.tail()!r}", "look at its clock"
                )
                continue
            # The host was asked between `here` and the end of the round trip: only what that cannot explain counts.
            if off < -self.limit or off - took > self.limit:
                saw = f"its clock is {abs(off):.1f} s {'behind' if off < 0 else 'ahead of'} this machine's"
                yield self.warns(place.name, saw, f"check time on both: {on(place, 'timedatectl')}; timedatectl")
            else:
                yield self.ok(place.name, f"within {self.limit:g} s of this machine's")


RESOLVE = r"""
for name in "$@"; do
  getent hosts "$name" > /dev/null || echo "$name"
done
"""


class PeerNames(Check):
    """Every host can resolve the names in the members' peer URLs."""

    order = 20

    def applies(self, plan: Plan) -> bool:
        """Only where there are names."""
        return bool(_names(plan))

    def asks(self, n: Target) -> Sequence[Command]:
        """Those that the host's own resolver does not know."""
        return [script(RESOLVE, *_names(n.plan))] if is_node(n) else ()

    def judge(self, plan: Plan, bound: Binding, answers: Answers) -> Iterator[Finding]:
        """A member that cannot find its peers waits for ever."""
        for node, (result,) in heard(answers, plan.nodes):
            if not result.ok:
                yield self.blocks(node.name, f"names could not be looked up: {result.tail()}", "look at the host")
            elif result.out.strip():
                unknown = listed(result.out.split())
                yield self.blocks(node.name, f"cannot resolve {unknown}", f"add to its DNS or /etc/hosts: {unknown}")
            else:
                yield self.ok(node.name, f"resolves {listed(_names(plan))}")


def _names(plan: Plan) -> list[str]:
    hosts = dict.fromkeys(urlsplit(url).hostname or "" for n in plan.nodes for url in n.peer_urls)
    return [h for h in hosts if not _is_address(h)]


def _is_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True
