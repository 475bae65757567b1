"""What does the snapshot hold? Its content is read from the file itself.

One on a node's disk is fetched for it, beside the other checks, into a file without a name (``snapshots.fetch``).
"""

from __future__ import annotations

import re
import subprocess
import time
from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future

from runbook import parse
from runbook.checks import Answers, Check, Finding, Severity, heard
from runbook.checks.members import own_status, statuses
from runbook.checks.words import ask, is_node, listed
from runbook.errors import RunbookError
from runbook.plan import Plan
from runbook.snapshots.bolt import NotBolt
from runbook.snapshots.content import Changed, Content, NotWhole
from runbook.snapshots.integrity import inspect_source
from runbook.snapshots.reading import Fetched, There, begin, begin_there
from runbook.step import Binding, Command, Result, Target

NOT_WHOLE, DAMAGED, UNREAD, RESTLESS = 2, 3, 4, 5
"""How a look may fail. That a file is not whole is another check's to tell."""
MOST = 10
"""So many kinds are told, the most frequent first."""

_RBAC = {"clusterrole": "clusterroles", "clusterrolebinding": "clusterrolebindings", "role": "roles"}


def wanted(plan: Plan) -> Mapping[str, str]:
    """The Secrets, roles and bindings that the plan's verify section names; by name, their keys in etcd."""
    keys = {f"Secret {s}": f"/registry/secrets/{s}" for s in plan.verify.secrets}
    for text in plan.verify.rbac:
        kind, _, rest = text.partition("/")
        keys[text] = f"/registry/{_RBAC.get(kind.lower(), f'{kind.lower()}s')}/{rest}"
    return keys


def begin_reading(plan: Plan) -> None:
    """As early as may be, for the checks that come: it goes on beside everything else.

    One that lies on a node waits for the checks: whether that host answers, and no other run holds it, is asked first.
    One that is still in its store waits until it is here.
    """
    source = plan.snapshot
    if source.node is None and (source.store is None or source.fetched):
        begin(plan.snapshot.path, tuple(wanted(plan).values()))


def named(plan: Plan) -> str:
    """The snapshot as messages name it: its path, and the node whose disk holds it."""
    source = plan.snapshot
    return f"{source.path} on {source.node}" if source.node else source.shown


def fetched(plan: Plan) -> Future[Fetched]:
    """The snapshot of a node, which all checks that need it fetch once; errors as of ``reading.begin_there``."""
    from runbook.hosts.address import Address

    source = plan.snapshot
    node = plan.node(source.node or "")
    address = Address.to(node.name, node.host, node.ssh).to_json()
    keys = tuple(wanted(plan).values())
    return begin_there(There(address, str(source.path), keys, source.sha256 or "", source.allow_missing_trailer))


def _content(plan: Plan) -> Content:
    source = plan.snapshot
    if source.node:
        return fetched(plan).result().content
    reading = begin(source.path, tuple(wanted(plan).values()))
    inspect_source(source)
    return reading.result()


def look(plan: Plan) -> Sequence[Result]:
    """The snapshot's content, and the time now, in seconds since 1970."""
    try:
        return [Result(0, _content(plan).json()), Result(0, str(time.time()))]
    except RunbookError as error:
        return [Result(NOT_WHOLE, err=error.message)]
    except NotWhole as error:
        return [Result(NOT_WHOLE, err=str(error))]
    except Changed as error:
        return [Result(RESTLESS, err=f"{named(plan)} {error}")]
    except NotBolt as error:
        return [Result(DAMAGED, err=f"{named(plan)}: its content cannot be read: it {error}")]
    except (OSError, subprocess.SubprocessError) as error:
        return [Result(UNREAD, err=f"{named(plan)}: its content could not be read: {error}")]


def shown(kinds: Mapping[str, int], most: int = MOST) -> str:
    """How many of each kind, the most frequent first."""
    ordered = sorted(kinds.items(), key=lambda kind: (-kind[1], kind[0]))
    told = [f"{name} {count}" for name, count in ordered[:most]]
    return listed([*told, *([f"and {len(ordered) - most} kinds more"] if len(ordered) > most else [])])


def names(them: Sequence[str], most: int = 20) -> str:
    """Names in a row."""
    return listed([*them[:most], *([f"and {len(them) - most} more"] if len(them) > most else [])])


class OfContent(Check):
    """A check of what the snapshot holds."""

    at_first = True
    slow, fetches = True, True

    def look(self, plan: Plan, bound: Binding) -> Sequence[Result]:
        """All checks of the content share one reading; a snapshot of a node is fetched for it, without a trace."""
        return look(plan)

    def judge(self, plan: Plan, bound: Binding, answers: Answers) -> Iterator[Finding]:
        """Silent where it could not be read: one check tells of that."""
        seen, *rest = answers[""]
        if seen.ok:
            yield from self.of(plan, Content.from_json(seen.out), answers, float(rest[0].out))
        elif isinstance(self, SnapshotContent):
            yield from self.unread(plan, bound, seen)

    @abstractmethod
    def of(self, plan: Plan, content: Content, answers: Answers, now: float) -> Iterator[Finding]:
        """What the content, and the hosts' answers, say; ``now`` is this machine's time, in seconds since 1970."""


class SnapshotContent(OfContent):
    """The snapshot holds a cluster, of the version that will run on it."""

    order, tells = 41, True

    def unread(self, plan: Plan, bound: Binding, seen: Result) -> Iterator[Finding]:
        """Why nothing is known of the content. A host that is silent is the connection check's to tell."""
        unknown = "what it holds is not known: kinds, encryption, what would be lost"
        if seen.code == DAMAGED:
            yield self.blocks("", seen.err, "use another snapshot: etcd would fail on this one, or lose keys")
        elif seen.code == RESTLESS:
            yield self.blocks("", seen.err, "wait until nobody writes to it any more, then check again")
        elif seen.code == UNREAD:
            yield self.warns("", seen.err, unknown)
        elif seen.unknown and plan.snapshot.node in bound.absent:
            yield self.warns("", f"{named(plan)}: the run goes on without that host", unknown)

    def asks(self, n: Target) -> Sequence[Command]:
        """What the manifest's image says, and what the member says, as other checks ask it."""
        if not is_node(n):
            return ()
        return [ask("cat", "--", f"{n.node.paths.manifests}/etcd.yaml"), own_status(n)]

    def of(self, plan: Plan, content: Content, answers: Answers, now: float) -> Iterator[Finding]:
        """A snapshot of an empty etcd is whole, and restores to nothing."""
        path = named(plan)
        if not content.keys:
            yield self.blocks("", f"{path} holds no live key: all were deleted", "use another snapshot")
            return
        version = content.storage_version or content.cluster_version
        told = f"{content.keys} live keys ({shown(content.kinds)}), of etcd {version or 'of an unknown version'}"
        if version:
            yield from self._versions(plan, version, answers)
        theirs = {m.name for m in content.members} | {url for m in content.members for url in m.peer_urls}
        ours = {n.name for n in plan.nodes} | {url for n in plan.nodes for url in n.peer_urls}
        if theirs and not theirs & ours:
            saw = f"the snapshot was taken of {listed(f'{m.name} ({listed(m.peer_urls)})' for m in content.members)}"
            yield self.warns("", f"{saw}: none of them is in the plan", "make sure that it is this cluster's")
        if content.keys > MOST and not content.objects:
            saw = f"{path} holds no Kubernetes object: {told}"
            yield self.warns("", saw, "is it the snapshot of a Kubernetes cluster, and of its main etcd?")
        else:
            yield self.ok("", told)

    def _versions(self, plan: Plan, version: str, answers: Answers) -> Iterator[Finding]:
        """An etcd 3.5 starts on 3.6's data once they are restored, and the other way round; nobody tests that."""
        theirs = _minor(version)
        for node, (etcd_yaml, status) in heard(answers, plan.nodes):
            own = next((_minor(s.version) for s in statuses(status)), None) or _of_image(etcd_yaml)
            if own and theirs and own != theirs:
                saw = f"the snapshot was taken of etcd {theirs[0]}.{theirs[1]}, this host's is {own[0]}.{own[1]}"
                yield self.warns(node.name, saw, "restore with the same minor version, and upgrade afterwards")


def _minor(text: str) -> tuple[int, int] | None:
    found = re.match(r"(\d+)\.(\d+)\.\d+", text)
    return (int(found[1]), int(found[2])) if found else None


def _of_image(etcd_yaml: Result) -> tuple[int, int] | None:
    try:
        return _minor(parse.manifest(etcd_yaml.out).version)
    except parse.ParseError:
        return None


class KnownObjects(OfContent):
    """The Secrets and roles that the plan wants to see afterwards are in the snapshot."""

    severity = Severity.WARNS
    order = 42

    def applies(self, plan: Plan) -> bool:
        """Only where the plan names some."""
        return bool(wanted(plan))

    def of(self, plan: Plan, content: Content, answers: Answers, now: float) -> Iterator[Finding]:
        """What is not there cannot be read after the restore, and would end the run unverified."""
        missing = [name for name, key in wanted(plan).items() if key not in content.present]
        if missing:
            do = "correct spec.verify, or use a snapshot that has them: the run would end without being verified"
            yield self.warns("", f"not in the snapshot: {names(missing)}", do)
        else:
            yield self.ok("", f"in the snapshot: {names(list(wanted(plan)))}")
