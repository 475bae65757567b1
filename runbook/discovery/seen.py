"""What each host of the command line said, as frozen data; and the three rounds in which it is asked.

A round is one trip to all hosts at once. The second needs what the first read of etcd.yaml, the third is spared to
hosts whose etcd or API server did not answer the second.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from urllib.parse import urlsplit

from runbook import parse
from runbook.checks import locks
from runbook.checks.members import statuses
from runbook.checks.words import script
from runbook.discovery import asks
from runbook.discovery.asks import Backup, Looked, Stat, Written
from runbook.plan import Node, Paths, Plan, Snapshot
from runbook.shape import ParseError, Shape, from_json, from_yaml
from runbook.step import Binding, Command, Result, Target
from runbook.tables import printable
from runbook.transport import Hosts

CERTIFICATES = {"etcd_ca": "trusted-ca-file", "etcd_cert": "cert-file", "etcd_key": "key-file"}
"""By the field of :class:`Paths`, etcd's flag."""
NO_TOOL = "no etcdctl there, nor one in its container that could be used"
"""Why a member could not be asked; it may well live."""
SAID = {
    "connection refused": "connection refused",
    "was refused": "connection refused",
    "context deadline exceeded": "no answer in time",
    "x509": "its certificate is refused (x509)",
    "no leader": "no leader",
}
"""What etcdctl and kubectl say in long lines, in short."""
LOCAL = ("127.0.0.1", "localhost", "::1")


@dataclass(frozen=True)
class Seen:
    """One host. ``silent``: why nothing is known of it; everything else is then empty.

    ``place`` is where it is reached, under the word of the command line. ``etcd_said`` and ``api_said`` are why its
    member and its API server did not answer, ``members_said`` why the member did not list the cluster. ``dead`` is the
    last revision in the data of a member that does not run, a lower bound; ``written`` the members that its data names.
    ``disk``: what lies at each path that was asked for, the snapshot's too.
    """

    place: Node
    silent: str = ""
    looked: Looked = field(default_factory=lambda: Looked({}, {}, {}))
    holder: locks.Holder | None = None
    disk: Mapping[str, Stat | None] = field(default_factory=dict)
    statuses: tuple[parse.EndpointStatus, ...] = ()
    etcd_said: str = ""
    nodes: tuple[parse.KubeNode, ...] = ()
    api_revision: int = 0
    api_said: str = ""
    members: parse.MemberList | None = None
    members_said: str = ""
    everyone: tuple[parse.EndpointStatus, ...] = ()
    dead: int | None = None
    written: tuple[Written, ...] = ()
    snapshot: int | None = None
    secrets: Mapping[str, int] = field(default_factory=dict)
    kubeadm: Mapping[str, str] = field(default_factory=dict)
    backups: tuple[Backup, ...] = ()

    @property
    def word(self) -> str:
        """What the person typed for it, without the user."""
        return self.place.name

    @property
    def machine(self) -> str:
        """The same for two names of one machine: its id and that of its boot, for clones share the first."""
        own = self.looked.words.get("machine", "/")
        return "" if own.startswith("/") or own.endswith("/") else own

    @property
    def pod(self) -> parse.StaticPod | None:
        """Its etcd.yaml, in the manifests directory or where somebody has put it aside."""
        file = self.looked.files.get("etcd.yaml")
        pod = file.pod if file else self.looked.stray
        return pod if pod and pod.main.program == "etcd" else None

    @property
    def api(self) -> parse.StaticPod | None:
        """Its kube-apiserver.yaml."""
        file = self.looked.files.get("kube-apiserver.yaml")
        return file.pod if file and file.pod and file.pod.main.program == "kube-apiserver" else None

    @property
    def name(self) -> str:
        """The member's name, "" where there is none; etcd's own default is ``default``."""
        return self.pod.flag("name", "default") if self.pod else ""

    @property
    def paths(self) -> Paths:
        """Where this host keeps its things: host paths, kubeadm's own where the manifest does not say it."""
        usual, words = Paths(), self.looked.words
        paths = replace(usual, manifests=words.get("manifests", usual.manifests))
        paths = replace(paths, kubeconfig=words.get("kubeconfig", usual.kubeconfig))
        if not self.pod:
            return paths
        certificates = {key: self._outside(flag) or getattr(usual, key) for key, flag in CERTIFICATES.items()}
        return replace(
            paths, data_dir=self.pod.data_dir or usual.data_dir, wal_dir=self.pod.wal_dir or "", **certificates
        )

    def _outside(self, flag: str) -> str | None:
        inside = self.pod.flag(flag) if self.pod else ""
        return self.pod.on_host(inside) if self.pod and inside else None

    @property
    def peer_urls(self) -> tuple[str, ...]:
        """As its etcd.yaml advertises them."""
        return self.pod.urls("initial-advertise-peer-urls") if self.pod else ()

    @property
    def client_urls(self) -> tuple[str, ...]:
        """As its etcd.yaml advertises them."""
        return self.pod.urls("advertise-client-urls") if self.pod else ()

    @property
    def initial_cluster(self) -> dict[str, tuple[str, ...]]:
        """Name → peer URLs of the members at the time when this one joined."""
        found: dict[str, tuple[str, ...]] = {}
        for entry in self.pod.flag("initial-cluster").split(",") if self.pod else ():
            name, equals, url = entry.partition("=")
            if equals:
                found[name] = (*found.get(name, ()), url)
        return found

    @property
    def etcd_servers(self) -> tuple[str, ...]:
        """Its API server's etcd."""
        return self.api.urls("etcd-servers") if self.api else ()

    @property
    def foreign(self) -> tuple[str, ...]:
        """Those of its API server's etcd servers that are not this host's own member."""
        own = {*LOCAL, *(host_of(u) for u in self.client_urls)}
        return tuple(u for u in self.etcd_servers if host_of(u) not in own)

    def tool(self, name: str) -> str:
        """Where the tool is: its name where that is on PATH, else an absolute path; "" where it is not found."""
        return self.looked.pairs.get(f"tool {name}", "")

    def version(self, name: str) -> str:
        """The version of etcdctl or etcdutl, "" where it is not known."""
        try:
            return ".".join(map(str, parse.version(self.looked.pairs.get(f"version {name}", ""))))
        except ParseError:
            return ""

    @property
    def prefix(self) -> str:
        """Where Kubernetes keeps its objects in etcd."""
        return (self.api.flag("etcd-prefix", "/registry") if self.api else "/registry").rstrip("/")


def host_of(url: str) -> str:
    """The host of a URL, "" where there is none."""
    try:
        return urlsplit(url if "//" in url else f"//{url}").hostname or ""
    except ValueError:
        return ""


def survey(hosts: Hosts, places: Sequence[Node], snapshot: tuple[str, str] = ("", "")) -> tuple[Seen, ...]:
    """Ask all hosts, in three rounds. ``snapshot``: the word of a host and the path of the snapshot on its disk."""
    got = hosts.ask({p.name: asks.first() for p in places})
    seen = [first(p, got[p.name]) for p in places]
    targets = {s.word: target(s, len(places)) for s in seen}
    wanted = {s.word: round_two(s, targets[s.word]) for s in seen if s.pod}
    got = hosts.ask(wanted) if wanted else {}
    seen = [second(s, got[s.word]) if s.word in got else s for s in seen]
    questions = round_three(seen, targets, snapshot)
    got = hosts.ask({word: list(named.values()) for word, named in questions.items()}) if questions else {}
    answers = {word: dict(zip(questions[word], results, strict=True)) for word, results in got.items()}
    return tuple(third(s, answers.get(s.word, {}), snapshot[1]) for s in seen)


def first(place: Node, results: Sequence[Result]) -> Seen:
    """What the first round says of a host."""
    look, lock = results
    if look.unknown:
        return Seen(place, silent=_bare(place, look.tail()) or "no answer")
    looked = asks.looked(look)
    if looked is None and not look.ok and not look.out.strip():
        return Seen(place, silent=_bare(place, look.tail()) or f"exit code {look.code}")
    if looked is None:
        said = printable(look.tail(1))[:200] or "nothing"
        return Seen(place, silent=f"it answered what nobody understands (exit code {look.code}): {said}")
    if looked.words["uid"] != "0":
        return Seen(place, silent=f"commands run there as the user id {looked.words['uid'][:20]}, not as root (0)")
    return Seen(place, looked=looked, holder=locks.holder(lock.out) if lock.ok else None)


def _bare(place: Node, said: str) -> str:
    """What the transport says, without the host's label: that stands before it, or equal reasons are told once."""
    return re.sub(rf"^{re.escape(place.name)} \([^)]*\): ", "", printable(said))


def target(seen: Seen, count: int) -> Target:
    """The host as a target of no plan, with the paths and URLs of its own etcd.yaml; ``count`` hosts in all."""
    paths = seen.paths
    if seen.pod and not seen.tool("etcdctl"):  # asked inside the container, where its own flags' paths are
        paths = replace(paths, **{key: seen.pod.flag(flag, getattr(paths, key)) for key, flag in CERTIFICATES.items()})
    urls = seen.client_urls or ("https://127.0.0.1:2379",)
    node = replace(seen.place, paths=paths, client_urls=urls, peer_urls=())
    return Target(Plan("init", Snapshot("", Path("/")), (node,) * count), Binding(run="init"), node)


def round_two(seen: Seen, n: Target) -> list[Command]:
    """The second round's questions."""
    return asks.second(n, seen.tool("etcdctl"), bool(seen.looked.words.get("kubeconfig")))


def second(seen: Seen, results: Sequence[Result]) -> Seen:
    """With what the second round says of a host."""
    disk, status, *api = results
    if disk.unknown:
        return replace(seen, etcd_said=printable(disk.tail(1)), api_said=printable(disk.tail(1)))
    living = statuses(status)
    said = "" if living else _why(status, "etcdctl") if seen.tool("etcdctl") else NO_TOOL
    seen = replace(seen, disk=asks.stats(asks.disk_paths(seen.paths), disk), statuses=living, etcd_said=said)
    if not api:
        return replace(seen, api_said="there is no kubeconfig to ask with")
    if not api[0].ok:
        return replace(seen, api_said=_why(api[0], "kubectl"))
    try:
        return replace(seen, nodes=parse.nodes(api[0].out), api_revision=_revision(api[0].out))
    except ParseError as error:
        return replace(seen, api_said=printable(error))


def _revision(nodes: str) -> int:
    """The revision of etcd at which an API server listed the nodes; 0 where it does not say. Raises ParseError."""
    return Shape(from_json(nodes, "NodeList"), "NodeList").maybe("metadata").number("resourceVersion", 0)


def _why(result: Result, tool: str) -> str:
    """Why a tool had no answer, short: what it says on standard error is often a long line of JSON."""
    if result.code in (126, 127):
        return f"there is no {tool} on PATH"
    if result.code == 124:
        return "no answer in time"
    found = next((known for known in SAID if known in result.err.lower()), "")
    return SAID.get(found) or printable(result.tail(1))[:200] or f"exit code {result.code}"


def round_three(
    seen: Iterable[Seen], targets: Mapping[str, Target], snapshot: tuple[str, str]
) -> dict[str, dict[str, Command]]:
    """The third round's questions, by host and name; what need be asked only once is asked of the first that lives."""
    found: dict[str, dict[str, Command]] = {}
    once: set[str] = set()
    for s in seen:
        if s.silent:
            continue
        n, mine = targets[s.word], found.setdefault(s.word, {})
        etcdctl, etcdutl = s.tool("etcdctl"), s.tool("etcdutl")
        if s.statuses:
            mine |= asks.members(n, etcdctl)
            if "secrets" not in once:
                once.add("secrets")
                mine["secrets"] = asks.secrets(n, etcdctl, s.prefix)
        db = f"{s.paths.data_dir}/member/snap/db"
        if s.disk.get(db) and not any(e.leader for e in s.statuses):
            mine["written"] = script(asks.NAMED, db, timeout=asks.QUICK)
            if etcdutl and not s.statuses:
                mine["dead"] = asks.snapshot_status(etcdutl, db, asks.QUICK)
        if s.nodes and "kubeadm" not in once:
            once.add("kubeadm")
            mine["kubeadm"] = asks.kubeadm_config(n)
        if snapshot[1] and snapshot[0] in (s.word, s.name):
            mine["lies"] = script(asks.STAT, snapshot[1], timeout=asks.QUICK)
            if etcdutl:
                mine["snapshot"] = asks.snapshot_status(etcdutl, snapshot[1], 30)
        mine["backups"] = script(asks.BACKUPS, *asks.DIRECTORIES, timeout=asks.QUICK)  # last: a dead mount may hang
    return found


def third(seen: Seen, answers: Mapping[str, Result], snapshot: str = "") -> Seen:
    """With what the third round says of a host; ``snapshot`` is the path that it was asked for, if any."""
    if listed := answers.get("members"):
        try:
            members = parse.member_list(listed.out) if listed.ok else None
            said = "" if members else _why(listed, "etcdctl")
        except ParseError as error:
            members, said = None, printable(error)
        seen = replace(seen, members=members, members_said=said, everyone=statuses(answers["everyone"]))
    if secrets := answers.get("secrets"):
        seen = replace(seen, secrets=asks.secret_names(secrets, seen.prefix))
    if dead := answers.get("dead"):
        seen = replace(seen, dead=asks.revision(dead))
    if named := answers.get("written"):
        seen = replace(seen, written=tuple(w for line in named.out.splitlines() if (w := asks.written(line))))
    if lies := answers.get("lies"):
        seen = replace(seen, disk={**seen.disk, **asks.stats((snapshot,), lies)})
    if there := answers.get("snapshot"):
        seen = replace(seen, snapshot=asks.revision(there))
    if config := answers.get("kubeadm"):
        seen = replace(seen, kubeadm=_kubeadm(config))
    if lying := answers.get("backups"):
        seen = replace(seen, backups=tuple(asks.backups(lying)))
    return seen


def _kubeadm(result: Result) -> dict[str, str]:
    """Plain values of kubeadm's ClusterConfiguration."""
    try:
        data = Shape(from_json(result.out, "kubeadm-config"), "kubeadm-config").maybe("data")
        value = from_yaml(data.text("ClusterConfiguration", ""))
    except ParseError:
        return {}
    return {str(k): v for k, v in value.items() if isinstance(v, str)} if isinstance(value, dict) else {}
