"""What the commands on stored snapshots do, from what was typed to what is told; ``cli`` only reads the arguments.

Each gives a document for programs and a text for people. Raises RunbookError alone: :func:`told` turns a store's and a
snapshot's errors into one that says what is true and what to type.
"""

from __future__ import annotations

import contextlib
import os
import shlex
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from runbook import planfile
from runbook.backup import Backup, Place
from runbook.checks.words import size
from runbook.errors import NOTE, Refused, UsageError
from runbook.plan import Plan
from runbook.planfile.charset import masked
from runbook.planfile.places import store_url
from runbook.snapshots import catalogue, pruning
from runbook.snapshots.finding import aged
from runbook.snapshots.opening import open_store
from runbook.snapshots.sealing import IDENTITY, Locked, NoKey, Unsealable, identities_of
from runbook.snapshots.stores import Store, StoreTrouble
from runbook.snapshots.trailer import NotASnapshot
from runbook.tables import columns, duration, stamp

Tell = Callable[[str], None]


@dataclass(frozen=True)
class Where:
    """A store, as it was named: by a backup plan, or by its URL."""

    word: str
    place: Place
    store: Store
    backup: Backup | None = None

    @property
    def cluster(self) -> str:
        """Whose snapshots are meant; "" where no plan says it."""
        return self.backup.name if self.backup else ""

    def typed(self, command: str) -> str:
        """A command to type about this store."""
        return typed(command, self.word)


@contextlib.contextmanager
def told(next_: Sequence[str], means: str = "what is stored is as it was") -> Iterator[None]:
    """A store's errors, and a snapshot's, in the words of all others; exit code 3, or 2 for a key that is none."""
    true = "nothing half-written was left, and no host is changed"
    try:
        yield
    except StoreTrouble as error:
        raise Refused(str(error), true=true, means=means, next=next_) from error
    except NotASnapshot as error:
        raise Refused(f"the snapshot: {error}", true=true, means=means, next=next_) from error
    except Unsealable as error:
        key = f"export {IDENTITY}=FILE{NOTE}the file with the identity: age's, or an SSH private key"
        keys = (key,) if isinstance(error, Locked) else ()
        raise Refused(f"the snapshot: {error}", true=true, means=means, next=(*keys, *next_)) from error
    except NoKey as error:
        raise UsageError(str(error), true="nothing was changed", means=means, next=next_) from error


def backup_of(path: Path, tell: Tell) -> Backup:
    """The backup plan in that file; its warnings are told. Raises PlanErrors."""
    backup, warnings = planfile.load_backup(path)
    for warning in warnings:
        tell(str(warning))
    return backup


def where(word: str, tell: Tell, endpoint: str = "", region: str = "") -> Where:
    """The store that a plan's path, or a URL, names. Raises UsageError, Refused, PlanErrors."""
    if "://" not in word:
        backup = backup_of(Path(word), tell)
        with told([f"runbook validate {shlex.quote(word)}"]):
            return Where(word, backup.store, open_store(backup.store, backup.hosts, tell), backup)
    fault = store_url(word)
    if word.startswith("host://"):
        fault = fault or "needs a plan that says how to reach the node: name the backup plan instead"
    if fault:
        raise UsageError(
            f"{masked(word)} {fault}",
            true="nothing was changed",
            means="a store is named by a backup plan, or as file:///DIRECTORY, s3://, gs:// or az://BUCKET/PREFIX",
            next=("runbook snapshot list --help",),
        )
    place = Place(word, endpoint, region)
    with told([f"runbook snapshot list {shlex.quote(word)}{NOTE}after mending that"]):
        return Where(word, place, open_store(place, None, tell))


@dataclass(frozen=True)
class Source:
    """A snapshot as it was named, and with what its store is reached and it is opened."""

    word: str
    place: Place
    hosts: Plan | None
    identities: Sequence[Any]
    tell: Tell
    cluster: str = ""

    def store(self, url: str) -> Store:
        """The store of that URL. Raises StoreTrouble."""
        return open_store(replace(self.place, url=url), self.hosts, self.tell)


def source(word: str, plan: Path | None, identity_file: Path | None, endpoint: str, region: str, tell: Tell) -> Source:
    """What the options come to; what is typed is stronger than what a plan says."""
    backup = backup_of(plan, tell) if plan else None
    told_ = backup.store if backup else Place("")
    place = replace(told_, endpoint=endpoint or told_.endpoint, region=region or told_.region)
    keys = identities(identity_file)
    hosts, cluster = (backup.hosts, backup.name) if backup else (None, "")
    return Source(word, place, hosts, keys, tell, cluster)


def identities(file: Path | None) -> list[Any]:
    """The identities in that file, or in the one that the environment names; none where neither says any."""
    path = file or (Path(named) if (named := os.environ.get(IDENTITY)) else None)
    if path is None:
        return []
    try:
        with told([f"ls -l {shlex.quote(str(path))}"]):
            return identities_of(path.expanduser())
    except OSError as error:
        raise UsageError(
            f"{path}: {error.strerror}: the identities cannot be read",
            true="nothing was changed",
            means="without one of them no encrypted snapshot can be opened",
            next=(f"ls -l {shlex.quote(str(path))}",),
        ) from error


# list.


def listed(at: Where, now: datetime) -> tuple[dict[str, Any], str, list[str]]:
    """What the store holds: a document, a text, and what should be known of it."""
    with told([f"{at.typed('list')}{NOTE}after mending that"]):
        found = catalogue.read(at.store, now)
    document = {
        "store": at.store.url,
        "newest": newest.name if (newest := found.newest(at.cluster)) else None,
        "snapshots": [_document(item, now) for item in found.items],
        "orphans": [s.name for s in found.orphans],
        "foreign": list(found.foreign),
    }
    return document, _table(found, at, now), _warnings(found, at, now)


def _document(item: catalogue.Item, now: datetime) -> dict[str, Any]:
    known: dict[str, Any] = {"name": item.name, "good": item.good, "why": item.why, "stored_size": item.entry.size}
    if item.sidecar:
        fields = asdict(item.sidecar)
        stored = fields.pop("stored")
        known |= fields | {"age_seconds": round((now - item.sidecar.taken).total_seconds())}
        known |= {"compressed": stored["compressed"], "recipients": list(stored["recipients"])}
        known["encrypted"] = "age" if stored["recipients"] else ""
    return known


def _table(found: catalogue.Catalogue, at: Where, now: datetime) -> str:
    if not found.items:
        return f"{at.store.url} has no snapshot."
    rows = [("", "AGE", "REVISION", "SIZE", "STORED", "VERIFIED", "ENCRYPTED", "NAME")]
    for item in found.items:
        side = item.sidecar
        seen = (
            (aged(side.taken, now).removesuffix(" old"), str(side.revision), size(side.size), size(item.entry.size))
            if side
            else ("?", "?", "?", size(item.entry.size))
        )
        verified = stamp(side.verified) if side and side.verified else "never"
        sealed = "age" if side and side.stored.recipients else ("?" if side is None else "no")
        rows.append(("+" if item.good else "-", *seen, verified, sealed, item.name))
    told_ = [f"{i.name}: {i.why or 'it was never verified'}" for i in found.items if not i.good]
    return "\n".join([*columns(rows), *([""] if told_ else []), *told_])


def _warnings(found: catalogue.Catalogue, at: Where, now: datetime) -> list[str]:
    told_ = []
    newest = found.newest(at.cluster)
    if found.items and newest is None:
        of = f" of {at.cluster}" if at.cluster else ""
        told_.append(f"no snapshot{of} here is verified: runbook snapshot verify URL says whether one is whole")
    if at.backup and newest and newest.sidecar:
        from runbook.planfile.cron import longest_gap

        most = 2 * longest_gap(at.backup.schedule.when)
        if (now - newest.sidecar.taken).total_seconds() > most:
            told_.append(f"the newest good one is older than two intervals of the schedule ({duration(most)})")
    told_ += [f"{s.name} is gone, and its sidecar was left: prune takes it away" for s in found.orphans]
    if found.foreign:
        told_.append(f"{len(found.foreign)} files here are not runbook's, and are left alone")
    return told_


def plan_of(word: str, command: str, tell: Tell) -> Backup:
    """The plan that was named. Raises UsageError for a URL, where a command needs more than a store; PlanErrors."""
    if "://" in word:
        raise _no_plan(word, command)
    return backup_of(Path(word), tell)


def _no_plan(word: str, command: str) -> UsageError:
    return UsageError(
        f"{masked(word)} is a store's URL, and {command} takes a backup plan",
        true="nothing was changed",
        means="only a plan says which cluster is meant, and what is kept of it",
        next=(f"runbook snapshot {command} PLAN",),
    )


def typed(command: str, word: str) -> str:
    """A command to type about this plan or store."""
    return f"runbook snapshot {command} {shlex.quote(word)}"


# prune.


def prune(at: Where, *, dry_run: bool, confirm: Callable[[str], None], tell: Tell) -> tuple[dict[str, Any], str]:
    """Let go what no tier keeps. Raises UsageError where no plan says what is kept."""
    backup = at.backup
    if backup is None:
        raise _no_plan(at.word, "prune")
    now = datetime.now(UTC)
    gone: list[str] = []
    with told([at.typed("list")], "what is gone is gone, and all else is as it was"):
        judged = pruning.judge(catalogue.read(at.store, now), backup.name, backup.keep, now)
        if not dry_run and (judged.goes or judged.orphans):
            names = [v.name for v in judged.goes] + [f"{name}.json (its snapshot is gone)" for name in judged.orphans]
            many = f"{len(judged.goes)} of {len(judged.goes) + len(judged.kept)} snapshots of {backup.name}"
            many += f" and {len(judged.orphans)} sidecars without one" if judged.orphans else ""
            confirm("\n".join([f"  {name}" for name in names] + [f"Remove these ({many}) from {at.store.url}?"]))
            for name in pruning.carry_out(at.store, judged):
                tell(f"removed {name}")
                gone.append(name)
    document = {
        "store": at.store.url,
        "dry_run": dry_run,
        "kept": [{"name": v.name, "at": v.at, "why": list(v.why)} for v in judged.kept],
        "goes": [{"name": v.name, "at": v.at} for v in judged.goes],
        "removed": gone,
        "orphans": list(judged.orphans),
    }
    rows = [("", "TAKEN", "NAME", "KEPT FOR")]
    rows += [("keep", stamp(v.at), v.name, ", ".join(v.why)) for v in judged.kept]
    rows += [("go" if dry_run else "gone", stamp(v.at), v.name, "") for v in judged.goes]
    text = "\n".join(columns(rows)) if len(rows) > 1 else f"{at.store.url} has no snapshot of {backup.name}."
    return document, text
