"""What each command does, from the plan or the run to the exit code; ``cli`` only reads the arguments.

Heavy modules are imported where they are used, so that ``--help`` and ``validate`` stay quick.
"""

from __future__ import annotations

import contextlib
import secrets
import shlex
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from runbook import __version__, findings, judging, runs, situation, supply
from runbook.bind import (
    binding_for_checks,
    bound_plan,
    full_binding,
    keep_settings,
    leaving_out,
    newer_settings,
    preview_binding,
    typed,
)
from runbook.connecting import hosts_of, missing_files
from runbook.errors import NOTE, Halted, Interrupted, Refused, RunbookError, UsageError, closing
from runbook.interrupts import polite_end
from runbook.meanwhile import bound_meanwhile, is_late, learned
from runbook.plan import Plan, Ssh
from runbook.planback import again
from runbook.replay import FOUND, PREPARING_FAILED, Replay, replay
from runbook.step import Binding, Target
from runbook.transport import Claim

__all__ = ["binding_for_checks", "bound_meanwhile", "leaving_out", "preview_binding", "typed"]

if TYPE_CHECKING:
    from runbook.engine import Engine
    from runbook.journal import Journal
    from runbook.procedure import Procedure
    from runbook.progress import Progress
    from runbook.transport import RunHosts


def kubeadm() -> Procedure:
    """The procedure for kubeadm's control planes, the only one so far."""
    from runbook.procedure import Procedure
    from runbook.procedures import kubeadm
    from runbook.procedures.byhand import by_hand, put_back
    from runbook.procedures.data import kept, sweep, swept

    words = kubeadm.STEPS, kubeadm.LOCK_STEP, kubeadm.may_roll_back, sweep
    return Procedure(*words, by_hand, kept, put_back, swept)


# validate.


def validate(paths: Sequence[Path]) -> tuple[list[Any], list[Any]]:
    """All errors and all warnings of all plans."""
    from runbook import planfile

    problems = [problem for path in paths for problem in planfile.validate(path)]
    return [p for p in problems if not p.warning], [p for p in problems if p.warning]


# run, resume, rollback, finish.


@dataclass(frozen=True)
class _Sitting:
    """What a command works on: a run whose journal is held, and who watches. ``without`` these nodes, newly.

    ``supply`` brings a snapshot here that is kept in a store, for a node that is back.
    """

    command: str
    run: runs.Run
    journal: Journal
    plan: Plan
    bound: Binding
    progress: Progress
    without: Sequence[str] = ()
    supply: Callable[[Plan], Plan] = supply.as_it_is


def _work(on: _Sitting, work: Callable[[Engine, Journal], None]) -> Replay:
    """One life of the engine on a run, with everything around it: epoch, connections, view, interrupts.

    The journal is held, and what it says was judged under that same lock.
    """
    from runbook import log

    run, journal, progress = on.run, on.journal, on.progress
    procedure = kubeadm()
    failure = None
    with polite_end():
        journal.epoch += 1
        journal.listener = progress
        progress.start(on.plan, procedure.steps, run.id, journal.lines, on.bound)
        with contextlib.suppress(OSError):  # a debug log that cannot be written keeps nobody from restoring
            log.open_log(run.path / "debug.log")
        try:
            with _engine(on, procedure) as engine:
                work(engine, journal)
        except RunbookError as error:
            failure = error
        except KeyboardInterrupt:
            failure = _interrupted(run, journal)
        except Exception as error:
            log.logger().error("a fault of the program's own", exc_info=True)
            failure = _crashed(error, run, journal)
        finally:
            journal.listener = lambda _: None
            log.close_log()
        past = replay(journal.lines)
        progress.stop(failure, past)
    if failure:
        failure.told = True
        raise failure
    return past


@contextlib.contextmanager
def _engine(on: _Sitting, procedure: Procedure) -> Iterator[Engine]:
    """The engine with its word in the journal, and its connections, which are dropped at the end."""
    from runbook.asking import RealClock
    from runbook.debts import declare
    from runbook.engine import Engine
    from runbook.progress import Watched

    run, journal, plan = on.run, on.journal, on.plan
    owner = secrets.token_hex(8)
    connect = hosts_of(plan, Claim(journal.epoch, owner, replay(journal.lines).owners))
    _may_log_in(plan, run, journal)
    journal.append("engine", {"command": on.command, "holder": runs.holder(), "version": __version__, "owner": owner})
    declare(plan, journal, on.without)
    hosts = Watched(connect(on.bound), on.progress.answered)
    try:
        learn = partial(learned, plan, procedure=procedure)
        yield Engine(plan, on.bound, procedure, hosts, journal, RealClock(), run.files, on.without, learn, on.supply)
    finally:
        hosts.close()


def _may_log_in(plan: Plan, run: runs.Run, journal: Journal) -> None:
    """Raises Halted, with the run as it was, where this machine lacks what it takes to log in to any host."""
    past = replay(journal.lines)
    own, copy = "", ""
    if plan.file.parent == run.path:  # and no file that `resume --plan` brought just now
        own = run.id
        if past.state not in ("complete", "rolled-back"):
            # where the plan's relative paths begin, or they would name other files
            base = Path(past.settings_base if plan.file == run.settings_path else past.header["plan_base"])
            copy = str((base if base.is_dir() else Path()) / f"{plan.name}-resumed.yaml")
    lacking = missing_files(plan, own, copy)
    if lacking:
        message = findings.reason("this machine cannot log in to the hosts", findings.grouped(lacking))
        raise Halted(message, **situation.remembered(past, run.id))


def _interrupted(run: runs.Run, journal: Journal) -> Interrupted:
    past = replay(journal.lines)
    if past.state in ("planned", "preparing", "outage", "verifying"):
        with contextlib.suppress(Halted):  # a full disk: the run can be resumed without that line too
            journal.append("state", {"from": past.state, "to": "halted", "why": "interrupted"})
        past = replay(journal.lines)
    return Interrupted(
        "interrupted: what was begun on the hosts goes on there by itself", **situation.describe(past, run.id)
    )


def _crashed(error: Exception, run: runs.Run, journal: Journal) -> RunbookError:
    """A fault of the program's own, in the middle of a run: the journal knows where it stands."""
    return RunbookError(
        f"a fault of the program's own: {type(error).__name__}: {error}; all of it is in {run.path / 'debug.log'}",
        **situation.describe(replay(journal.lines), run.id),
    )


def settled(plan: Plan, approve: str | None, typed: str) -> None:
    """Raises UsageError where the digest that is approved does not say which snapshot: a newer one may be there."""
    source = plan.snapshot
    if approve is None or source.store is None or source.sha256 or "?" not in source.source:
        return
    raise UsageError(
        f"--approve {approve}: spec.snapshot.from chooses one only when the run begins, so no digest speaks of it",
        true="nothing was changed",
        means="what would be restored now need not be what was looked at when the digest was made",
        next=(
            f"runbook validate {shlex.quote(str(plan.file))}{NOTE}after naming it: from: {source.shown}, or its sha256",
            f"runbook run {typed} --yes{NOTE}the one that is chosen now, whichever it is",
        ),
    )


def located(plan: Plan, without: Sequence[str]) -> Plan:
    """Before ``run`` asks anybody: the plan with the name of the snapshot that it means now, where a store has it."""
    return supply.located(plan, again("run", str(plan.file), without), sys.stderr)


def start(plan: Plan, bound: Binding, preview_digest: str, progress: Progress, *, agreed: bool = False) -> Replay:
    """``run``: a new run, from its directory to its end; without the binding's absent nodes, which are owed theirs.

    ``agreed``: nobody was asked, and no digest approved. Then it may be bound after its first checks, and the journal's
    first line says "" for what is not known yet. A snapshot of a store is brought here before all else.
    """
    with supply.at_hand(plan, f"runbook run {typed(plan, bound)}", sys.stderr) as here:
        return _begin(here, bound, preview_digest, progress, agreed)


def _begin(plan: Plan, bound: Binding, preview_digest: str, progress: Progress, agreed: bool) -> Replay:
    from runbook.precheck import require_files

    connect = hosts_of(plan, Claim(0))
    require_files(plan, bound)
    late = agreed and is_late(plan, bound)
    bound = bound if late else full_binding(plan, bound, connect)
    bound = replace(bound, run=runs.new_id(plan.name), holder=runs.holder())
    header = {
        "plan": plan.name,
        "plan_file": str(plan.file.absolute()),
        "plan_base": str(plan.file.absolute().parent),
        "plan_digest": plan.digest(),
        "plan_sha256": plan.text_sha256,
        "ticket": plan.ticket,
        "snapshot": plan.snapshot.source,
        **({FOUND: plan.snapshot.shown} if plan.snapshot.store else {}),
        "snapshot_sha256": "" if late else bound.sha256,
        "etcdctl_sha256": bound.etcdctl_sha256,
        "etcdutl_sha256": bound.etcdutl_sha256,
        "preview_digest": "" if late else preview_digest,
        "version": __version__,
        "holder": bound.holder,
        "nodes": [n.name for n in plan.nodes],
        "workers": [w.name for w in plan.workers],
    }
    run = runs.create(bound.run, plan.text, header)
    with run.locked() as journal:
        on = _Sitting("run", run, journal, plan, bound, progress, bound.absent)
        return _work(on, lambda engine, _: engine.forward())


def resume(
    run: runs.Run, plan_file: Path | None, progress: Progress, without: Sequence[str] = ()
) -> tuple[Replay, str]:
    """Go on with a run; the replayed state, and a word where there was nothing to do."""

    def work(engine: Engine, journal: Journal) -> None:
        if plan_file:
            keep_settings(run, plan_file, journal)
        _go_on(engine, journal)

    with run.locked() as journal:
        past = replay(journal.lines)
        if word := judging.resume(past, run.id):
            return past, word
        typed_ = again("resume", run.id, without)
        plan, bound = bound_plan(run, past, typed_, settings=plan_file is None)
        if plan_file:
            plan, typed_ = newer_settings(plan, plan_file), f"{typed_} --plan {shlex.quote(str(plan_file))}"
        with supply.Supply(past, bound.sha256, typed_) as bring:
            plan = bring.at_first(plan, kubeadm().steps, sys.stderr)
            return _work(_Sitting("resume", run, journal, plan, bound, progress, without, bring), work), ""


def _go_on(engine: Engine, journal: Journal) -> None:
    if engine.run.state in ("rolling-back", "stuck"):
        past = replay(journal.lines)
        if past.served and not past.consented:  # the consent's journal is lost, or was never written
            raise UsageError(
                "going on with this rollback throws away what the restored cluster was told, "
                "and nobody agreed to that in this journal: it needs --discard-writes; nothing was changed just now",
                **situation.remembered(past, engine.bound.run) | {"next": (situation.back(past, engine.bound.run),)},
            )
        why = past.rollback_why
        engine.backward(why or "resumed")
        if why.startswith(PREPARING_FAILED):
            raise Refused(why, **situation.describe(replay(journal.lines), engine.bound.run))
        return
    engine.forward()


def rollback(run: runs.Run, discard: bool, progress: Progress, without: Sequence[str] = ()) -> tuple[Replay, str]:
    """Put the old data, manifests and services back."""

    def work(engine: Engine, journal: Journal) -> None:
        if discard:
            journal.append("consent", {"text": "--discard-writes: what the restored cluster was told is thrown away"})
        engine.backward("asked for by the responder")

    with run.locked() as journal:
        past = replay(journal.lines)
        if word := judging.rollback(past, run.id, discard=discard):
            return past, word
        plan, bound = bound_plan(run, past, again("rollback", run.id, without, "--discard-writes" if discard else ""))
        return _work(_Sitting("rollback", run, journal, plan, bound, progress, without), work), ""


def finish(run: runs.Run, accept: bool, confirm: Callable[[str], None], progress: Progress) -> tuple[Replay, str]:
    """Remove what the run left on the hosts.

    A person is asked while nobody holds the run: a question that is left open keeps nobody from rolling back. So what
    was judged before it counts only as long as the journal has not grown since.
    """
    typed_ = again("finish", run.id, (), "--accept" if accept else "")
    with run.locked() as journal:
        asked = journal.lines[-1:]
        past = replay(journal.lines)
        if word := judging.finish(past, run.id, accept=accept):
            return past, word
        plan, _ = bound_plan(run, past, typed_)
    confirm(_question(plan, past))

    def work(engine: Engine, journal: Journal) -> None:
        if accept and (past.absent or past.state in ("unverified", "halted")):
            without = {"hosts": list(past.absent)} if past.absent else {}
            journal.append("accepted", {"text": "finish --accept", **without})
        engine.lock.not_anothers()  # what another run is restoring beside must not lose its way back
        engine.sweep(accept=accept)

    with run.locked() as journal:
        past = replay(journal.lines)
        if journal.lines[-1:] != asked:
            raise judging.moved_on(past, run.id)
        plan, bound = bound_plan(run, past, typed_)
        return _work(_Sitting("finish", run, journal, plan, bound, progress), work), ""


def _question(plan: Plan, past: Replay) -> str:
    names = ", ".join(n.name for n in plan.nodes if n.name not in past.absent)
    kept = "the discarded restored data" if past.state == "rolled-back" else "the old data"
    return f"Remove {kept}, the snapshot copies and the run's directory from {names}? There is no way back after this."


# adopt.


def adopt(
    hosts: Sequence[str],
    identity_file: Path | None,
    known_hosts_file: Path | None,
    jump: str,
    workspace: str,
    wanted: str,
) -> tuple[dict[str, Any], str]:
    """Take a run over on this machine; what came of it, as a document and as text."""
    from runbook import status, takeover
    from runbook.adopt import Typed
    from runbook.connecting import enter_lab
    from runbook.hosts import connect

    files = {"identityFile": identity_file, "knownHostsFile": known_hosts_file}
    given = {key: str(path.expanduser().absolute()) for key, path in files.items() if path}
    given |= {"jump": jump} if jump else {}
    ssh = Ssh(identity_file=identity_file, jump=jump or None)
    if known_hosts_file:
        ssh = replace(ssh, known_hosts_file=known_hosts_file)

    def connected(there: Sequence[Target], claim: Claim) -> RunHosts:
        enter_lab(there[0].plan)
        return connect(there, claim)

    done = takeover.take_over(Typed(tuple(hosts), given, workspace, wanted), ssh, connected, kubeadm().steps)
    document = status.document(done.run.lines(), done.past, None)
    document |= {"from": done.choice.source, "differs": list(done.choice.differs)}
    document |= {"informed": list(done.informed), "not_informed": dict(done.silent)}
    lines = [f"{done.run.id}: taken over, from the copy of {done.choice.source}"]
    lines += [f"differs: {text}" for text in done.choice.differs]
    lines += [f"does not know yet: {name} ({why})" for name, why in done.silent.items()]
    lines += takeover.claims(done)
    lines += closing("", situation.meaning(done.past), situation.advice(done.past, done.run.id))
    return document, "\n".join(lines)


def unexpected(error: BaseException) -> RunbookError:
    """A fault of the program's own outside a run, in the words of all other errors."""
    return RunbookError(
        f"a fault of the program's own: {type(error).__name__}: {error}",
        true="this command changed nothing on any host",
        means="what earlier commands did stands in the journals of their runs",
        next=(f"runbook runs{NOTE}every run, and where it stands", "runbook status"),
    )
