"""``runbook snapshot save``: from the choice of a member to the pruned store, and what is told of it."""

from __future__ import annotations

import shlex
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime

from runbook import listing, parse
from runbook.backup import Backup
from runbook.checks.words import script, size
from runbook.connecting import enter_lab
from runbook.errors import Refused
from runbook.hosts import connect, errands
from runbook.hosts.address import Address
from runbook.hosts.connection import Link
from runbook.snapshots import catalogue, metrics, pruning, shipping
from runbook.snapshots.choosing import Chosen, choose, targets
from runbook.snapshots.content import named
from runbook.snapshots.opening import open_store
from runbook.snapshots.reading import beside
from runbook.snapshots.sidecar import Sidecar, cluster_of
from runbook.snapshots.stores import Store, StoreTrouble
from runbook.snapshots.taking import Order, Taking
from runbook.snapshots.tools import Tool, brought
from runbook.step import Result
from runbook.transport import Claim

LISTING = 120
"""Seconds for which a host lists its objects at most: what it takes longer for is not counted."""
Tell = Callable[[str], None]
"""Told what is being done, one line a time."""


@dataclass(frozen=True)
class Saved:
    """What came of it: the snapshot, how long it took in seconds, what was pruned, and what a responder should know."""

    sidecar: Sidecar
    seconds: float
    pruned: tuple[str, ...]
    warnings: tuple[str, ...]


def save(backup: Backup, tell: Tell) -> Saved:
    """Take, prove, seal, ship, prune. Raises RunbookError, StoreTrouble, NotASnapshot, NoKey; nothing is left then."""
    began, at = time.monotonic(), datetime.now(UTC)
    values: dict[str, float] = {"last_run_timestamp_seconds": at.timestamp(), "last_run_success": 0}
    warnings: list[str] = []
    pruned: list[str] = []
    try:
        bring = brought(backup.hosts)
        store = open_store(backup.store, backup.hosts, tell)
        wrong = clock(store, backup.name, at)
        store.trial()
        warnings += [wrong] if wrong else []
        enter_lab(backup.hosts)
        hosts = connect(targets(backup), Claim(0))
        tell("asking the members")
        try:
            chosen = choose(backup, hosts, at)
        finally:
            hosts.close()
        warnings += chosen.warnings
        about = f"revision {chosen.status.revision}, {size(chosen.status.db_size)}"
        tell(f"saving on {chosen.target.name} ({chosen.node.host}): {about}")
        if bring:
            tell(f"bringing {' and '.join(t.name for t in bring)} along, from {backup.hosts.tools.upload}")
        sidecar, uncounted = _taken(backup, store, chosen, bring, at, tell)
        warnings += [uncounted] if uncounted else []
        values |= _success(sidecar, time.monotonic() - began)
        pruned = [] if wrong else _pruned(backup, store, tell, warnings)
    except BaseException:
        _measured(backup, values, warnings)
        for text in warnings:  # which the error, that is all that comes of this, does not have
            tell(f"warning: {text}")
        raise
    _measured(backup, values, warnings)
    return Saved(sidecar, time.monotonic() - began, tuple(pruned), tuple(warnings))


def clock(store: Store, cluster: str, now: datetime) -> str:
    """What is wrong with a clock, as the store's newest files tell; "" where nothing is.

    Raises StoreTrouble where the store cannot be read, which is thus found out before any host has any work.
    """
    ahead = [e.name for e in store.entries() if e.at > now + catalogue.AHEAD and cluster_of(e.name) == cluster]
    if not ahead:
        return ""
    return (
        f"{store.url} says that {ahead[-1]} was written in the future, so a clock is wrong: compare `date -u` here and "
        "there; nothing is pruned until that is mended"
    )


def _taken(
    backup: Backup, store: Store, chosen: Chosen, bring: tuple[Tool, ...], at: datetime, tell: Tell
) -> tuple[Sidecar, str]:
    """The stored snapshot; and why its objects could not be counted, "" where they were."""
    order = Order(chosen.target, f"{backup.name}-{int(at.timestamp())}", chosen.status.db_size, bring)
    with Taking(Link(Address.of(chosen.target)), order) as taking:
        taking.save()
        status = _status(taking.status, chosen)
        tell(f"{size(taking.size)} at revision {status.revision}; to {store.url}")
        kinds = beside(lambda: _kinds(chosen, taking.tool("etcdctl"), status.revision))
        facts = shipping.Facts(
            cluster=backup.name,
            at=at,
            revision=status.revision,
            etcd=chosen.status.version,
            kubernetes=chosen.kubernetes,
            member=chosen.target.name,
            cluster_id=f"{chosen.status.cluster_id:x}",
            fingerprints=dict(chosen.fingerprints),
        )
        counted = lambda: replace(facts, kinds=kinds.result()[0])  # noqa: E731 # known once all has been sent
        sidecar = shipping.ship(
            store, taking.pieces(), facts, backup.recipients, compress=backup.compress, late=counted
        )
        return sidecar, kinds.result()[1]


def _status(text: str, chosen: Chosen) -> parse.SnapshotStatus:
    """What etcdutl says of it. Raises Refused where it says nothing, or that there are no keys."""
    try:
        status = parse.snapshot_status(text)
    except parse.ParseError as error:
        why = f"etcdutl on {chosen.target.name} cannot read the snapshot: {error}"
    else:
        if status.total_key:
            return status
        why = f"the snapshot of {chosen.target.name} holds no key"
    raise Refused(
        why,
        true="no snapshot was stored, and nothing is left on the host",
        means="the newest snapshot is the one before",
        next=(f"runbook snapshot save {shlex.quote(str(chosen.target.plan.file))}",),
    )


def _kinds(chosen: Chosen, program: str, revision: int) -> tuple[dict[str, int], str]:
    """Objects by kind at that revision, as the member lists them; or why they could not be counted."""
    n = chosen.target
    paths, url = n.node.paths, n.node.client_urls[0]
    etcdctl = (
        program,
        f"--cacert={paths.etcd_ca}",
        f"--cert={paths.etcd_cert}",
        f"--key={paths.etcd_key}",
    )
    ask = script(listing.LIST, url, "", str(LISTING), str(revision), "all", *etcdctl, timeout=LISTING + 30)
    link = Link(Address.of(n))
    try:
        result: Result = errands.ask(link, [replace(ask, large=True)])[0]
    finally:
        link.drop()
    listed, why = listing.lines(result)
    ended = listed[-1].split() if listed else []
    if ended[:1] != ["page"] or ended[3:4] != ["end"]:
        why = why or (" ".join(ended[1:]) if ended[:1] == ["failed"] else "") or result.tail(1) or "it took too long"
        return {}, f"the objects by kind were not counted: {why[:200]}"
    kinds: dict[str, int] = {}
    for place, _, _ in listing.objects(listed):
        kinds[named(place)] = kinds.get(named(place), 0) + 1
    return dict(sorted(kinds.items(), key=lambda pair: (-pair[1], pair[0]))), ""


def _pruned(backup: Backup, store: Store, tell: Tell, warnings: list[str]) -> list[str]:
    """What was let go; that a store does not let go of it is no reason to call the snapshot a failure."""
    gone: list[str] = []
    try:
        now = datetime.now(UTC)
        for name in pruning.carry_out(store, pruning.judge(catalogue.read(store, now), backup.name, backup.keep, now)):
            tell(f"pruned {name}")
            gone.append(name)
    except StoreTrouble as error:
        warnings.append(f"not all that is old was pruned: {error.what}; {error.do}")
    return gone


def _success(sidecar: Sidecar, seconds: float) -> dict[str, float]:
    return {
        "last_run_success": 1,
        "last_success_timestamp_seconds": sidecar.taken.timestamp(),
        "verified_timestamp_seconds": datetime.fromisoformat(sidecar.verified).timestamp(),
        "size_bytes": sidecar.size,
        "stored_size_bytes": sidecar.stored.size,
        "revision": sidecar.revision,
        "duration_seconds": seconds,
    }


def _measured(backup: Backup, values: Mapping[str, float], warnings: list[str]) -> None:
    """Metrics of what happened, also where it failed."""
    if backup.metrics is None:
        return
    try:
        metrics.write(backup.metrics, backup.name, values, time.time())
    except OSError as error:
        warnings.append(f"no alert hears of this: spec.metrics, {backup.metrics}: {error.strerror}")
