"""What a schema cannot say: values of a plan that are good alone and wrong together.

Every check looks only at values in which nothing else was found wrong, so that one mistake is told once, and all
mistakes at once.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator
from typing import Any

from runbook.plan import default_client_urls
from runbook.planfile import places
from runbook.planfile.durations import parse_duration
from runbook.planfile.problems import Where, nearest, shown, written
from runbook.planfile.shape import resolved, schema
from runbook.snapshots.urls import OBJECTS, is_reference

Complaint = tuple[Where, str]

SPEC: Where = ("spec",)
NODES: Where = ("spec", "nodes")
LOCK = "/var/lib/etcd-runbook.lock"
DIRECTORIES = ("manifests", "dataDir", "walDir", "workspace")
FILES = ("etcdCA", "etcdCert", "etcdKey", "kubeconfig")
SYSTEM = re.compile(
    r"/(bin|boot|dev|etc(/kubernetes(/pki(/etcd)?)?)?|home|lib|lib64|media|mnt|opt|proc|root|run|sbin|srv|sys|tmp"
    r"|usr(/(bin|lib|local|sbin|share))?|var(/(lib(/(containerd|kubelet))?|log|run|tmp))?)"
)
"""Directories that are not anyone's own."""
VOLATILE = ("/tmp", "/run", "/var/run", "/dev")  # noqa: S108 - named in order to be refused
KERNEL = ("/proc", "/sys", "/dev")
GRACE = 30.0
"""The kubelet's grace period for a static pod, in seconds."""


class View:
    """The values of a plan in which nothing was found wrong so far."""

    def __init__(self, data: dict[str, Any], bad: Iterable[Where]) -> None:
        self._data = data
        self._bad = frozenset(bad)

    def get(self, where: Where, default: Any = None) -> Any:
        """The value there; ``default`` where the plan is silent; None where it, or what it stands in, is wrong."""
        value: Any = self._data
        silent = False
        for length, part in enumerate(where, 1):
            if where[:length] in self._bad:
                return None
            if silent:
                continue
            try:
                value = value[part]
            except (KeyError, IndexError, TypeError):
                silent = True
        return default if silent else value

    def given(self, where: Where) -> bool:
        """Whether the plan has a good value there."""
        return self.get(where) is not None

    def entries(self, where: Where) -> Iterator[Where]:
        """The place of each entry of a list."""
        items = self.get(where)
        if isinstance(items, list):
            yield from ((*where, index) for index in range(len(items)))

    def texts(self, where: Where) -> Iterator[tuple[Where, str]]:
        """The good texts of a list, with the place of each."""
        for place in self.entries(where):
            if isinstance(text := self.get(place), str):
                yield place, text


def errors(view: View) -> Iterator[Complaint]:
    """Everything that makes a restore plan wrong, beyond its shape."""
    yield from host_errors(view)
    yield from _mentions(view)
    yield from _store(view)
    yield from _bump(view)


def host_errors(view: View) -> Iterator[Complaint]:
    """What is wrong with the hosts of any plan."""
    yield from _names(view)
    yield from _hosts(view)
    yield from _urls(view)
    yield from _paths(view)


def _once(entries: Iterable[tuple[object, Where, str]], means: str) -> Iterator[Complaint]:
    """A complaint for every key that stands a second time, naming where it stood first."""
    first: dict[object, Where] = {}
    for key, where, text in entries:
        if key in first:
            yield where, f"found {shown(text)} again, as in {written(first[key])}; {means}"
        else:
            first[key] = where


def _names(view: View) -> Iterator[Complaint]:
    """Members and checks need names of their own."""
    names = [(n, (*at, "name")) for at in view.entries(NODES) if isinstance(n := view.get((*at, "name")), str)]
    yield from _once(((n, at, n) for n, at in names), "each member needs a name of its own")
    checks = (*SPEC, "verify", "checks")
    found = [(n, (*at, "name")) for at in view.entries(checks) if isinstance(n := view.get((*at, "name")), str)]
    yield from _once(((n, at, n) for n, at in found), "each check needs a name of its own")


def _worker_host(view: View, at: Where) -> Where:
    return (*at, "host") if isinstance(view.get(at), dict) else at


def _hosts(view: View) -> Iterator[Complaint]:
    """No host is two nodes, two workers, or a node and a worker."""
    nodes: list[tuple[object, Where, str]] = []
    known: dict[str, Where] = {}
    for at in view.entries(NODES):
        where = (*at, "host")
        name = view.get(where)
        port = view.get((*at, "ssh", "port"), view.get((*SPEC, "ssh", "port"), 22))
        if isinstance(name, str):
            nodes.append(((places.host_key(name), port), where, name))
            known.setdefault(places.host_key(name), where)
    yield from _once(nodes, "each node is a host of its own")
    for at in view.entries(NODES):
        if isinstance(name := view.get((*at, "name")), str):
            known.setdefault(name.lower(), (*at, "name"))
    workers = [
        (w, name)
        for at in view.entries((*SPEC, "workers"))
        if isinstance(name := view.get(w := _worker_host(view, at)), str)
    ]
    yield from _once(((places.host_key(n), w, n) for w, n in workers), "each worker stands here once")
    for where, name in workers:
        if (key := places.host_key(name)) in known:
            yield where, f"found {shown(name)}, which is a node ({written(known[key])}); list workers only"


def _urls(view: View) -> Iterator[Complaint]:
    """Each host and port stands once, be it for peers or for clients."""
    found: list[tuple[object, Where, str]] = []
    for at in view.entries(NODES):
        for kind in ("peerURLs", "clientURLs"):
            own: dict[str, Where] = {}
            for where, url in view.texts((*at, kind)):
                own.setdefault(url, where)  # the schema tells of a URL that stands twice in one list
            found += [(places.endpoint(url), where, url) for url, where in own.items()]
        if view.get((*at, "clientURLs"), "default") == "default":
            peers = {where: default_client_urls((url,))[0] for where, url in view.texts((*at, "peerURLs"))}
            own = {url: where for where, url in reversed(peers.items())}
            found += [(places.endpoint(url), where, f"{url} (clientURLs by default)") for url, where in own.items()]
    yield from _once(found, "two listeners cannot share a host and port")


def _merged(view: View, own: Where) -> dict[str, tuple[str, Where, bool]]:
    """The good paths of one host: value, place, and whether ``own`` gives it; "" counts as none."""
    merged = {}
    for key, part in resolved(schema()["$defs"]["paths"])["properties"].items():
        mine, common = (*own, key), (*SPEC, "paths", key)
        here = view.get(mine, "") != ""
        value = view.get(mine) if here else view.get(common, part["default"])
        if isinstance(value, str) and value:
            given_here = here or own == (*SPEC, "paths")
            merged[key] = (value, mine if here else common, given_here)
    return merged


def _paths(view: View) -> Iterator[Complaint]:
    """What the run moves, fills and removes must not lie in anything else."""
    yield from _told(_path_faults(_merged(view, (*SPEC, "paths"))), view)
    for at in view.entries(NODES):
        if view.given((*at, "paths")):
            yield from _told(_path_faults(_merged(view, (*at, "paths"))), view)


def _told(found: Iterable[tuple[Where, Where, str]], view: View) -> Iterator[Complaint]:
    """Each complaint at the first of its two places that the file has."""
    for first, second, message in found:
        yield (first if view.given(first) else second), message


def _path_faults(paths: dict[str, tuple[str, Where, bool]]) -> Iterator[tuple[Where, Where, str]]:
    """Each fault with the place to tell it at, and another should the file not have that one."""
    for key in DIRECTORIES:
        if key in paths and (faults := list(_lone(key, paths[key][0]))):
            value, where, here = paths.pop(key)  # what it lies in, or holds, is then beside the point
            yield from ((where, where, message) for message in faults if here)
    pairs = [(a, b) for i, a in enumerate(DIRECTORIES) for b in DIRECTORIES[i + 1 :]]
    pairs += [(d, f) for d in ("manifests", "dataDir", "walDir") for f in FILES]
    for a, b in pairs:
        if a not in paths or b not in paths or not (paths[a][2] or paths[b][2]):
            continue
        (left, left_at, _), (right, right_at, here) = paths[a], paths[b]
        if relation := _relation(right, left):
            message = f"{b} ({right}) {relation} {a} ({left}); each needs a place of its own"
            yield (right_at, left_at, message) if here else (left_at, right_at, message)
    for f in FILES:
        if "workspace" in paths and f in paths and _inside(paths["workspace"][0], paths[f][0]):
            (value, where, _), (file, file_at, _) = paths["workspace"], paths[f]
            yield where, file_at, f"workspace ({value}) lies in the file {f} ({file})"


def _lone(key: str, value: str) -> Iterator[str]:
    """What is wrong with one directory, whatever the others are."""
    if SYSTEM.fullmatch(value):
        yield f"found {shown(value)}, a directory of the system; allowed: a directory of its own below it"
    elif any(_inside(value, top) for top in KERNEL):
        yield f"found {shown(value)}, which is the kernel's; allowed: a directory on a disk"
    elif key == "workspace" and any(_inside(value, top) for top in VOLATILE):
        yield f"found {shown(value)}, which a reboot empties, parked manifests and all; allowed: a directory on a disk"
    if _inside(value, LOCK):
        yield f"found {shown(value)}; {LOCK} is the lock that all runs share"


def _inside(path: str, top: str) -> bool:
    return path == top or path.startswith(top.rstrip("/") + "/")


def _relation(one: str, other: str) -> str:
    if one == other:
        return "is the same as"
    return "lies in" if _inside(one, other) else "holds" if _inside(other, one) else ""


def node_names(view: View) -> list[str]:
    """What the nodes are called; nothing where one's name is missing or wrong: it may well be the one that is meant."""
    names = [n for at in view.entries(NODES) if isinstance(n := view.get((*at, "name")), str)]
    return names if len(names) == len(list(view.entries(NODES))) else []


def _mentions(view: View) -> Iterator[Complaint]:
    """Node names that other keys mention."""
    names = node_names(view)
    if not names:
        return
    where: Where = (*SPEC, "snapshot", "from")
    source = view.get(where)
    if isinstance(source, str) and source.startswith("host://"):
        node = source.removeprefix("host://").partition("/")[0]
        if node not in names:
            yield where, f"found the node {shown(node)}, which the plan does not have; {choice(node, names)}"
    for at in view.entries((*SPEC, "verify", "checks")):
        on = view.get((*at, "on"))
        if isinstance(on, str) and on not in (*names, "local", "all"):
            yield (*at, "on"), f"found {shown(on)}; {choice(on, ['local', 'all', *names])}"


def _store(view: View) -> Iterator[Complaint]:
    """Keys that mean nothing where the snapshot is."""
    source = view.get((*SPEC, "snapshot", "from"))
    if isinstance(source, str) and source.partition("://")[0] not in OBJECTS:
        for key in ("endpoint", "region"):
            if view.get(where := (*SPEC, "snapshot", "store", key), ""):
                yield where, f"{key} is for object stores, and from is {shown(source)}; leave it out"


def choice(word: str, known: Collection[str]) -> str:
    """What is allowed in a word's place, and the nearest to it."""
    meant = nearest(word, known)
    return f"allowed: {', '.join(known)}" + (f"; did you mean {meant}?" if meant else "")


def _bump(view: View) -> Iterator[Complaint]:
    """Bump and mark: etcdutl takes both or neither."""
    bump_at, mark_at = (*SPEC, "cluster", "bumpRevision"), (*SPEC, "cluster", "markCompacted")
    bump, mark = view.get(bump_at, 1_000_000_000), view.get(mark_at, True)
    if bump == 0 and mark is True:
        yield (
            bump_at,
            "found 0 with markCompacted: true; etcdutl takes both or neither: a bump above 0, or markCompacted: false",
        )
    elif mark is False and bump:
        yield mark_at, f"found false with bumpRevision: {bump}; etcdutl takes both or neither: true, or bumpRevision: 0"


def warnings(view: View) -> Iterator[Complaint]:
    """What is allowed, and yet seldom meant."""
    yield from _warn_nodes(view)
    yield from _warn_restore(view)
    yield from warn_sudo(view)
    where: Where = (*SPEC, "timeouts", "stop")
    text = view.get(where, "120s")
    if isinstance(text, str) and parse_duration(text) < GRACE:
        yield where, f"{text} is less than the {GRACE:g} s that the kubelet gives a pod to stop"


def warn_sudo(view: View) -> Iterator[Complaint]:
    """A login that can do nothing on its host."""
    common: Where = (*SPEC, "ssh")
    for at in view.entries(NODES):
        own: Where = (*at, "ssh")
        sudo = view.get((*own, "sudo"), view.get((*common, "sudo"), "auto"))
        user = view.get((*own, "user"), view.get((*common, "user"), "root"))
        if sudo == "never" and user not in ("root", None):
            places = [(*top, key) for top in (own, common) for key in ("sudo", "user")]
            yield next(filter(view.given, places)), f"sudo: never with the user {user}; every step needs root's rights"


def _warn_nodes(view: View) -> Iterator[Complaint]:
    nodes = list(view.entries(NODES))
    count = len(nodes)
    if count and count % 2 == 0:
        spare = (count - 1) // 2
        yield (
            NODES,
            f"{count} nodes, an even number, survive the loss of {spare}, as {count - 1} would; are all members here?",
        )
    if count > 7:
        yield NODES, f"{count} nodes; etcd's own advice is seven at most"
    schemes: dict[str, Where] = {}
    for at in nodes:
        for where, url in view.texts((*at, "peerURLs")):
            schemes.setdefault(url.partition(":")[0], where)
            address = places.url_address(places.endpoint(url)[0])
            loops = address.is_loopback if address else places.endpoint(url)[0] == "localhost"
            if loops and count > 1:
                yield where, f"{url} is each host's own loopback; the other members cannot reach it"
    if len(schemes) > 1:
        yield schemes["http"], f"http here, https in {written(schemes['https'])}; is one of them a typo?"


def _warn_restore(view: View) -> Iterator[Complaint]:
    where: Where = (*SPEC, "cluster", "markCompacted")
    if view.get(where, True) is False:
        yield where, "false: watches and caches of the old cluster will miss changes or see them twice, without a word"
    where = (*SPEC, "cluster", "token")
    if isinstance(text := view.get(where, "$RUN"), str) and "$RUN" not in text:
        yield (
            where,
            f"{shown(text)} has no $RUN: a second restore makes a cluster with the same id, and members may mix",
        )
    source = view.get((*SPEC, "snapshot", "from"))
    if view.get(where := (*SPEC, "snapshot", "identityFile"), "") and source and not is_reference(source):
        yield where, "nothing is decrypted: from names a plain file, and none of a store"
    where = (*SPEC, "snapshot", "allowMissingTrailer")
    if view.get(where, False) is True:
        proof = (
            "sha256 alone proves" if view.get((*SPEC, "snapshot", "sha256"), "") else "without sha256 nothing proves"
        )
        yield where, f"true: {proof} that the snapshot is whole; only for a raw copy of member/snap/db"
