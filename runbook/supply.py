"""A plan's snapshot that is kept in a store: found there, and brought here, opened and proven, before a host needs it.

Nothing of it is left here: the plain copy has no name and ends with this process (``snapshots.scratch``). Which
snapshot a run has is journalled when it begins, so that a later engine, on this machine or another, takes the same one.
What opens it, and what the store asks for, comes from this machine's own files and environment, and is written nowhere.
"""

from __future__ import annotations

import contextlib
import json
import os
import shlex
from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from runbook.connecting import missing_files
from runbook.errors import NOTE, Halted, Refused
from runbook.plan import Place, Plan, Snapshot
from runbook.replay import FOUND
from runbook.snapshots.sealing import IDENTITY
from runbook.tables import utc

if TYPE_CHECKING:
    from runbook.replay import Replay
    from runbook.snapshots.finding import Found
    from runbook.snapshots.stores import Store
    from runbook.step import Step


class _Amiss(Exception):
    """The snapshot is not at hand: ``saw`` what, what to ``do`` about it, and the commands for that."""

    def __init__(self, saw: str, do: str, next_: Sequence[str] = ()) -> None:
        super().__init__(f"{saw}; {do}")
        self.saw, self.do, self.next = saw, do, tuple(next_)


def located(plan: Plan, again: str, stream: TextIO) -> Plan:
    """The plan with the name of the snapshot that it means as of now, which is told on ``stream``.

    Only the store's list and sidecars are read. ``again`` is the command to type again. Raises Refused.
    """
    source = plan.snapshot
    if source.store is None or source.name:
        return plan
    with _refusing(again):
        found = _found(_open(plan), plan)
    with contextlib.suppress(OSError):
        stream.write(f"{source.source} is {found.name}: {_described(found)}\n")
        stream.flush()
    return replace(plan, snapshot=replace(source, name=found.name, fingerprints=_fingerprints(found)))


def _fingerprints(found: Found) -> tuple[tuple[str, str], ...]:
    return tuple(sorted(found.sidecar.fingerprints.items())) if found.sidecar else ()


def _described(found: Found) -> str:
    """What a person should know of it before it is restored."""
    from runbook.checks.words import size
    from runbook.snapshots.finding import aged

    told = found.sidecar
    words = [size(found.size)]
    if found.taken:
        written = "taken" if told else "written"
        words.insert(0, f"{written} {utc(found.taken)} ({aged(found.taken, datetime.now(UTC))})")
    if told is None:
        return ", ".join([*words, "not by runbook: nothing is known of it before it is read"])
    verified = f"verified {utc(datetime.fromisoformat(told.verified))}" if told.verified else "never verified"
    return ", ".join([*words, f"of {told.cluster}, revision {told.revision}", verified])


@contextlib.contextmanager
def at_hand(plan: Plan, again: str, stream: TextIO | None) -> Iterator[Plan]:
    """The plan with its snapshot on this machine while the block lasts; how far it is is told on ``stream``.

    Nothing is fetched where this machine cannot log in to the hosts: whoever asks them next says so. Raises Refused
    where it cannot be had, or is not whole, or not the one that the plan means.
    """
    with contextlib.ExitStack() as held:
        with _refusing(again):
            plan = plan if missing_files(plan) else _fetched(plan, held, stream)
        yield plan


@contextlib.contextmanager
def for_checks(plan: Plan, stream: TextIO) -> Iterator[Plan]:
    """As :func:`at_hand`; where it cannot be had, the plan says why, for the checks to tell beside all else."""
    with contextlib.ExitStack() as held:
        try:
            plan = plan if missing_files(plan) else _fetched(plan, held, stream)
        except _Amiss as error:
            plan = replace(
                plan, snapshot=replace(plan.snapshot, trouble=json.dumps({"saw": error.saw, "do": error.do}))
            )
        yield plan


def as_it_is(plan: Plan) -> Plan:
    """For a command that brings no snapshot to any host."""
    return plan


class Supply:
    """The snapshot of a run that goes on: brought here where it is asked for, and held until the block's end."""

    def __init__(self, past: Replay, sha256: str, again: str) -> None:
        """``sha256`` is the one that the run is bound to, ``again`` the command that goes on with it."""
        self.past, self.sha256, self.again = past, sha256, again
        self._held = contextlib.ExitStack()

    def __enter__(self) -> Supply:
        return self

    def __exit__(self, *_: object) -> None:
        self._held.close()

    def at_first(self, plan: Plan, steps: Sequence[Step], stream: TextIO) -> Plan:
        """The plan as the engine begins with it: with its snapshot, where a host that takes part must be given it yet.

        From the outage on none must, so that nothing of the store can keep the cluster from serving again. An absent
        host is given it when it is back. Raises Halted.
        """
        from runbook.lifecycle import FINISHED

        done = [step.id() for step in steps if self.past.steps.get(step.id()) in FINISHED]
        back = self.past.state in ("rolling-back", "stuck", "rolled-back")
        wanted = not back and any(step.supplied and step.id() not in done for step in steps)
        return self(plan, stream) if wanted and not missing_files(plan) else plan

    def __call__(self, plan: Plan, stream: TextIO | None = None) -> Plan:
        """The plan with the run's own snapshot at hand. Raises Halted where it cannot be had."""
        from runbook import situation

        source = plan.snapshot
        if source.store is None or source.fetched:
            return plan
        name = str(self.past.header.get(FOUND, "")).rpartition("/")[2]
        try:
            named = replace(plan, snapshot=replace(source, name=name))
            return _fetched(named, self._held, stream, self.sha256)
        except _Amiss as error:
            after = situation.remembered(self.past, self.past.run)
            after["next"] = (*error.next, f"{self.again}{NOTE}after mending that", *after["next"][1:])
            raise Halted(f"the snapshot is not at hand: {error}", **after) from error


@contextlib.contextmanager
def _refusing(again: str) -> Iterator[None]:
    """Before anything was begun."""
    try:
        yield
    except _Amiss as error:
        raise Refused(
            f"spec.snapshot.from: {error}",
            true="no host is changed",
            means="nothing was begun: without the snapshot there is nothing to restore",
            next=(*error.next, f"{again}{NOTE}after mending that"),
        ) from error


@contextlib.contextmanager
def _told(place: Place, name: str = "", opened: str = "") -> Iterator[None]:
    """What may go wrong with a store, and with its snapshot of that name, as one kind of error.

    ``opened``: with what it was to be decrypted, in words.
    """
    from runbook.snapshots.finding import NoneFits
    from runbook.snapshots.integrity import SnapshotDamaged
    from runbook.snapshots.sealing import NoKey, Unsealable
    from runbook.snapshots.stores import StoreTrouble
    from runbook.snapshots.urls import to_list

    where = f"{place.url}/{name}" if name else place.url
    another = (f"{to_list(place.url, place.endpoint, place.region)}{NOTE}is there another one?",)
    try:
        yield
    except StoreTrouble as error:
        raise _Amiss(error.what, error.do, another if isinstance(error, NoneFits) else ()) from error
    except SnapshotDamaged as error:
        raise _Amiss(error.message, "nothing was sent to any host", another) from error
    except Unsealable as error:
        do = "the file or its sidecar was changed, or another key is needed: take another snapshot, or that key"
        raise _Amiss(f"{where}: {error}{opened}", do, another) from error
    except NoKey as error:
        raise _Amiss(str(error), f"name a file with one: spec.snapshot.identityFile, or {IDENTITY}") from error
    except OSError as error:
        raise _Amiss(f"{where} cannot be brought here: {error}", "nothing of it was left here") from error


def _open(plan: Plan) -> Store:
    from runbook.snapshots.opening import open_store

    place = _place(plan.snapshot)
    with _told(place):
        return open_store(place, plan)


def _place(source: Snapshot) -> Place:
    if source.store is None:
        raise AssertionError("only what is kept in a store is looked for there")
    return source.store


def _found(store: Store, plan: Plan) -> Found:
    """The snapshot that the plan names, or means as of now."""
    from runbook.snapshots.finding import find
    from runbook.snapshots.urls import Reference, parse_reference

    source = plan.snapshot
    reference = parse_reference(source.source)
    if source.name:
        reference = Reference(reference.place_url, source.name)
    with _told(_place(source)):
        found = find(store, reference, datetime.now(UTC), plan.name)
    if source.sha256 and found.sha256 and found.sha256 != source.sha256:
        saw = f"{store.url}/{found.name} has the sha256 {found.sha256} by its sidecar; the plan says {source.sha256}"
        raise _Amiss(saw, "name the snapshot that the plan means, or correct spec.snapshot.sha256")
    return found


def _fetched(plan: Plan, held: contextlib.ExitStack, stream: TextIO | None, bound: str = "") -> Plan:
    """The plan with its snapshot on this machine for as long as ``held`` is open. Raises _Amiss."""
    from runbook import runs, waiting
    from runbook.snapshots import scratch
    from runbook.snapshots.bringing import Coming, bring
    from runbook.snapshots.integrity import inspect_source

    source = plan.snapshot
    if source.store is None or source.fetched:
        return plan
    store = _open(plan)
    found = _found(store, plan)
    where = f"{store.url}/{found.name}"
    _same(where, found.sha256, bound)
    identities, opened = _identities(source, found, where)
    coming = Coming(f"fetching {where}", found.size)
    with _told(source.store, found.name, opened):
        file, path = held.enter_context(scratch.held(found.plain_size, runs.state_dir))
        mine = replace(source, path=path, name=found.name, fingerprints=_fingerprints(found))
        with waiting.told(stream, lambda: str(coming)) if stream else contextlib.nullcontext():
            bring(store, found, identities, file, str(path.parent), coming)
            facts = inspect_source(mine)
    _same(where, facts.sha256, bound)
    return replace(plan, snapshot=mine)


def _same(where: str, sha256: str, bound: str) -> None:
    """Raises _Amiss where a run would go on with another snapshot than the one that it began with."""
    if bound and sha256 and sha256 != bound:
        saw = f"{where} now has the sha256 {sha256}; this run is bound to {bound}"
        raise _Amiss(saw, "somebody put another file there: bring the right one back, or begin a new run")


def _identities(source: Snapshot, found: Found, where: str) -> tuple[list[Any], str]:
    """What opens it, from this machine's own files, and a word on that; nothing where it takes nothing."""
    from runbook.snapshots.sealing import identities_of

    if not (found.sidecar and found.sidecar.stored.recipients):
        return [], ""
    keys = ", ".join(found.sidecar.stored.recipients)
    own = os.environ.get(IDENTITY, "")
    file = Path(own).expanduser() if own else source.identity_file
    if file is None:
        raise _Amiss(
            f"{where} is encrypted to {keys}, and no identity was given to open it with",
            f"name the file that has it: spec.snapshot.identityFile, or {IDENTITY}",
            (f"export {IDENTITY}=FILE{NOTE}FILE: an age identity (AGE-SECRET-KEY-…), or an SSH private key",),
        )
    with _told(_place(source), found.name):
        try:
            return identities_of(file), f" (encrypted to {keys}; the identity is from {file})"
        except OSError as error:
            what = IDENTITY if own else "spec.snapshot.identityFile"
            raise _Amiss(
                f"{where} is encrypted, and {what}, {file}, cannot be read: {error.strerror}",
                "name the file that has the identity",
                (f"ls -l {shlex.quote(str(file))}",),
            ) from error
