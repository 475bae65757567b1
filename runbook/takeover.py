"""``runbook adopt``: from the hosts named on the command line to a run's directory on this machine."""

from __future__ import annotations

import contextlib
import os
import re
import secrets
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import yaml

from runbook import __version__, adopt, evidence, lineage, planfile, runs
from runbook.adopt import PLAN, SETTINGS, Held, Seen, Typed
from runbook.copies import JOURNAL, NO_DIRECTORY, SUPERSEDED, Copies
from runbook.errors import NOTE, Halted, UsageError
from runbook.held import adoption
from runbook.journal import Journal, now
from runbook.lineage import Choice
from runbook.plan import Node, Paths, Plan, Snapshot, Ssh
from runbook.replay import Replay
from runbook.step import Binding, Result, Step, Target
from runbook.transport import ANY, Claim, RunHosts

LOCAL = "this machine"
WORKSPACE = Paths().workspace
"""Where runs lie on a host whose plan says nothing else."""
PLACE = re.compile(
    r"(?:\[([^\[\]]+)\]|([^-:\[\]][^:\[\]]*))(?::([1-9][0-9]{0,4}))?|([0-9a-fA-F]*:[0-9a-fA-F:.]*:[0-9a-fA-F.]*)"
)
"""A host and its port: ``cp1``, ``cp1:2222``, ``[fd00::1]:2222``, ``fd00::1``."""
Connect = Callable[[Sequence[Target], Claim], RunHosts]


@dataclass(frozen=True)
class Adopted:
    """What came of it: the run, its state, what the copies differed in, which hosts know of the new epoch.

    ``silent``: the hosts that do not, and why. ``again`` is the command that tells them too.
    """

    run: runs.Run
    past: Replay
    choice: Choice
    informed: tuple[str, ...]
    silent: Mapping[str, str]
    again: str


def targets_of(words: Sequence[str], ssh: Ssh) -> list[Target]:
    """The hosts of the command line, ``[user@]host[:port]``, as targets of no plan. Raises UsageError.

    Port 0 leaves it to ``~/.ssh/config``, as ``ssh`` itself does: no plan is known yet that would say otherwise.
    """
    nodes = []
    for word in words:
        user, at, place = word.rpartition("@")
        found = PLACE.fullmatch(place)
        if not found or (at and not user):
            raise UsageError(
                f"--host {word!r}: it should be HOST, USER@HOST or USER@HOST:PORT", true="nothing was changed"
            )
        host, port = found[1] or found[2] or found[4], int(found[3] or 0)
        nodes.append(Node(host, host, (), (), ssh=replace(ssh, user=user or ssh.user, port=port)))
    plan = Plan("adopt", Snapshot("", Path("/")), tuple(nodes))
    return [Target(plan, Binding(run="adopt"), node) for node in nodes]


def take_over(
    typed: Typed,
    ssh: Ssh,
    connect: Connect,
    steps: Sequence[Step],
) -> Adopted:
    """Find the run on these hosts, take the best copy of its journal, and raise the epoch.

    ``steps`` are the procedure's. Raises UsageError, Halted, and Held where a process of this machine works on the run.
    """
    first = targets_of(typed.words, ssh)
    with contextlib.closing(connect(first, Claim(0))) as hosts:
        seen = adopt.look(hosts, first, (typed.workspace,))
        run_id = adopt.run_of(seen, typed)
        copies = adopt.fetch(hosts, _dirs(seen, run_id))
    run = runs.Run(runs.state_dir() / "runs" / run_id)
    own = _own(run)
    choice = lineage.choose(copies | own, run_id, typed)
    text = _with_ssh(choice.settings or choice.plan, typed.given)
    plan, _ = planfile.read(text, run.plan_path, base=Path(str(choice.past.header.get("plan_base", "/"))))
    everyone = [Target(plan, Binding(run=run_id, holder=runs.holder()), node) for node in plan.nodes]
    with contextlib.closing(connect(everyone, Claim(0))) as hosts:
        copies = adopt.fetch(hosts, {t.name: t.run_dir for t in everyone})
    choice = lineage.choose(copies | own, run_id, typed)
    commands = {name: h.commands for name, h in copies.items() if isinstance(h, Held) and not h.here}
    told = evidence.gather(commands, choice.past, steps)
    found = evidence.lines(told, choice.past, steps)
    choice = replace(choice, differs=(*choice.differs, *told.told()))
    settings = _with_ssh(choice.settings or choice.plan, typed.given)
    past, shared = _write(run, choice, found, commands, settings, everyone, connect)
    informed = tuple(name for name, result in shared.items() if result.ok)
    silent = {t.name: _why(shared.get(t.name)) for t in everyone if t.name not in informed}
    answered = next((t for t in everyone if isinstance(copies.get(t.name), Held)), everyone[0])
    return Adopted(run, past, choice, informed, silent, adoption(answered.place, run_id))


def claims(done: Adopted) -> list[str]:
    """What is now true of an engine that may still work on the run elsewhere. Raises Halted where no host knows."""
    if not done.informed:
        told = "; ".join(f"{name}: {why}" for name, why in done.silent.items())
        raise Halted(
            f"no host knows that {done.run.id} was taken over: {told}",
            true=f"no service was changed; plan and journal are in {done.run.path} now",
            means="an engine that still works on this run elsewhere can go on with it",
            next=(f"{done.again}{NOTE}again, once hosts answer and can write", f"runbook status {done.run.id}"),
        )
    where = "" if not done.silent else f" on {', '.join(done.informed)}"
    said = [f"no service was changed; an engine that still works on this run elsewhere can change nothing more{where}"]
    if done.silent:
        said.append(f"on {', '.join(done.silent)} it still can, until this command, or a resume, has reached them")
    return said


def _why(result: Result | None) -> str:
    """Why a host did not take the new epoch."""
    if result is None:
        return "it was not asked"
    if result.code == NO_DIRECTORY:
        return "it has no directory of this run"
    return result.tail() or f"exit code {result.code}"


def _dirs(seen: Mapping[str, Seen | str], run_id: str) -> dict[str, str]:
    known = {host: s.dirs for host, s in seen.items() if isinstance(s, Seen)}
    return {host: dir_ for host, dirs in known.items() for dir_ in dirs if dir_.rsplit("/", 1)[-1] == run_id}


def _own(run: runs.Run) -> dict[str, Held]:
    """What this machine itself has of the run, where it has anything: its journal may be the best."""
    files = {}
    for name, path in ((JOURNAL, run.journal_path), (PLAN, run.plan_path), (SETTINGS, run.settings_path)):
        with contextlib.suppress(OSError):
            files[name] = path.read_bytes()
    return {LOCAL: adopt.held(files, here=True)} if files else {}


def _with_ssh(text: bytes, given: Mapping[str, str]) -> bytes:
    """The plan's text with other ssh settings for all hosts; as it is where none are given."""
    if not given:
        return text
    document = yaml.safe_load(text)
    spec = document["spec"]
    for owner in (*spec["nodes"], *spec.get("workers", [])):
        if isinstance(owner, dict):
            for key in given:
                owner.get("ssh", {}).pop(key, None)
    spec["ssh"] = {**spec.get("ssh", {}), **given}
    return yaml.safe_dump(document, sort_keys=False, allow_unicode=True).encode()


def _write(
    run: runs.Run,
    choice: Choice,
    found: Sequence[evidence.Found],
    commands: Mapping[str, Sequence[str]],
    settings: bytes,
    everyone: Sequence[Target],
    connect: Connect,
) -> tuple[Replay, dict[str, Result]]:
    """The run's directory here, then the new epoch on every host that answers; their answers. Raises Halted."""
    base = choice.past.header.get("plan_base", "/")
    with _journal(run, choice) as journal:
        journal.epoch = choice.epoch + 1
        said = {"holder": runs.holder(), "version": __version__, "from": choice.source, "differs": list(choice.differs)}
        said["owner"] = owner = secrets.token_hex(8)
        journal.append("adopted", said)
        for line in found:
            journal.append(line.event, line.fields, step=line.step)
        for line in evidence.records(commands, run.replay()):
            journal.append(line.event, line.fields, step=line.step, host=line.host)
        if settings != choice.plan:
            _put(run.settings_path, settings)
            journal.append("settings", {"file": "adopt", "base": base})
        with contextlib.closing(connect(everyone, Claim(journal.epoch, owner, (ANY,)))) as hosts:
            shared = Copies(hosts, [t.name for t in everyone], journal, run.files).share()
        past = run.replay()
    newer = [name for name, result in shared.items() if result.code == SUPERSEDED]
    if newer:
        raise Halted(
            f"another machine has taken {run.id} over: {', '.join(newer)} would not have this one",
            true="no service was changed",
            means="only one engine may work on a run; ask who else is at it",
            next=(adoption(everyone[0].place, run.id),),
        )
    return past, shared


@contextlib.contextmanager
def _journal(run: runs.Run, choice: Choice) -> Iterator[Journal]:
    """The run's directory here, with the chosen journal in it; a different one is kept beside."""
    run.path.mkdir(mode=0o700, exist_ok=True)
    with run.held_here():
        _put(run.plan_path, choice.plan)
        old = run.journal_path.read_bytes() if run.journal_path.exists() else b""
        if old and old != choice.journal:
            _put(run.path / f"journal.jsonl.before-{now().replace(':', '')}", old)
        _put(run.journal_path, choice.journal)
        journal = Journal(run.journal_path)
        try:
            yield journal
        finally:
            journal.close()


def _put(path: Path, content: bytes) -> None:
    part = path.with_name(f"{path.name}.part")
    with open(part, "wb", opener=runs.private) as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    part.replace(path)
