"""What every rendering of a schedule goes by: names and times from the backup plan, and what stands in the way."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from urllib.parse import unquote, urlsplit

from runbook.backup import Backup
from runbook.checks.certificates import pki
from runbook.errors import NOTE, UsageError
from runbook.plan import Paths
from runbook.planfile.cron import longest_gap, parse_cron, shortest_gap
from runbook.planfile.durations import format_duration

FIND_IMAGE = "kubectl -n kube-system get pod -l component=etcd -o jsonpath='{.items[*].spec.containers[0].image}'"
_TAG = re.compile(r"[^@]+:v?(?P<version>(?P<major>\d+)\.(?P<minor>\d+)\.\d+)[^:/@]*(@sha256:[0-9a-f]{64})?")
"""An image whose tag begins with etcd's version, as registry.k8s.io/etcd:3.5.16-0."""


@dataclass(frozen=True)
class Facts:
    """A schedule that can be rendered; times in seconds. ``warnings`` are sentences for whoever renders it."""

    backup: Backup
    longest: float
    shortest: float

    @property
    def name(self) -> str:
        """Of every object: with a plan's name of 40 characters it is the longest that a CronJob may have, 52."""
        return f"etcd-backup-{self.backup.name}"

    @property
    def stale(self) -> int:
        """From which age on the newest snapshot is too old: two intervals, the longest that the schedule has."""
        return int(2 * self.longest)

    @property
    def deadline(self) -> int:
        """How long one run may take."""
        return max(1, int(self.backup.schedule.deadline))

    @property
    def directory(self) -> str:
        """The directory of a ``file://`` store, "" for any other."""
        url = self.backup.store.url
        return unquote(url.removeprefix("file://")) if url.startswith("file://") else ""


def facts(backup: Backup) -> Facts:
    """What the plan's schedule says. Raises UsageError where no run could keep to it."""
    cron = backup.schedule.when
    try:
        parse_cron(cron)
    except ValueError as error:
        raise _refused(backup, [f"spec.schedule.cron: {cron!r} {error}"]) from None
    found = Facts(backup, longest_gap(cron), shortest_gap(cron))
    if backup.schedule.deadline >= found.shortest:
        told = (
            f"spec.schedule.deadline: found {format_duration(backup.schedule.deadline)}, and {cron!r} fires again "
            f"after {format_duration(found.shortest)}; allowed: less, or a run that hangs takes the next one's turn"
        )
        raise _refused(backup, [told])
    return found


@dataclass(frozen=True)
class Inside:
    """What a pod on any control-plane node finds there: etcd's address, and the same three files on each node.

    ``version`` is etcd's, by its image; ``pki`` the directory of the cluster's certificates.
    """

    endpoint: str
    paths: Paths
    status_tool: str
    version: str
    pki: str

    @property
    def tls(self) -> bool:
        """Whether etcd is asked with certificates."""
        return self.endpoint.startswith("https:")


def inside(backup: Backup) -> Inside:
    """What the plan says of a pod on a node. Raises UsageError with everything that stands in the way, a line each."""
    if wrong := list(_faults(backup)):
        plan = shlex.quote(str(backup.file))
        systemd = f"runbook snapshot schedule {plan} --systemd{NOTE}a timer beside the cluster needs none of this"
        raise _refused(backup, wrong, *([FIND_IMAGE] if "etcdImage" in wrong[0] else []), systemd)
    tag = _TAG.fullmatch(backup.schedule.etcd_image)
    old = tag is not None and (int(tag["major"]), int(tag["minor"])) < (3, 6)
    node, version = backup.hosts.nodes[0], tag["version"] if tag else ""
    return Inside(_endpoints(backup)[0], node.paths, "etcdctl" if old else "etcdutl", version, pki(node))


def _refused(backup: Backup, faults: Sequence[str], *next_: str) -> UsageError:
    return UsageError(
        "\n".join(f"{backup.file}: {fault}" for fault in faults),
        true="nothing was rendered, and nothing was changed",
        means="the plan has no schedule that could be kept" if not next_ else "a pod could not do what it is for",
        next=next_ or (f"runbook validate {shlex.quote(str(backup.file))}{NOTE}once it is mended",),
    )


def _endpoints(backup: Backup) -> list[str]:
    """How etcd is reached on its own node: kubeadm's listens on the loopback address, at the same port."""
    urls = {(urlsplit(url).scheme, urlsplit(url).port) for n in backup.hosts.nodes for url in n.client_urls}
    return [f"{scheme}://127.0.0.1:{port}" for scheme, port in sorted(urls, key=str)]


def _faults(backup: Backup) -> Iterator[str]:
    schedule = backup.schedule
    if not schedule.etcd_image:
        yield (
            "spec.schedule.etcdImage: is missing; the job runs the cluster's own etcdctl: name the image that its etcd "
            "runs from"
        )
    elif not _TAG.fullmatch(schedule.etcd_image):
        yield (
            f"spec.schedule.etcdImage: found {schedule.etcd_image!r}; allowed: an image with a tag that begins with "
            "etcd's version, such as registry.k8s.io/etcd:3.5.16-0, and a digest after it or none"
        )
    if not schedule.image:
        yield (
            "spec.schedule.image: is missing; an image with runbook in it verifies the snapshot, encrypts it and takes "
            "it to the store: docs/schedule.md has the four lines that build one"
        )
    if backup.store.url.startswith("host://"):
        yield (
            f"spec.store.url: found {backup.store.url!r}, and a pod has no SSH key to a host, nor should it; allowed "
            "for a CronJob: s3://, gs://, az://, or file:// where every node has the directory mounted"
        )
    if len({(n.paths.etcd_ca, n.paths.etcd_cert, n.paths.etcd_key) for n in backup.hosts.nodes}) > 1:
        yield "spec.nodes: etcdCA, etcdCert or etcdKey are not the same on all of them, and one CronJob serves all"
    if len(found := _endpoints(backup)) > 1:
        yield (
            f"spec.nodes: etcd does not listen alike on all of them ({', '.join(found)}), and one CronJob serves all; "
            "allowed: one scheme and one port in clientURLs"
        )
