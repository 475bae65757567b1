"""The static pod manifests of each host: are they there, and do they say what the plan says?"""

from __future__ import annotations

import base64
import posixpath
from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from urllib.parse import urlsplit

from runbook import parse
from runbook.checks import Answers, Check, Finding, heard
from runbook.checks.words import is_node, listed, on, script
from runbook.plan import Node, Plan
from runbook.step import Binding, Command, Target

FOUR = {
    "etcd.yaml": "etcd",
    "kube-apiserver.yaml": "kube-apiserver",
    "kube-controller-manager.yaml": "kube-controller-manager",
    "kube-scheduler.yaml": "kube-scheduler",
}
"""kubeadm's static pods, and the program in each."""

READ = r"""
cd -- "$1" || exit 3
for f in *; do
  [ -e "$f" ] || [ -L "$f" ] || continue
  if [ -d "$f" ]; then kind=directory
  elif [ -f "$f" ] && [ -r "$f" ]; then kind=file
  else kind=other
  fi
  printf '%s %s ' "$kind" "$(printf '%s' "$f" | base64 -w 0)"
  if [ "$kind" = file ]; then head -c 1048576 -- "$f" | base64 -w 0; fi
  printf '\n'
done
"""
"""Every name that does not begin with a dot, as the kubelet's own glob: kind, name and content, in base64."""


def read_all(n: Target) -> Command:
    """The whole manifests directory in one question; several checks ask it, and it is run once."""
    return script(READ, n.node.paths.manifests)


@dataclass(frozen=True)
class File:
    """One entry of the manifests directory; ``pod`` is None where it is no static pod, ``why`` says why not."""

    name: str
    kind: str
    text: str
    pod: parse.StaticPod | None
    why: str = ""


def files(text: str) -> dict[str, File]:
    """What :data:`READ` printed, by name; ParseError where it was cut off."""
    found = {}
    for line in text.splitlines():
        words = line.split()
        if len(words) not in (2, 3):
            raise parse.ParseError(f"the manifests could not be read: {line[:80]!r}")
        try:
            name, body = (base64.b64decode(w, validate=True).decode(errors="replace") for w in [*words, ""][1:3])
        except ValueError as error:
            raise parse.ParseError(f"the manifests could not be read: {error}") from None
        found[name] = _file(name, words[0], body)
    return found


def _file(name: str, kind: str, text: str) -> File:
    if kind != "file":
        return File(name, kind, "", None, "a directory" if kind == "directory" else "not a readable file")
    try:
        return File(name, kind, text, parse.manifest(text))
    except parse.ParseError as error:
        return File(name, kind, text, None, str(error))


def etcd_pods(plan: Plan, answers: Answers, index: int = 0) -> Mapping[str, parse.StaticPod]:
    """Each host's etcd.yaml, where it can be read; for other checks that asked :func:`read_all`."""
    pods = {}
    for node, results in heard(answers, plan.nodes):
        try:
            found = files(results[index].out).get("etcd.yaml")
        except parse.ParseError:
            continue
        if found and found.pod:
            pods[node.name] = found.pod
    return pods


class _OnManifests(Check):
    """A check that only needs the manifests."""

    def asks(self, n: Target) -> Sequence[Command]:
        """The whole directory."""
        return [read_all(n)] if is_node(n) else ()

    def judge(self, plan: Plan, bound: Binding, answers: Answers) -> Iterator[Finding]:
        """Each host by itself."""
        for node, (result,) in heard(answers, plan.nodes):
            try:
                found = files(result.out) if result.ok else None
            except parse.ParseError:
                found = None
            if found is not None:
                yield from self.host(plan, node, found)
            elif isinstance(self, Manifests):
                saw = f"{node.paths.manifests} cannot be read: {result.tail() or 'its listing was cut off'}"
                do = "correct spec.paths.manifests (the kubelet's staticPodPath)"
                yield self.blocks(node.name, saw, do)

    @abstractmethod
    def host(self, plan: Plan, node: Node, found: Mapping[str, File]) -> Iterator[Finding]:
        """What one host's files say."""


class Manifests(_OnManifests):
    """The four manifests are there and can be read."""

    order = 25

    def host(self, plan: Plan, node: Node, found: Mapping[str, File]) -> Iterator[Finding]:
        """They are what is parked and given back; each must hold the program of its name."""
        bad = []
        for name, program in FOUR.items():
            file = found.get(name)
            if file is None:
                bad.append(f"{name} is missing")
            elif file.pod is None:
                bad.append(f"{name}: {file.why}")
            elif file.pod.main.program != program:
                bad.append(f"{name} runs {file.pod.main.program or 'its image’s own entry point'}, not {program}")
        if bad:
            do = f"put kubeadm's manifests in place: {on(node, 'ls', '-la', node.paths.manifests)}"
            yield self.blocks(node.name, f"{node.paths.manifests}: {'; '.join(bad)}", do)
        else:
            yield self.ok(node.name, f"all four in {node.paths.manifests}")


class OtherManifests(_OnManifests):
    """No other manifest runs an etcd or an API server."""

    order = 26

    def host(self, plan: Plan, node: Node, found: Mapping[str, File]) -> Iterator[Finding]:
        """The kubelet takes every file without a leading dot for a manifest, ``etcd.yaml.bak`` too."""
        second: list[str] = []
        extra: list[str] = []
        for file in found.values():
            if file.name in FOUR or file.kind == "directory":
                continue
            if file.pod is None:
                # The kubelet's parser may be more lenient than ours: what smells of a second etcd is treated as one.
                smells = any(word in file.text for word in ("etcd", "kube-apiserver"))
                (second if smells else extra).append(f"{file.name} ({file.why})")
            elif file.pod.runs("etcd") or file.pod.runs("kube-apiserver"):
                second.append(f"{file.name} ({file.pod.container})")
            else:
                extra.append(f"{file.name} (pod {file.pod.name})")
        if second:
            where = f"in {node.paths.manifests}: {listed(second)}"
            name = second[0].split(" (")[0]
            do = f"move it out: {on(node, 'mv', f'{node.paths.manifests}/{name}', '/root/')}"
            yield self.blocks(node.name, f"a second etcd or API server manifest {where}", do)
        if extra:
            saw = f"other files in {node.paths.manifests}, which are left alone: {listed(extra)}"
            yield self.warns(node.name, saw, "make sure that none of them needs etcd or the API server")
        if not second and not extra:
            yield self.ok(node.name, "no other static pod")


class EtcdManifest(_OnManifests):
    """Each etcd.yaml agrees with the plan: name, URLs, directories, certificates."""

    order = 27

    def host(self, plan: Plan, node: Node, found: Mapping[str, File]) -> Iterator[Finding]:
        """Every difference at once: the steps use the plan's values, etcd its manifest's."""
        file = found.get("etcd.yaml")
        if file is None or file.pod is None or file.pod.main.program != "etcd":
            return  # the check of the four manifests says so
        differ = list(_differences(node, file.pod))
        if differ:
            yield self.blocks(node.name, "; ".join(differ), "correct the plan, or that host's etcd.yaml")
        else:
            yield self.ok(node.name, f"member {node.name} at {listed(node.peer_urls)}, data in {node.paths.data_dir}")


def _differences(node: Node, pod: parse.StaticPod) -> Iterator[str]:
    def told(what: str, manifest: object, plan: object) -> str:
        return f"{what} is {manifest or 'not set'} in etcd.yaml, {plan or 'not set'} in the plan"

    if pod.flag("name") != node.name:
        yield told("--name", pod.flag("name"), node.name)
    if sorted(pod.urls("initial-advertise-peer-urls")) != sorted(node.peer_urls):
        yield told("--initial-advertise-peer-urls", pod.flag("initial-advertise-peer-urls"), ",".join(node.peer_urls))
    if not set(node.client_urls) <= set(pod.urls("advertise-client-urls")):
        yield told("--advertise-client-urls", pod.flag("advertise-client-urls"), ",".join(node.client_urls))
    for flag, urls in (("listen-peer-urls", node.peer_urls), ("listen-client-urls", node.client_urls)):
        missing = {urlsplit(u).port for u in urls} - {urlsplit(u).port for u in pod.urls(flag)}
        if missing:
            ports = listed(sorted(str(port) for port in missing))
            yield f"--{flag} is {pod.flag(flag) or 'not set'}, without the plan's port {ports}, which is waited for"
    yield from _directories(node, pod)
    certificates = (
        ("cert-file", node.paths.etcd_cert),
        ("key-file", node.paths.etcd_key),
        ("trusted-ca-file", node.paths.etcd_ca),
    )
    for flag, planned in certificates:
        inside = pod.flag(flag)
        outside = pod.on_host(inside) if inside else None
        if outside is None and inside:
            yield f"--{flag} is {inside}, which no host path is mounted at"
        elif outside != planned:
            yield told(f"the host's path of --{flag}", outside, planned)


def _directories(node: Node, pod: parse.StaticPod) -> Iterator[str]:
    pairs = (
        ("--data-dir", pod.flag("data-dir"), pod.data_dir, node.paths.data_dir, "dataDir"),
        ("--wal-dir", pod.flag("wal-dir"), pod.wal_dir, node.paths.wal_dir, "walDir"),
    )
    for flag, inside, outside, planned, key in pairs:
        if outside is None:
            yield f"{flag} is {inside or 'not set'}, where no host path is mounted: its data ends with the container"
        elif outside != (posixpath.normpath(planned) if planned else ""):
            yield (
                f"the host's path of {flag} is {outside or 'not set'} in etcd.yaml, {planned or 'not set'} in the plan "
                f"(paths.{key})"
            )


class ApiServerManifest(_OnManifests):
    """Each kube-apiserver.yaml serves port 6443 from its own host's etcd."""

    order = 28

    def host(self, plan: Plan, node: Node, found: Mapping[str, File]) -> Iterator[Finding]:
        """Another port, or an external etcd, is a topology that this procedure does not know."""
        file = found.get("kube-apiserver.yaml")
        if file is None or file.pod is None or file.pod.main.program != "kube-apiserver":
            return
        port = file.pod.flag("secure-port", "6443")
        servers = file.pod.urls("etcd-servers")
        own = {"127.0.0.1", "localhost", "::1", *(urlsplit(u).hostname for u in node.client_urls)}
        foreign = [u for u in servers if _host(u) not in own]
        if port != "6443":
            saw = f"--secure-port is {port}; only kubeadm's 6443 is supported"
            yield self.blocks(node.name, saw, "this host cannot be restored with runbook as it is")
        bound = file.pod.flag("bind-address", "0.0.0.0")  # noqa: S104 - what kubeadm's API servers do
        if bound not in ("0.0.0.0", "::", "127.0.0.1"):  # noqa: S104
            saw = f"--bind-address is {bound}: nothing answers on 127.0.0.1:6443, where each host is asked"
            yield self.blocks(node.name, saw, "this host cannot be restored with runbook as it is")
            return
        if not servers:
            yield self.blocks(node.name, "--etcd-servers is not set", "correct kube-apiserver.yaml")
        elif foreign:
            saw = f"--etcd-servers has {listed(foreign)}, not this host's own member: an external etcd is not supported"
            yield self.blocks(node.name, saw, "restore an external etcd with its own tools, or correct the manifest")
        if port == "6443" and servers and not foreign:
            yield self.ok(node.name, "port 6443, its own member")


def _host(url: str) -> str | None:
    try:
        return urlsplit(url if "//" in url else f"//{url}").hostname
    except ValueError:
        return None
