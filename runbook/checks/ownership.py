"""Owner, mode and SELinux label of the data: what the restored data will be given is what etcd can work with."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from runbook.checks import Answers, Check, Finding, heard
from runbook.checks.manifests import etcd_pods, read_all
from runbook.checks.words import is_node, on, script
from runbook.plan import Plan
from runbook.step import Binding, Command, Target

LOOK = r"""
d=$1
[ -d "$d" ] || exit 0
echo "owner $(stat -L -c '%u %g %a' -- "$d")"
[ -d "$d/member" ] && echo "member $(stat -L -c '%u %g %a' -- "$d/member")"
if command -v selinuxenabled > /dev/null && selinuxenabled; then
  echo "label $(stat -L -c %C -- "$d")"
  command -v chcon > /dev/null || echo no-chcon
fi
:
"""


class Ownership(Check):
    """The data's owner, mode and label are such that etcd can work with them."""

    order = 64

    def asks(self, n: Target) -> Sequence[Command]:
        """The directory that the new data is made like, and the manifest that says who etcd runs as."""
        return [script(LOOK, n.node.paths.data_dir), read_all(n)] if is_node(n) else ()

    def judge(self, plan: Plan, bound: Binding, answers: Answers) -> Iterator[Finding]:
        """With ``owner: keep`` the old data's owner is taken over, right or wrong."""
        pods = etcd_pods(plan, answers, 1)
        for node, (result, _) in heard(answers, plan.nodes):
            facts = dict(line.partition(" ")[::2] for line in result.out.splitlines())
            path, pod = node.paths.data_dir, pods.get(node.name)
            runs_as = pod.user if pod and pod.user is not None else 0
            owner = (facts.get("member") or facts.get("owner") or "").split()
            wrong = False
            if "no-chcon" in facts:
                wrong = True
                saw = f"SELinux is on ({facts.get('label')}), and there is no chcon to give the new data its label"
                yield self.blocks(
                    node.name, saw, f"install coreutils with SELinux there: {on(node, 'ls', '-lZ', path)}"
                )
            if len(owner) == 3 and owner[0] != str(runs_as) and runs_as != 0 and plan.owner == "keep":
                wrong = True
                saw = f"etcd.yaml runs etcd as user {runs_as}, {path} belongs to {owner[0]}: so would the new data"
                yield self.warns(node.name, saw, f"set spec.restore.owner, such as {runs_as}:{runs_as}")
            mode = facts.get("owner", "").split()[-1:]
            if mode and mode[0][-2:] != "00":
                wrong = True
                saw = f"{path} has the mode {mode[0]}: others can reach the cluster's Secrets; etcd makes it 700"
                yield self.warns(node.name, saw, f"afterwards: {on(node, 'chmod', '700', path)}")
            if not wrong and facts:
                label = f", label {facts['label']}" if "label" in facts else ""
                yield self.ok(node.name, f"{path} belongs to {':'.join(owner[:2])}, as etcd runs{label}")
