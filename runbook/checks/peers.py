"""Does a member live that only some host's etcd.yaml knows?

The members that answer list each other; where the planned ones are dead, nobody does. But kubeadm wrote the members of
the time into each etcd.yaml, and one of three restored alone, beside two that live, makes two clusters.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from runbook import kube
from runbook.checks import Answers, Check, Finding, heard
from runbook.checks.words import is_node, listed, script
from runbook.plan import Plan
from runbook.step import Binding, Command, Target

EACH = 4.0
"""Seconds for one peer to answer."""

LOOK = r"""
set -u
file=$1
known=" $2 "
shift 2
[ -r "$file" ] || exit 0
named=$(sed -n 's/^ *- *"\{0,1\}--initial-cluster=//p' "$file" | tr -d '"' | tr , ' ')
for peer in $named; do
  url=${peer#*=}
  case $known in *" $url "*) continue ;; esac
  if "$@" "--endpoints=${url%:*}:2379" endpoint status > /dev/null 2>&1; then
    echo "living ${peer%%=*} $url"
  else
    echo "silent ${peer%%=*} $url"
  fi
done
"""
"""etcd.yaml, planned peer URLs, etcdctl words without endpoints. A peer's client URL is its own, on etcd's port."""


class Peers(Check):
    """Every member that an etcd.yaml names is in the plan, or is gone."""

    at_first = True
    order = 32

    def asks(self, n: Target) -> Sequence[Command]:
        """Each host asks those that its own manifest names."""
        if not is_node(n):
            return ()
        planned = " ".join(url for node in n.plan.nodes for url in node.peer_urls)
        status = kube.etcdctl(n, timeout=EACH, early=True).words()
        words = [word for word in status if not word.startswith("--endpoints=")]
        manifest = f"{n.node.paths.manifests}/etcd.yaml"
        return [script(LOOK, manifest, planned, *words, timeout=EACH * 5)]

    def judge(self, plan: Plan, bound: Binding, answers: Answers) -> Iterator[Finding]:
        """A peer that answers any host lives; a member of the same name has changed its address, and is planned."""
        names = {node.name for node in plan.nodes}
        seen: dict[str, dict[str, list[str]]] = {"living": {}, "silent": {}}
        for node, (result,) in heard(answers, plan.nodes):
            for how, name, url in (line.split() for line in result.out.splitlines() if len(line.split()) == 3):
                if how == "living" or name not in names:
                    seen[how].setdefault(f"{name} at {url}", []).append(node.name)
        for who, hosts in seen["living"].items():
            saw = f"member {who}, which etcd.yaml of {listed(hosts)} names, lives and is not in the plan"
            yield self.blocks("", saw, "add it to spec.nodes; restored beside it, this would be a second cluster")
        for who, hosts in seen["silent"].items():
            if who not in seen["living"]:
                saw = f"etcd.yaml of {listed(hosts)} names the member {who}, which is not in the plan, nor answers"
                yield self.warns(
                    "", saw, "make sure that it is gone for good, and does not come back with the old data"
                )
        if not seen["living"] and not seen["silent"]:
            yield self.ok("", "the manifests name no other member")
