"""From a plan to its hosts: the lab's own network where a plan means a lab, and what this machine needs to log in."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from runbook.errors import UsageError
from runbook.plan import Node, Plan, Worker
from runbook.step import Binding, Target

if TYPE_CHECKING:
    from runbook.checks import Finding
    from runbook.transport import Claim, RunHosts


LOCAL_FILES = "LocalFiles"
"""What the findings of :func:`missing_files` are filed under: no check makes them, for a check asks hosts."""
LOCAL_FILES_TITLE = "This machine can read the key and known-hosts files that the plan names"


def enter_lab(plan: Plan) -> None:
    """A plan whose known-hosts file is a lab's goes through that lab's own network.

    Strict host keys make it safe: only that lab's hosts have the keys that the file names.
    """
    known = plan.nodes[0].ssh.known_hosts_file
    if known.name != "known_hosts" or known.parent.parent != Path("/run/runbook-lab"):
        return
    from runbook.lab import Lab

    lab = Lab.of_known_hosts(known)
    if lab is None:
        raise UsageError(
            f"the plan's knownHostsFile {known} belongs to a lab that is not up",
            true="nothing was connected to, and nothing was changed",
            means="there is no lab of that name to restore",
            next=(f"runbook lab --name {known.parent.name} up",),
        )
    lab.enter_operator()


def targets(plan: Plan, bound: Binding) -> list[Target]:
    """Every host of the plan, for this run."""
    return [*(Target(plan, bound, n) for n in plan.nodes), *(Target(plan, bound, w) for w in plan.workers)]


def hosts_of(plan: Plan, claim: Claim) -> Callable[[Binding], RunHosts]:
    """Connects to the plan's hosts, once the binding is known. Raises UsageError for a lab that is not up."""
    from runbook.hosts import connect

    enter_lab(plan)
    return lambda bound: connect(targets(plan, bound), claim)


def dial_ahead(plan: Plan) -> None:
    """Begin to connect to all hosts, for whoever asks :func:`hosts_of` next; errors are told there.

    Not where that is only to hash a snapshot on one of them, nor where one is fetched first, which may take minutes.
    """
    from runbook import hosts

    if plan.snapshot.store or (plan.snapshot.node and not plan.snapshot.sha256):
        return
    enter_lab(plan)
    hosts.dial_ahead(targets(plan, Binding()))


def missing_files(plan: Plan, run: str = "", copy: str = "") -> list[Finding]:
    """What this machine lacks to log in at all: the key and known-hosts files that the plan names, by the plan's key.

    Without them no host can be asked anything, so it is told before one is. ``run``: the plan is that of this run,
    whose text nobody may edit; ``copy`` is where a copy of it may lie, "" where a resume takes none.
    """
    found = []
    for key, path, places in _files(plan):
        why = _unreadable(path)
        if why:
            found.append(_missing(key, path, places, why, _mend(plan, key, places, run, copy)))
    return found


def _files(plan: Plan) -> list[tuple[str, Path, list[Node | Worker]]]:
    """Each file with the place in the plan that names it, and the hosts that it is for."""
    by_file: dict[tuple[str, Path], list[tuple[str, Node | Worker]]] = {}
    places: list[tuple[str, Node | Worker]] = [(f"nodes[{i}]", n) for i, n in enumerate(plan.nodes)]
    places += [(f"workers[{i}]", w) for i, w in enumerate(plan.workers)]
    for where, place in places:
        files = {"knownHostsFile": place.ssh.known_hosts_file, "identityFile": place.ssh.identity_file}
        for key, path in files.items():
            if path:
                by_file.setdefault((key, path), []).append((where, place))
    found = []
    for (key, path), named in by_file.items():
        every = len(named) == len(places)
        where = f"spec.ssh.{key}" if every else f"spec.{named[0][0]}.ssh.{key}"
        found.append((where, path, [p for _, p in named]))
    return found


def _unreadable(path: Path) -> str:
    try:
        with path.expanduser().open("rb"):
            return ""
    except OSError as error:
        return error.strerror or str(error)


def _mend(plan: Plan, key: str, places: Sequence[Node | Worker], run: str, copy: str) -> str:
    """Where to write the right path, and how it then comes to be used."""
    file = shlex.quote(str(plan.file))
    if not run:
        return f"write the right path to {key} in {file}"
    if copy:
        copy = shlex.quote(copy)
        return f"cp {file} {copy}, write the right path to {key} in {copy}, then: runbook resume {run} --plan {copy}"
    from runbook.held import adoption

    option = "--identity-file" if key.endswith("identityFile") else "--known-hosts-file"
    return f"give the run the right path, from now on: {adoption(places[0], run, without=option)} {option} FILE"


def _missing(key: str, path: Path, places: Sequence[Node | Worker], why: str, mend: str) -> Finding:
    from runbook.checks import Finding, Severity

    first = places[0]
    port = f" -p {first.ssh.port}" if first.ssh.port != 22 else ""
    if key.endswith("identityFile"):
        do = f"{mend}; which key it is: ssh{port} -i KEYFILE {first.ssh.user}@{first.host} true"
    else:
        hosts = " ".join(shlex.quote(p.host) for p in places)
        make = f"ssh-keyscan{port} {hosts} >> {shlex.quote(str(path))}"
        do = f"{mend}; or make it, and compare with the hosts' own consoles: {make}"
    return Finding(LOCAL_FILES, "", Severity.BLOCKS, f"{key}: {path}: {why}: no host can be asked without it", do)
