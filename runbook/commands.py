"""What each command does, from the plan or the run to the exit code; ``cli`` only reads the arguments.

Heavy modules are imported where they are used, so that ``--help`` and ``validate`` stay quick.
"""

from __future__ import annotations

import contextlib
import secrets
import signal
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from runbook import __version__, runs, situation
from runbook.bind import binding_for_checks, bound_plan, full_binding, keep_settings, newer_settings, preview_binding
from runbook.errors import Held, Interrupted, Refused, RunbookError, UsageError
from runbook.plan import Plan, Ssh
from runbook.step import Binding, Target
from runbook.transport import Claim

__all__ = ["binding_for_checks", "preview_binding"]

if TYPE_CHECKING:
    from runbook.checks import Finding
    from runbook.engine import Engine
    from runbook.journal import Journal
    from runbook.procedure import Procedure
    from runbook.progress import Progress
    from runbook.replay import Replay
    from runbook.transport import RunHosts


def kubeadm() -> Procedure:
    """The procedure for kubeadm's control planes, the only one so far."""
    from runbook.procedure import Procedure
    from runbook.procedures import kubeadm
    from runbook.procedures.byhand import by_hand

    return Procedure(kubeadm.STEPS, kubeadm.LOCK_STEP, kubeadm.may_roll_back, kubeadm.sweep, by_hand)


# Connections.


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
            next=("runbook lab up",),
        )
    lab.enter_operator()


def targets(plan: Plan, bound: Binding) -> list[Target]:
    """Every host of the plan, for this run."""
    return [*(Target(plan, bound, n) for n in plan.nodes), *(Target(plan, bound, w) for w in plan.workers)]


def _hosts(plan: Plan, claim: Claim) -> Callable[[Binding], RunHosts]:
    from runbook.hosts import connect

    enter_lab(plan)
    return lambda bound: connect(targets(plan, bound), claim)


# validate, preview.


def validate(paths: Sequence[Path]) -> tuple[list[Any], list[Any]]:
    """All errors and all warnings of all plans."""
    from runbook import planfile

    problems = [problem for path in paths for problem in planfile.validate(path)]
    return [p for p in problems if not p.warning], [p for p in problems if p.warning]


def check(plan: Plan) -> tuple[list[Finding], Binding]:
    """All read-only checks, on all hosts at once."""
    from runbook.asking import RealClock
    from runbook.checks.survey import inspect

    bound, _ = binding_for_checks(plan)
    hosts = _hosts(plan, Claim(0))(bound)
    try:
        return inspect("preflight", plan, bound, hosts, targets(plan, bound), RealClock()), bound
    finally:
        hosts.close()


def refuse(findings: Sequence[Finding]) -> None:
    """Raises Held or Refused where a finding blocks: Held first, because a running restore explains the rest."""
    from runbook.checks import Severity

    for severity, kind in ((Severity.HELD, Held), (Severity.BLOCKS, Refused)):
        no = [f for f in findings if f.severity is severity]
        if no:
            shown = "\n".join(f"  {f.host or 'here'}: {f.saw}" + (f"; {f.do}" if f.do else "") for f in no)
            raise kind(f"{len(no)} finding{'s' if len(no) > 1 else ''} in the way:\n{shown}", true="no host is changed")


# run, resume, rollback, finish.


@contextlib.contextmanager
def _polite_end() -> Iterator[None]:
    """SIGTERM is as Ctrl-C; a second one of either ends at once."""

    def once(*_: object) -> NoReturn:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        raise KeyboardInterrupt

    before = {number: signal.signal(number, once) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _work(
    run: runs.Run,
    plan: Plan,
    bound: Binding,
    command: str,
    progress: Progress,
    work: Callable[[Engine, Journal], None],
    without: Sequence[str] = (),
) -> Replay:
    """One life of the engine on a run, with everything around it: lock, epoch, connections, view, interrupts."""
    from runbook import log
    from runbook.asking import RealClock
    from runbook.debts import declare
    from runbook.engine import Engine
    from runbook.replay import replay

    procedure = kubeadm()
    with run.locked() as journal, _polite_end():
        journal.epoch += 1
        journal.listener = progress
        progress.start(plan, procedure.steps, run.id, journal.lines)
        with contextlib.suppress(OSError):  # a debug log that cannot be written keeps nobody from restoring
            log.open_log(run.path / "debug.log")
        hosts, failure = None, None
        try:
            owner = secrets.token_hex(8)
            claim = Claim(journal.epoch, owner, replay(journal.lines).owners)
            said = {"command": command, "holder": runs.holder(), "version": __version__, "owner": owner}
            journal.append("engine", said)
            declare(plan, journal, without)
            hosts = _hosts(plan, claim)(bound)
            engine = Engine(plan, bound, procedure, hosts, journal, RealClock(), run.files, without)
            work(engine, journal)
        except RunbookError as error:
            failure = error
        except KeyboardInterrupt:
            failure = _interrupted(run, journal)
        except Exception:
            log.logger().error("a fault of the program's own", exc_info=True)
            raise
        finally:
            journal.listener = lambda _: None
            if hosts is not None:
                hosts.close()
            log.close_log()
        past = replay(journal.lines)
        progress.stop(failure, past)
    if failure:
        failure.told = True
        raise failure
    return past


def _interrupted(run: runs.Run, journal: Journal) -> Interrupted:
    from runbook.replay import replay

    past = replay(journal.lines)
    if past.state in ("planned", "preparing", "outage", "verifying"):
        journal.append("state", {"from": past.state, "to": "halted", "why": "interrupted"})
        past = replay(journal.lines)
    return Interrupted(
        "interrupted: what was begun on the hosts goes on there by itself", **situation.describe(past, run.id)
    )


def start(plan: Plan, bound: Binding, preview_digest: str, progress: Progress, without: Sequence[str] = ()) -> Replay:
    """``run``: a new run, from its directory to its end; ``without`` these nodes, which are owed their steps."""
    from runbook.debts import most_absent

    most_absent(plan, without)
    bound = full_binding(plan, bound, _hosts(plan, Claim(0)))
    bound = replace(bound, run=runs.new_id(plan.name), holder=runs.holder())
    header = {
        "plan": plan.name,
        "plan_file": str(plan.file.absolute()),
        "plan_base": str(plan.file.absolute().parent),
        "plan_digest": plan.digest(),
        "plan_sha256": plan.text_sha256,
        "ticket": plan.ticket,
        "snapshot": plan.snapshot.source,
        "snapshot_sha256": bound.sha256,
        "etcdctl_sha256": bound.etcdctl_sha256,
        "etcdutl_sha256": bound.etcdutl_sha256,
        "preview_digest": preview_digest,
        "version": __version__,
        "holder": bound.holder,
        "nodes": [n.name for n in plan.nodes],
        "workers": [w.name for w in plan.workers],
    }
    run = runs.create(bound.run, plan.text, header)
    return _work(run, plan, bound, "run", progress, lambda engine, _: engine.forward(), without)


def resume(
    run: runs.Run, plan_file: Path | None, progress: Progress, without: Sequence[str] = ()
) -> tuple[Replay, str]:
    """Go on with a run; the replayed state, and a word where there was nothing to do."""
    past = run.replay()
    if (past.state == "complete" and not past.absent) or (past.closed and past.accepted):
        return past, "this run is complete and owes nothing"
    if past.state == "rolled-back":
        raise UsageError(
            f"{run.id} was rolled back: there is nothing to resume",
            true="the old data, manifests and services are in place"
            if not past.closed
            else "no host holds anything of it",
            next=(f"runbook finish {run.id}",) if not past.closed else ("runbook run PLAN",),
        )
    same_version(past)
    plan, bound = bound_plan(run, past, settings=plan_file is None)
    if plan_file:
        plan = newer_settings(plan, plan_file)

    def work(engine: Engine, journal: Journal) -> None:
        if plan_file:
            keep_settings(run, plan_file, journal)
        _go_on(engine, journal)

    return _work(run, plan, bound, "resume", progress, work, without), ""


def _go_on(engine: Engine, journal: Journal) -> None:
    if engine.run.state in ("rolling-back", "stuck"):
        from runbook.replay import replay

        why = replay(journal.lines).rollback_why
        engine.backward(why or "resumed")
        if why.startswith("preparing failed"):
            raise Refused(
                why, true="no host is changed; what had been prepared was removed again", next=("runbook run PLAN",)
            )
        return
    engine.forward()


def same_version(past: Replay) -> None:
    """A run is finished by the program that began it. Raises UsageError."""
    if not past.header:
        raise UsageError("this run's journal has no first line: nothing was ever begun", next=("runbook run PLAN",))
    begun = past.header.get("version")
    if begun != __version__:
        raise UsageError(
            f"this run was begun by runbook {begun}; this is runbook {__version__}",
            true="nothing was changed just now",
            means="another version may do the steps in another way than was previewed",
            next=(f"pip install runbook=={begun}",),
        )


def rollback(run: runs.Run, discard: bool, progress: Progress, without: Sequence[str] = ()) -> tuple[Replay, str]:
    """Put the old data, manifests and services back."""
    past = run.replay()
    if past.state == "rolled-back" and not (past.absent and not past.closed):
        return past, "this run has already been rolled back"
    if past.finishing:
        raise UsageError(
            f"`runbook finish` has begun to remove what {run.id} left: nothing can be rolled back any more",
            true="the restored cluster serves on",
            next=situation.commands(past, run.id),
        )
    same_version(past)
    if past.begun("StartApiServers") and not discard:
        sentences = situation.describe(past, run.id)
        sentences["next"] = (f"runbook rollback {run.id} --discard-writes", f"runbook resume {run.id}")
        raise UsageError(
            "the restored API servers were started: what was written since is thrown away by a rollback, "
            "so it needs --discard-writes",
            **sentences,
        )
    plan, bound = bound_plan(run, past)

    def work(engine: Engine, journal: Journal) -> None:
        if discard:
            journal.append("consent", {"text": "--discard-writes: what the restored cluster was told is thrown away"})
        engine.backward("asked for by the responder")

    return _work(run, plan, bound, "rollback", progress, work, without), ""


def finish(run: runs.Run, accept: bool, confirm: Callable[[str], None], progress: Progress) -> tuple[Replay, str]:
    """Remove what the run left on the hosts."""
    past = run.replay()
    if past.closed:
        return past, "this run has already been closed"
    served = past.state == "halted" and past.halted_from == "verifying"
    allowed = ("complete", "rolled-back", *(("unverified",) if accept else ()))
    if past.state not in allowed and not past.finishing and not (accept and served):
        hint = "; accept it as it is with --accept" if past.state == "unverified" else ""
        raise UsageError(
            f"{run.id} is {past.state}: finish follows a complete run or a rollback{hint}",
            **situation.describe(past, run.id),
        )
    if past.absent and not accept and not past.finishing:
        sentences = situation.describe(past, run.id)
        sentences["next"] = (situation.owing(past, run.id), f"runbook finish {run.id} --accept")
        raise UsageError(
            f"{run.id} still owes {', '.join(past.absent)} its steps: with the run's directory its way back is gone",
            **sentences,
        )
    same_version(past)
    plan, bound = bound_plan(run, past)
    names = ", ".join(n.name for n in plan.nodes if n.name not in past.absent)
    kept = "the discarded restored data" if past.state == "rolled-back" else "the old data"
    confirm(
        f"Remove {kept}, the snapshot copies and the run's directory from {names}? There is no way back after this."
    )

    def work(engine: Engine, journal: Journal) -> None:
        if past.state in ("unverified", "halted"):
            journal.append("accepted", {"text": "finish --accept"})
        engine.lock.not_anothers()  # what another run is restoring beside must not lose its way back
        engine.sweep()

    return _work(run, plan, bound, "finish", progress, work), ""


# adopt.


def adopt(
    hosts: Sequence[str], identity_file: Path | None, known_hosts_file: Path | None, workspace: str, wanted: str
) -> tuple[dict[str, Any], str]:
    """Take a run over on this machine; what came of it, as a document and as text."""
    from runbook import status, takeover
    from runbook.hosts import connect

    files = {"identityFile": identity_file, "knownHostsFile": known_hosts_file}
    given = {key: str(path.expanduser().absolute()) for key, path in files.items() if path}
    ssh = Ssh(identity_file=identity_file)
    if known_hosts_file:
        ssh = replace(ssh, known_hosts_file=known_hosts_file)

    def connected(there: Sequence[Target], claim: Claim) -> RunHosts:
        enter_lab(there[0].plan)
        return connect(there, claim)

    done = takeover.take_over(hosts, ssh, given, workspace, wanted, connected)
    document = status.document(done.run.lines(), done.past, None)
    document |= {"from": done.choice.source, "differs": list(done.choice.differs), "informed": list(done.informed)}
    lines = [f"{done.run.id}: taken over, from the copy of {done.choice.source}"]
    lines += [f"differs: {text}" for text in done.choice.differs]
    lines += [f"does not know yet: {name} ({why})" for name, why in done.silent.items()]
    lines.append("no service was changed; an engine that still works on this run elsewhere can change nothing more")
    lines += [situation.meaning(done.past), *(f"next: {c}" for c in situation.commands(done.past, done.run.id))]
    return document, "\n".join(lines)


def unexpected(error: BaseException) -> RunbookError:
    """A fault of the program's own, in the words of all other errors."""
    return RunbookError(
        f"a fault of the program's own: {type(error).__name__}: {error}",
        true="what had been begun is in the journal",
        means="a run can be resumed or rolled back",
        next=("runbook status", "runbook resume"),
    )
