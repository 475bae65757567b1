"""From what all hosts said to what the plan will say: pure, and the place of every judgement.

What is dangerous is a warning, what could not be learned a note at the key that it concerns; nothing is guessed without
saying so.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from runbook import parse
from runbook.checks.words import listed, on
from runbook.discovery.asks import Written
from runbook.discovery.seen import Seen, host_of
from runbook.errors import NOTE
from runbook.plan import Node, Paths, Ssh, Worker, default_client_urls
from runbook.planfile.places import etcd_url
from runbook.shown import grouped

UNLISTED = "; the living members do not list it: it was removed from the cluster, or they began anew"


@dataclass(frozen=True)
class Source:
    """The snapshot as the command line names it. ``revision`` None: not known; ``there``: it is on a host's disk."""

    url: str = ""
    sha256: str = ""
    revision: int | None = None
    raw: bool = False
    """It has no checksum at its end."""
    members: tuple[Written, ...] = ()
    """Those of the cluster when it was taken."""
    damage: str = ""
    """What a person should mind."""
    hints: tuple[str, ...] = ()
    """What stands beside it in the plan."""


@dataclass
class Draft:
    """The plan to be. Of each key: what was ``said``, about whom; ``loud`` is what the person is told too."""

    nodes: list[Node] = field(default_factory=list)
    workers: list[Worker] = field(default_factory=list)
    ssh: Ssh = field(default_factory=Ssh)
    paths: Paths = field(default_factory=Paths)
    name: str = "restore"
    owner: str = "keep"
    source: Source = field(default_factory=Source)
    bump: int = 1_000_000_000
    tools: dict[str, str] = field(default_factory=dict)
    secrets: list[str] = field(default_factory=list)
    rbac: list[str] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    """Where members live, or may, that no given host holds."""
    put_back: list[str] = field(default_factory=list)
    """The commands for each etcd.yaml that lies elsewhere than the kubelet looks for it."""
    said: dict[str, dict[str, list[str]]] = field(default_factory=dict)
    loud: dict[tuple[str, str], None] = field(default_factory=dict)

    def note(self, key: str, text: str, who: str = "") -> None:
        """A comment at that key, once; ``who`` it is about, where others may have the same."""
        names = self.said.setdefault(key, {}).setdefault(text, [])
        if who and who not in names:
            names.append(who)

    def warn(self, key: str, text: str, who: str = "") -> None:
        """The same, and a warning."""
        self.note(key, text, who)
        self.loud[key, text] = None

    def notes(self, key: str) -> list[str]:
        """The comments at that key, each with those that it is about."""
        return [self._about(key, text) for text in self.said.get(key, {})]

    @property
    def warnings(self) -> list[str]:
        """What a person should mind, in the order in which it was found."""
        return [self._about(key, text) for key, text in self.loud]

    def _about(self, key: str, text: str) -> str:
        who = self.said[key][text]
        return f"{listed(who)}: {text}" if who else text


@dataclass(frozen=True)
class Known:
    """A member or node that somebody told of. ``living``: it answers now; None: nobody knows."""

    name: str
    peer_urls: tuple[str, ...]
    client_urls: tuple[str, ...] = ()
    by: str = ""
    living: bool | None = None
    learner: bool = False


def one_each(seen: Sequence[Seen], draft: Draft) -> list[Seen]:
    """Each machine once: two names of one are told apart from two machines by its id."""
    first: dict[str, Seen] = {}
    found = []
    for s in seen:
        before = first.setdefault(s.machine, s) if s.machine else s
        if before is s:
            found.append(s)
        else:
            draft.warn("nodes", f"--host {s.word} is the same machine as {before.word}: it is written once")
    return found


def run_command(draft: Draft, seen: Sequence[Seen], file: str) -> str:
    """What carries the plan out: without the hosts that did not answer, where a run can go on without them."""
    spare = _spare(draft, seen)
    return f"runbook run {file}{_without(spare)}" + (f"{NOTE}where {listed(spare)} stays dead" if spare else "")


def preview_command(draft: Draft, seen: Sequence[Seen], file: str) -> str:
    """What checks the plan: as it would be run, for a check of a dead host cannot pass."""
    return f"runbook preview --check {file}{_without(_spare(draft, seen))}"


def _spare(draft: Draft, seen: Sequence[Seen]) -> list[str]:
    """The nodes that did not answer, where they are a minority."""
    silent = {s.place.host for s in seen if s.silent}
    dead = [n.name for n in draft.nodes if n.host in silent]
    return dead if len(dead) <= (len(draft.nodes) - 1) // 2 else []


def _without(names: Sequence[str]) -> str:
    return "".join(f" --without {name}" for name in names)


def members_of(seen: Sequence[Seen], source: Source) -> list[Known]:
    """Every member that anybody told of, each once: by those that live; else by etcd.yaml, dead data, the snapshot."""
    living = {e.member_id for s in seen for e in (*s.statuses, *s.everyone)}
    told: dict[int, Known] = {}
    for s in seen:
        for m in s.members.members if s.members else ():
            by = f"{s.name} lists it"
            told.setdefault(m.id, Known(m.name, m.peer_urls, m.client_urls, by, m.id in living, m.is_learner))
    found = list(told.values())
    own = [Known(s.name, s.peer_urls) for s in seen if s.pod]
    if found and all(_held(k, found) for k in own):
        return found
    for known in (*own, *_remembered(seen, source)):  # nobody lists them all: a member may have begun anew, alone
        if not _held(known, found):
            found.append(known)
    return found


def _remembered(seen: Sequence[Seen], source: Source) -> Iterator[Known]:
    """Members that files speak of; each may have been removed since, or have come later than the others."""
    for s in seen:
        for w in s.written:
            yield Known(w.name, w.peer_urls, w.client_urls, f"the data of {s.name} names it")
    for w in source.members:
        yield Known(w.name, w.peer_urls, w.client_urls, "the snapshot lists it, as the cluster was then")
    for s in seen:
        for name, urls in s.initial_cluster.items():
            yield Known(name, urls, (), f"etcd.yaml of {s.name} names it, as the cluster was when {s.name} joined")


def kube_nodes(seen: Sequence[Seen]) -> list[parse.KubeNode]:
    """The nodes that an API server knows, from the first that answered."""
    return list(next((s.nodes for s in seen if s.nodes), ()))


def add_nodes(draft: Draft, seen: Sequence[Seen], resolved: Mapping[str, Iterable[str]]) -> None:
    """Every member: those whose hosts answered, then those of silent hosts, as far as the others know them.

    ``resolved``: the addresses of silent hosts, by their word.
    """
    for s in seen:
        if s.pod:
            urls = s.client_urls or s.peer_urls
            draft.nodes.append(replace(s.place, name=s.name, peer_urls=s.peer_urls, client_urls=urls, paths=s.paths))
    members = members_of(seen, draft.source)
    silent = [s for s in seen if s.silent]
    left = [m for m in members if not _held(m, draft.nodes)]
    others = [m for m in _remembered(seen, draft.source) if not _held(m, [*draft.nodes, *members])]
    for s in list(silent):
        places = {s.word, s.place.host, *resolved.get(s.word, ())}
        match = next((m for m in [*left, *others] if m.name and places & _places(m, seen)), None)
        worker = next((n for n in kube_nodes(seen) if places & {n.name, *n.addresses} and not n.control_plane), None)
        if match:
            _absent(draft, s, match, "" if match in left else UNLISTED)
            left = [m for m in left if m is not match]
            silent.remove(s)
        elif worker:
            draft.warn("workers", f"--host {s.word} is the worker {worker.name}, and did not answer: {s.silent}")
            silent.remove(s)
    if len(silent) == 1 and len(left) == 1 and _may_be(silent[0], left[0], resolved):
        _absent(draft, silent[0], left[0], "; taken for this one because no other is left: see whether it is")
        silent, left = [], []
    for s in silent:
        why = f"--host {s.word} is not in this plan: {s.silent}; and no other host knows which member it is"
        draft.warn("nodes", f"{why}. Bring it back and write the plan anew, or add it by hand")
    for m in left:
        _stranger(draft, m)
    names = {n.name for n in draft.nodes}
    hosts = {host_of(u) for n in draft.nodes for u in n.peer_urls} | {n.host for n in draft.nodes}
    told = {m.name for m in left}
    for node in kube_nodes(seen):
        if node.control_plane and not {node.name, *node.addresses} & (names | hosts | told):
            ready = "Ready" if node.ready else f"not Ready ({node.why})"
            draft.warn("nodes", f"control-plane node {node.name} ({listed(node.addresses)}), {ready}, is on no --host")
    learners = [m.name for m in members if m.learner]
    if learners:
        draft.warn("nodes", f"learners become voters by a restore: {listed(learners)}")


def _places(member: Known, seen: Sequence[Seen]) -> set[str]:
    """Where a member may be reached: the hosts of its URLs, and what the API calls a node there."""
    hosts = {host_of(u) for u in (*member.peer_urls, *member.client_urls)}
    nodes = (n for n in kube_nodes(seen) if n.name == member.name or hosts & set(n.addresses))
    return {member.name, *hosts, *(place for n in nodes for place in (n.name, *n.addresses))} - {""}


def _held(member: Known, nodes: Iterable[Node | Known]) -> bool:
    return any(n.name == member.name or set(n.peer_urls) & set(member.peer_urls) for n in nodes)


def _may_be(s: Seen, member: Known, resolved: Mapping[str, Iterable[str]]) -> bool:
    """Whether a silent host may be the one member that is left: a name that nobody knows is rather a typing error."""
    return bool(member.name and not member.living and tuple(resolved.get(s.word, ())))


def _absent(draft: Draft, s: Seen, member: Known, but: str) -> None:
    """A silent host, written from what others say of it."""
    good = all(not etcd_url(u) for u in member.peer_urls)
    client = member.client_urls or (default_client_urls(member.peer_urls) if good else ())
    draft.nodes.append(replace(s.place, name=member.name, peer_urls=member.peer_urls, client_urls=client))
    lives = " (and its member answers the others)" if member.living else ""
    draft.warn(f"node {member.name}", f"{member.name} ({s.word}) did not answer{lives}: {s.silent}{but}")
    draft.note(f"node {member.name}", f"name and URLs: {member.by}; its paths are taken to be those of the others")


def _stranger(draft: Draft, m: Known) -> None:
    """A member that no given host holds: alive, it would be a second cluster beside the restored one."""
    who = f"member {m.name or '(never started)'} at {listed(m.peer_urls)}"
    place = next((host_of(u) for u in m.peer_urls), "") or "HOST"
    add = f"write the plan anew with --host {place} too"
    draft.missing.append(place)
    if m.living:
        text = f"DANGER: {who} lives and is on no --host; restored without it there would be two clusters: {add}"
    elif m.living is False:
        text = f"{who} is listed, does not answer, and is on no --host: {add}, or make sure that it is gone for good"
    else:
        text = f"{who} is on no --host ({m.by}): {add}, unless it was removed from the cluster"
    draft.warn("nodes", text)


def add_workers(draft: Draft, seen: Sequence[Seen], given: Sequence[Seen], known: Mapping[str, bool]) -> None:
    """Nodes without the control-plane role, by address; ``given`` are workers of the command line.

    ``known``: whether known_hosts has a key for a name or an address.
    """
    for s in given:
        draft.workers.append(Worker(s.place.host, s.place.ssh))
        draft.warn("workers", f"--host {s.word} is no control plane ({no_control_plane(s)}): it is written as a worker")
    nodes = kube_nodes(seen)
    if not nodes:
        reasons = grouped((s.name, s.api_said) for s in seen if s.api_said)
        why = "; ".join(f"{listed(names)}: {reason}" for names, reason in reasons) or "no host could ask one"
        draft.note("workers", f"not known, for no API server answered ({why})")
        draft.note("workers", "add them by hand; the restore does not need them, their phantom pods go away later")
    mine = {n.name for n in draft.nodes} | {n.host for n in draft.nodes}
    mine |= {host_of(u) for n in draft.nodes for u in n.peer_urls} | {s.looked.words.get("hostname", "") for s in given}
    mine |= {s.place.host for s in given}
    for node in nodes:
        if not node.control_plane and not {node.name, *node.addresses} & mine:
            places = [*([node.internal] if node.internal else []), node.name]
            host = next((p for p in places if known.get(p)), places[0])
            strange = "" if known.get(host) else "; its host key is not known here yet"
            draft.workers.append(Worker(host, draft.ssh))
            draft.note(f"worker {host}", f"{node.name}, {node.internal or 'no InternalIP'}{strange}")


def no_control_plane(s: Seen) -> str:
    """Why a host that answered is no control plane."""
    return f"no etcd.yaml and no kube-apiserver.yaml in {s.paths.manifests}"


PUT_BACK = 'test -d "$0" && cp -a "$1" "$2" && sync "$2" && mv -T "$2" "$3"'
"""Hidden at first, for a kubelet reads half a file too. Not without a WAL: etcd may start an empty cluster then."""


def _put_aside(draft: Draft, s: Seen) -> None:
    """An etcd.yaml that lies elsewhere: how it is put back, where that is safe."""
    stray, place = s.looked.words.get("stray", ""), f"{s.paths.manifests}/etcd.yaml"
    text = f"{place} is missing, what is written here is from {stray}"
    if s.paths.data_dir in s.disk and s.disk[s.paths.data_dir] is None:
        text += f"; put back without its data in {s.paths.data_dir}, it may start an empty cluster of its own"
        draft.warn("manifests", text, s.name)
        return
    draft.warn("manifests", f"{text}: put it back first", s.name)
    if not s.holder:  # its run knows where it has put what
        wal = s.paths.wal_dir or f"{s.paths.data_dir}/member/wal"
        part = f"{s.paths.manifests}/.etcd.yaml.part"
        draft.put_back.append(on(s.place, "sh", "-c", PUT_BACK, wal, stray, part, place))


def common(draft: Draft, seen: Sequence[Seen]) -> None:
    """What most hosts share goes to spec.ssh and spec.paths; the nodes that did not answer are taken to share it."""
    heard = {s.name: s for s in seen if s.pod}
    draft.ssh = Counter(n.ssh for n in draft.nodes).most_common(1)[0][0]
    draft.paths = Counter(n.paths for n in draft.nodes if n.name in heard).most_common(1)[0][0]
    draft.nodes = [n if n.name in heard else replace(n, paths=draft.paths) for n in draft.nodes]
    for s in heard.values():
        words = s.looked.words
        if "config" not in words:
            draft.note("manifests", "the kubelet's config.yaml could not be read: kubeadm's own place", s.name)
        elif "no-static-pods" in words:
            draft.warn("manifests", f"{words['no-static-pods']} has no staticPodPath: its kubelet runs none", s.name)
        if "etcd.yaml" not in s.looked.files:
            _put_aside(draft, s)
        if not words.get("kubeconfig"):
            draft.warn("kubeconfig", "no admin.conf that root can read: without one nothing can be verified", s.name)
        for key, inside in (("dataDir", s.pod.data_dir if s.pod else ""), ("walDir", s.pod.wal_dir if s.pod else "")):
            if inside is None:
                text = f"no host path is mounted behind etcd's {key}: its data ends with the container"
                draft.warn(key, text, s.name)
        if s.paths.data_dir in s.disk and s.disk[s.paths.data_dir] is None:
            draft.warn("dataDir", f"{s.paths.data_dir} is not there: there is no old data to keep", s.name)
