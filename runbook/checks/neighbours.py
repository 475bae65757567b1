"""Do the hosts reach each other where etcd's members will, and what do clients come through?"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from urllib.parse import urlsplit

from runbook.checks import Answers, Check, Finding, Severity, heard, places
from runbook.checks.members import own_status, statuses
from runbook.checks.words import is_node, listed, on, script
from runbook.plan import Node, Plan
from runbook.step import Binding, Command, Result, Target

PATIENCE = 3
"""Seconds for a connection between two hosts of one control plane."""

RESTARTING = 15.0
"""Seconds for which a port that is not reached is tried again."""

REACH = r"""
export LC_ALL=C
command -v bash > /dev/null || { echo none; exit 0; }
patience=$1
shift
while [ $# -gt 1 ]; do
  {
    said=$(timeout "$patience" bash -c 'exec 3<> "/dev/tcp/$0/$1"' "$1" "$2" 2>&1)
    code=$?
    printf '%s %s %s %s\n' "$code" "$1" "$2" "$(printf '%s' "$said" | tail -n 1 | tr '\n' ' ')"
  } &
  shift 2
done
wait
"""
"""Patience, then host and port in turns. Of each: bash's exit code (124: no answer in time), host, port, its words,
in English."""

REFUSED = "refused, though its etcd listened there just now: by a firewall?"


def _peers(node: Node) -> list[tuple[str, str]]:
    """Host and port of each peer URL; the loader has proven that they have both."""
    parts = [urlsplit(url) for url in node.peer_urls]
    return [(p.hostname or "", p.netloc.rpartition(":")[2]) for p in parts]


class PeerPorts(Check):
    """The hosts reach each other's peer ports."""

    order = 21

    def applies(self, plan: Plan) -> bool:
        """One node has no peers."""
        return len(plan.nodes) > 1

    def within(self, plan: Plan) -> float:
        """An etcd that is being restarted listens in one moment, and not in the next."""
        return RESTARTING

    def asks(self, n: Target) -> Sequence[Command]:
        """All at once, its own too, and whether its etcd lives: one that is not there refuses, which is an answer."""
        if not is_node(n):
            return ()
        words = [word for node in n.plan.nodes for pair in _peers(node) for word in pair]
        return [script(REACH, str(PATIENCE), *words), own_status(n)]

    def judge(self, plan: Plan, bound: Binding, answers: Answers) -> Iterator[Finding]:
        """Only between hosts that both answer: of a dead one everybody knows.

        That a port refuses is usual for a dead cluster. Where an etcd lives behind it, as its host or another one that
        gets through can tell, a firewall refuses, and it blocks, as where there is no route or no permission.
        """
        asked = list(heard(answers, plan.nodes))
        said = {node.name: _rows(reach) for node, (reach, _) in asked}
        open_ = {pair for rows in said.values() for pair, words in rows.items() if words[0] == "0"}
        open_ |= {pair for node, (_, status) in asked if statuses(status) for pair in _peers(node)}
        for node, (result, _) in asked:
            if result.out.strip() == "none":
                yield self.ok(node.name, "not tried: there is no bash")
                continue
            own = said[node.name]
            others = [(n.name, pair) for n, _ in asked if n.name != node.name for pair in _peers(n)]
            lost = [(n, pair, why) for n, pair in others if (why := _lost(own.get(pair), listens=pair in open_))]
            if lost:
                shown = listed(f"{name} at {':'.join(pair)} ({why})" for name, pair, why in lost)
                do = f"open the port in the firewalls between the hosts; try: {on(node, 'nc', '-vz', *lost[0][1])}"
                do += (
                    "; or is that etcd only starting? Then check again" if REFUSED in {why for *_, why in lost} else ""
                )
                yield self.blocks(node.name, f"cannot reach {shown}: the members would not meet", do)
            else:
                refused = [name for name, pair in others if own[pair][0] != "0"]
                but = (
                    f" (refused by {listed(refused)}: nothing listens there, or a firewall rejects)" if refused else ""
                )
                yield self.ok(
                    node.name, f"gets answers from {listed(dict.fromkeys(n for n, _ in others)) or 'nobody'}{but}"
                )


def _rows(reach: Result) -> dict[tuple[str, str], list[str]]:
    """What ``REACH`` said of each host and port."""
    rows = [words for line in reach.out.splitlines() if len(words := line.split(" ", 3)) > 2]
    return {(words[1], words[2]): words for words in rows}


def _lost(words: list[str] | None, *, listens: bool) -> str:
    """Why there is no way to a port; "" where there is one, or nothing listens there yet."""
    if not _answered(words):
        return _why(words)
    return REFUSED if listens and words is not None and words[0] != "0" else ""


def _answered(words: list[str] | None) -> bool:
    return words is not None and (words[0] == "0" or "refused" in words[-1])


def _why(words: list[str] | None) -> str:
    if words is None or words[0] == "124":
        return f"no answer in {PATIENCE} s"
    return words[-1].rpartition(": ")[2].strip() if len(words) > 3 else f"exit code {words[0]}"


SERVER = r"""
for f in "$@"; do
  [ -r "$f" ] && sed -n 's/^ *server: *//p' "$f" | tr -d "\"'"
done
:
"""


class ApiAddress(Check):
    """What clients reach the API through does not hang on the cluster itself."""

    at_first = True
    severity, order = Severity.WARNS, 33

    def asks(self, n: Target) -> Sequence[Command]:
        """The kubelet's way to the API, and the administrator's."""
        return [script(SERVER, "/etc/kubernetes/kubelet.conf", n.node.paths.kubeconfig)] if is_node(n) else ()

    def judge(self, plan: Plan, bound: Binding, answers: Answers) -> Iterator[Finding]:
        """A virtual IP or load balancer is down with the API, and some of them need it to come back."""
        own = {"localhost", "127.0.0.1", "::1"}
        for place in places(plan):
            own |= {place.name, place.host}
        for node in plan.nodes:
            own |= {urlsplit(u).hostname or "" for u in (*node.peer_urls, *node.client_urls)}
        fronts: dict[str, list[str]] = {}
        read = False
        for node, (result,) in heard(answers, plan.nodes):
            servers = result.out.split()
            read = read or bool(servers)
            for server in dict.fromkeys(servers):
                if (urlsplit(server).hostname or server) not in own:
                    fronts.setdefault(server, []).append(node.name)
        for server, hosts in fronts.items():
            saw = f"clients on {listed(hosts)} reach the API through {server}: a virtual IP or a load balancer"
            do = (
                "it is down during the outage; afterwards see that it leads to all API servers again "
                "(one that takes its leader from the API itself, such as kube-vip, needs the API to come back)"
            )
            yield self.warns("", saw, do)
        if read and not fronts:
            yield self.ok("", "the hosts' own addresses, and nothing in front of them")
