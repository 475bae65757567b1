"""The programs on the hosts: are they there, can they do what the steps ask of them, and do their versions fit?"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence

from runbook import kube, parse
from runbook.checks import Answers, Check, Finding, heard, places
from runbook.checks.words import ask, is_node, listed, on, script
from runbook.etcdversions import BUMP_SINCE, Version, better, dots, faults
from runbook.plan import Node, Plan
from runbook.step import Binding, Command, Result, Target

COMMON = (
    *(
        "sh",
        "setsid",
        "timeout",
        "flock",
        "install",
        "touch",
        "rm",
        "cat",
        "date",
        "stat",
        "mkdir",
        "rmdir",
        "systemctl",
    ),
    *("sync", "mv", "head", "tail"),
)
NODES = (
    *(
        "crictl",
        "kubectl",
        "ss",
        "cp",
        "cmp",
        "ln",
        "ls",
        "find",
        "chown",
        "chmod",
        "nice",
        "ionice",
        "grep",
        "sed",
        "tr",
    ),
    *("od", "base64", "getent", "mountpoint", "openssl|sha256sum"),
)

MISSING = r"""
set -f
IFS='|'
for tool in "$@"; do
  found=
  for name in $tool; do
    if command -v "$name" > /dev/null 2>&1; then found=1; fi
  done
  [ -n "$found" ] || printf '%s\n' "$tool"
done
:
"""
"""Names the tools that are not there; ``a|b`` is there when either is."""

OPTIONS = r"""
export LC_ALL=C
mv --help 2>&1 | grep -q -e '--no-target-directory' || echo 'mv -T'
cp --help 2>&1 | grep -q -e '--archive' || echo 'cp -a'
sync --help 2>&1 | grep -q -e 'FILE' || echo 'sync FILE'
if [ "$1" = node ]; then
  chown --help 2>&1 | grep -q -e '--reference' || echo 'chown --reference'
  chmod --help 2>&1 | grep -q -e '--reference' || echo 'chmod --reference'
fi
"""
"""Names the options that the tools do not have: BusyBox's lack some of GNU's."""


class Tools(Check):
    """The programs that the steps call are on every host."""

    order = 10

    def asks(self, n: Target) -> Sequence[Command]:
        """The missing ones, the missing options."""
        wanted: tuple[str, ...] = COMMON
        if is_node(n):
            wanted += NODES
            if not n.plan.tools.upload:
                wanted += (n.plan.tools.etcdctl, n.plan.tools.etcdutl)
        return [script(MISSING, *wanted), script(OPTIONS, "node" if is_node(n) else "worker")]

    def judge(self, plan: Plan, bound: Binding, answers: Answers) -> Iterator[Finding]:
        """What is missing; for etcd's own two tools, how they can be brought along."""
        for place, (missing, options) in heard(answers, places(plan)):
            gone = missing.out.split() + [line for line in options.out.splitlines() if line]
            if not missing.ok or not options.ok:
                saw = f"the tools could not be looked for: {(missing if not missing.ok else options).tail()}"
                yield self.blocks(place.name, saw, f"look at the host: {on(place, 'sh', '-c', 'echo $PATH')}")
            elif gone:
                etcd = {plan.tools.etcdctl, plan.tools.etcdutl} & set(gone)
                do = "install them there" if set(gone) - etcd else ""
                if etcd:
                    hint = "set spec.tools.upload to a directory with etcdctl and etcdutl of the cluster's version"
                    do = f"{do}; {hint}" if do else f"install {listed(sorted(etcd))}, or {hint}"
                yield self.blocks(place.name, f"missing: {listed(gone)}", do)
            else:
                yield self.ok(place.name, "all tools there")


class EtcdTools(Check):
    """Etcdctl and etcdutl have the options that the restore needs."""

    order = 11

    def asks(self, n: Target) -> Sequence[Command]:
        """Their own help says it; etcdctl is called with all its flags, since an ETCDCTL_… variable may forbid them."""
        if not is_node(n) or n.plan.tools.upload:
            return ()
        return [
            ask(n.plan.tools.etcdutl, "snapshot", "restore", "--help"),
            kube.etcdctl(n, "endpoint", "hashkv", "--help"),
            kube.etcdctl(n, "version"),
        ]

    def local(self, plan: Plan, bound: Binding) -> Sequence[Command]:
        """The same of the tools that are brought along, as far as they run here."""
        if not plan.tools.upload:
            return ()
        etcdctl, etcdutl = (str(plan.tools.upload / name) for name in ("etcdctl", "etcdutl"))
        return [
            ask(etcdutl, "snapshot", "restore", "--help"),
            ask(etcdctl, "endpoint", "hashkv", "--help"),
            ask(etcdctl, "version"),
        ]

    def look(self, plan: Plan, bound: Binding) -> Sequence[Result]:
        """Which of the tools to bring along are no executable files."""
        if not plan.tools.upload:
            return ()
        files = [plan.tools.upload / name for name in ("etcdctl", "etcdutl")]
        bad = [str(f) for f in files if not (f.is_file() and os.access(f, os.X_OK))]
        return [Result(0, "\n".join(bad))]

    def judge(self, plan: Plan, bound: Binding, answers: Answers) -> Iterator[Finding]:
        """Without the bump's flags a restore to an old revision would leave every watch stale."""
        if plan.tools.upload:
            *asked, bad = answers[""]
            if bad.out:
                do = f"put both there, executable: chmod +x {plan.tools.upload}/etcd*"
                yield self.blocks("", f"no executable file: {listed(bad.out.split(chr(10)))}", do)
            elif any(r.code in (126, 127) for r in asked):
                saw = f"the tools in {plan.tools.upload} do not run on this machine, so their options are not known"
                yield self.warns("", saw, "make sure that they are of the cluster's version")
            else:
                yield self._one(plan, "", asked)
        for node, results in heard(answers, plan.nodes):
            yield self._one(plan, node.name, results)

    def _one(self, plan: Plan, host: str, results: Sequence[Result]) -> Finding:
        restore, hashkv, version = results
        wanted = ["--initial-cluster-token", "--initial-advertise-peer-urls", "--skip-hash-check"]
        if plan.cluster.bump_revision:
            wanted += ["--bump-revision", "--mark-compacted"]
        lacks = [w for w in wanted if w not in restore.out + restore.err]
        do = "bring etcdctl and etcdutl of the cluster's newest patch release: spec.tools.upload"
        if len(lacks) == len(wanted):
            return self.blocks(host, f"`etcdutl snapshot restore --help` says: {restore.tail()}", do)
        if lacks:
            old = f" (etcdutl has them since {dots(BUMP_SINCE)})" if plan.cluster.bump_revision else ""
            return self.blocks(host, f"etcdutl snapshot restore has no {listed(lacks)}{old}", do)
        if "--rev" not in hashkv.out + hashkv.err:
            return self.blocks(host, f"etcdctl endpoint hashkv has no --rev: {hashkv.tail()}", do)
        if not version.ok:
            advice = "try it on the host; an ETCDCTL_… variable in root's environment is one reason"
            return self.blocks(host, f"etcdctl fails: {version.tail()}", advice)
        return self.ok(host, "etcdutl and etcdctl have all options")


class EtcdVersion(Check):
    """The tools and the running etcd are of one version, and not of a known bad one."""

    order = 12

    def asks(self, n: Target) -> Sequence[Command]:
        """What the manifest's image says, what the member says, what the tools say."""
        if not is_node(n):
            return ()
        etcd_yaml = ask("cat", "--", f"{n.node.paths.manifests}/etcd.yaml")
        member = kube.etcdctl(n, "endpoint", "status", "-w", "json", timeout=5, early=True)
        tools = (
            () if n.plan.tools.upload else (ask(n.plan.tools.etcdutl, "version"), ask(n.plan.tools.etcdctl, "version"))
        )
        return [etcd_yaml, member, *tools]

    def local(self, plan: Plan, bound: Binding) -> Sequence[Command]:
        """The versions of the tools that are brought along."""
        return [ask(str(plan.tools.upload / t), "version") for t in ("etcdutl", "etcdctl")] if plan.tools.upload else ()

    def judge(self, plan: Plan, bound: Binding, answers: Answers) -> Iterator[Finding]:
        """Restore with the major and minor version that will run on the data."""
        brought = [_tool_version(r) for r in answers[""]]
        told: dict[str, Version] = {}
        guessed: dict[str, Version] = {}
        for node, (text, status, *own) in heard(answers, plan.nodes):
            asked = _member_version(status)
            server = asked or _image_version(text)
            tools = [v for v in (brought if plan.tools.upload else map(_tool_version, own)) if v]
            if server is None:
                do = f"compare by hand: {on(node, plan.tools.etcdutl, 'version')}"
                yield self.warns(node.name, "neither the manifest's image nor a member tells etcd's version", do)
                continue
            (told if asked else guessed)[node.name] = server
            yield self._one(node, server, tools, "" if asked else " by its manifest's image")
        running = told or guessed  # an image's tag may be older than the program in it
        if len(set(running.values())) > 1:
            shown = listed(f"{host} {dots(v)}" for host, v in running.items())
            yield self.warns("", f"the hosts run different versions of etcd: {shown}", "finish the upgrade afterwards")

    def _one(self, node: Node, server: Version, tools: Sequence[Version], how: str) -> Finding:
        other = [t for t in tools if t[:2] != server[:2]]
        if other:
            saw = f"the tools are {listed(sorted(set(map(dots, other))))}, etcd is {dots(server)}{how}"
            do = f"bring etcdctl and etcdutl {server[0]}.{server[1]}: spec.tools.upload"
            return self.blocks(node.name, saw, do)
        if bad := faults(server, *tools):
            saw = f"etcd {dots(server)}{how}: {'; '.join(bad)}"
            return self.warns(node.name, saw, f"afterwards upgrade to {better(server)}")
        return self.ok(node.name, f"etcd and its tools are {server[0]}.{server[1]} (etcd {dots(server)}{how})")


def _tool_version(result: Result) -> Version | None:
    try:
        return parse.version(result.out)
    except parse.ParseError:
        return None


def _member_version(status: Result) -> Version | None:
    """The member's own word."""
    try:
        return next(
            (parse.version(f"etcd version: {seen.version}") for seen in parse.endpoint_status(status.out)), None
        )
    except parse.ParseError:
        return None


def _image_version(text: Result) -> Version | None:
    """By the image's tag: ``3.5.16-0`` is etcd 3.5.16."""
    try:
        return parse.version(f"etcd version: {parse.manifest(text.out).version}")
    except parse.ParseError:
        return None
