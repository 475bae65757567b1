"""Arguments in, exit code out; what the commands do stands in ``runbook.commands``.

Standard output carries the result, standard error the progress and the errors.
"""

from __future__ import annotations

import gc
import json
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import click

from runbook import __version__, streams
from runbook.confirming import confirm
from runbook.diagnose.cli import diagnose
from runbook.discovery.cli import init
from runbook.errors import NOTE, Interrupted, RunbookError, UsageError, closing
from runbook.lab.cli import lab
from runbook.snapshots.cli import snapshot

if TYPE_CHECKING:
    from runbook.plan import Plan
    from runbook.precheck import Verdict
    from runbook.progress import Progress
    from runbook.replay import Replay
    from runbook.step import Binding

PLAN = click.argument("plan", type=click.Path(path_type=Path))
RUN = click.argument("run", required=False)
YES = click.option("--yes", is_flag=True, help="Answer every confirmation with yes.")
WITHOUT = click.option(
    "--without", multiple=True, metavar="NODE", help="Go on without a dead node (a minority); it is owed its steps."
)
OUTPUT = click.option(
    "--output", type=click.Choice(["text", "json"]), default="text", show_default=True, help="How to print the result."
)


class _Group(click.Group):
    """Turns errors into a message on standard error and the contract's exit codes."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except RunbookError as error:
            _fail(error)
        except KeyboardInterrupt:
            _fail(_interrupted(ctx.invoked_subcommand))
        except (click.ClickException, click.exceptions.Exit, click.Abort, BrokenPipeError):
            raise
        except Exception as error:
            from runbook.commands import unexpected

            _fail(unexpected(error))


def _interrupted(command: str | None) -> Interrupted:
    """Ctrl-C outside a run, which has its own words: nothing had been begun. A lab's hosts are no run's."""
    if command == "lab":
        return Interrupted(
            "interrupted", true="the lab may be half up", next=("runbook lab status", "runbook lab down")
        )
    if command == "snapshot":
        return Interrupted(
            "interrupted",
            true="nothing half-written was left, and no host is changed",
            means="what is stored is as it was, but for what was told before this",
            next=("runbook snapshot list PLAN",),
        )
    return Interrupted("interrupted", true="nothing was changed", means="no step was begun", next=("runbook runs",))


def _fail(error: RunbookError) -> NoReturn:
    """The message, with nothing in it that a terminal would act on: hosts' own words may stand there."""
    from runbook.tables import visible

    files = dict.fromkeys(problem.file for problem in getattr(error, "problems", ()))
    if files:  # compilers' lines, for people and programs; they begin with the file's name
        error.true, error.means = "nothing was changed, and nothing was connected to", "a plan with errors is not used"
        error.next = tuple(dict.fromkeys(map(_mending, files)))
    click.echo(visible(str(error) if files else f"Error: {error}"), err=True)
    arguments = " ".join(sys.argv[1:])
    if not error.told and ("--output json" in arguments or "--output=json" in arguments):
        click.echo(json.dumps({"event": "result", **error.document()}, ensure_ascii=False))
    sys.exit(error.code)


def _mending(file: str) -> str:
    """What to type about a plan file with errors; of one that is not there the directory, or the nearest above it."""
    path = Path(file).absolute()
    if path.exists():
        return f"runbook validate {shlex.quote(file)}{NOTE}after mending it"
    there = next(parent for parent in path.parents if parent.is_dir())
    return f"ls -l {shlex.quote(str(there))}{NOTE}which file is the plan?"


def _show(document: dict[str, Any], text: str, output: str) -> None:
    click.echo(json.dumps(document, indent=2, ensure_ascii=False) if output == "json" else text)


def _progress(output: str) -> Progress:
    from runbook import progress

    return progress.make(output, sys.stderr, sys.stdout)


def _ended(past: Replay, word: str, output: str, said: str = "") -> None:
    """The result of a command on a run, in words. JSON has its own last line, but where there was nothing to do.

    ``word`` says that there was nothing to do, ``said`` how it ended in other words than the state's.
    """
    from runbook import situation

    if output == "json":
        if word:
            result = {"event": "result", "run": past.run, "state": past.state, "exit_code": 0, "note": word}
            click.echo(json.dumps(result))
        return
    down = f"; {situation.outage(past)}" if past.outages and not word else ""
    true = situation.remembered(past, past.run)["true"] if word else ""
    sentences = closing(true, situation.meaning(past), situation.advice(past, past.run))
    click.echo("\n".join([f"{past.run}: {word or said or past.state}{down}", *sentences]))


@click.group(cls=_Group, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="runbook")
def cli() -> None:
    """Restore etcd on self-managed Kubernetes control planes: previewed, journalled, resumable, reversible.

    Exit codes: 0 done · 1 the program's own error · 2 bad usage or plan · 3 a check said no, no host is changed ·
    4 halted, resume or roll back · 6 another run holds a host · 7 restored but not verified · 130 interrupted.
    """


@cli.command()
@click.argument("plans", nargs=-1, required=True, type=click.Path(path_type=Path))
@OUTPUT
def validate(plans: tuple[Path, ...], output: str) -> None:
    """Check plans: schema and sense, without any connection."""
    from runbook import commands

    errors, warnings = commands.validate(plans)
    if output == "json":
        told = {"errors": errors, "warnings": warnings}
        document: dict[str, Any] = {"valid": not errors}
        document |= {kind: [{**vars(p), "text": str(p)} for p in problems] for kind, problems in told.items()}
        click.echo(json.dumps(document, indent=2, ensure_ascii=False))
    else:
        for problem in (*errors, *warnings):
            click.echo(str(problem), err=True)
        bad = {p.file for p in errors}
        for plan in plans:
            if str(plan) not in bad:
                click.echo(f"{plan}: valid")
    sys.exit(2 if errors else 0)


@cli.command()
@PLAN
@click.option("--check", is_flag=True, help="Also connect, and run all read-only checks.")
@WITHOUT
@OUTPUT
def preview(plan: Path, check: bool, without: tuple[str, ...], output: str) -> None:
    """Show every step with its exact commands on each host; changes nothing."""
    from runbook import commands, planfile, preview

    loaded, warnings = planfile.load_with_warnings(plan)
    for warning in warnings:
        click.echo(str(warning), err=True)
    bound, note = commands.binding_for_checks(loaded) if check else commands.preview_binding(loaded)
    bound = commands.leaving_out(loaded, bound, without) if without else bound
    procedure = commands.kubeadm()
    verdict = _checked(loaded, bound) if check else None
    if output == "json":
        document = preview.document(loaded, bound, procedure) | (verdict.document() if verdict else {})
        click.echo(json.dumps(document, indent=2, ensure_ascii=False))
    else:
        click.echo(preview.render(loaded, bound, procedure, note=note, verdict=verdict))
    if verdict and verdict.error:
        verdict.error.told = output == "json"
        raise verdict.error


def _checked(plan: Plan, bound: Binding) -> Verdict:
    from runbook.precheck import check

    return check(plan, bound)


@cli.command()
@PLAN
@YES
@WITHOUT
@click.option("--approve", metavar="DIGEST", help="Go on only if plan and program do exactly what was previewed.")
@OUTPUT
def run(plan: Path, yes: bool, approve: str | None, without: tuple[str, ...], output: str) -> None:
    """Carry out a plan: prepare, stop all, swap all, start all, verify."""
    from runbook.interrupts import polite_end

    with polite_end():  # a snapshot that is fetched before anything begins is given up as well
        _run(plan, yes, approve, without, output)


def _run(plan: Path, yes: bool, approve: str | None, without: tuple[str, ...], output: str) -> None:
    from runbook import commands, planfile, preview

    loaded, warnings = planfile.load_with_warnings(plan)
    for warning in warnings:
        click.echo(str(warning), err=True)
    agreed = yes and approve is None
    loaded = commands.located(loaded, without)
    bound, note = commands.bound_meanwhile(loaded, agreed=agreed)
    bound = commands.leaving_out(loaded, bound, without) if without else bound
    typed = commands.typed(loaded, bound)
    digest = preview.digest(loaded, bound, commands.kubeadm())
    commands.settled(loaded, approve, typed)
    if approve is not None and approve != digest:
        raise UsageError(
            f"--approve {approve} is not what this would do now: its digest is {digest}",
            true="nothing was changed",
            means="the plan, the snapshot, the program or the nodes left out differ from what was previewed",
            next=(f"runbook preview {typed}{NOTE}look at it, then approve its digest",),
        )
    hosts = ", ".join(f"{n.name} ({n.host})" for n in loaded.nodes if n.name not in bound.absent)
    question = (
        f"Restore etcd of {loaded.name} from {loaded.snapshot.source} ({note}) on {hosts}?\n"
        "The control plane is stopped on all of them; the old data is kept until `runbook finish`."
    )
    only = "goes on only if it would do exactly what was previewed"
    confirm(yes or approve is not None, f"runbook run {typed}", only)(question)
    _ended(commands.start(loaded, bound, digest, _progress(output), agreed=agreed), "", output)


@cli.command()
@RUN
@click.option(
    "--plan", "plan_file", type=click.Path(path_type=Path), help="Other connection, timeout, verify settings."
)
@WITHOUT
@YES
@OUTPUT
def resume(run: str | None, plan_file: Path | None, without: tuple[str, ...], yes: bool, output: str) -> None:
    """Go on with a run, from what its journal and the hosts say."""
    from runbook import choice, commands

    past, word = commands.resume(choice.find(run, "resume"), plan_file, _progress(output), without)
    _ended(past, word, output)


@cli.command()
@RUN
@click.option("--discard-writes", is_flag=True, help="Needed once the restored API servers were started.")
@WITHOUT
@YES
@OUTPUT
def rollback(run: str | None, discard_writes: bool, without: tuple[str, ...], yes: bool, output: str) -> None:
    """Put the old data, manifests and services back."""
    from runbook import choice, commands

    past, word = commands.rollback(choice.find(run, "rollback"), discard_writes, _progress(output), without)
    _ended(past, word, output)


@cli.command()
@click.option(
    "--host", "hosts", multiple=True, required=True, metavar="[USER@]HOST[:PORT]", help="A host of the run; repeatable."
)
@click.option("--identity-file", type=click.Path(path_type=Path), help="The SSH key to log in with, from now on.")
@click.option("--known-hosts-file", type=click.Path(path_type=Path), help="Whose host keys to trust, from now on.")
@click.option("--jump", default="", metavar="[USER@]HOST[:PORT]", help="The jump host on the way, from now on.")
@click.option("--workspace", default="/var/lib/etcd-runbook", show_default=True, help="Where runs lie on the hosts.")
@click.option("--run", "wanted", default="", help="Which run, where the hosts hold several.")
@OUTPUT
def adopt(
    hosts: tuple[str, ...],
    identity_file: Path | None,
    known_hosts_file: Path | None,
    jump: str,
    workspace: str,
    wanted: str,
    output: str,
) -> None:
    """Take a run over on this machine, from what its hosts hold; changes no service."""
    from runbook import commands

    document, text = commands.adopt(hosts, identity_file, known_hosts_file, jump, workspace, wanted)
    _show(document, text, output)


@cli.command()
@RUN
@OUTPUT
def status(run: str | None, output: str) -> None:
    """Where a run stands, what was last seen on each host, and what to type next."""
    from runbook import choice, status

    found = choice.find(run, "status")
    past = found.replay()
    lines = past.lines
    others = [] if run else choice.others(found)
    all_closed = 0 if run or others else choice.all_closed()
    document = status.document(lines, past, engine=found.engine(), others=others, all_closed=all_closed)
    _show(document, "" if output == "json" else status.text(document, past), output)


@cli.command("runs")
@OUTPUT
def runs_(output: str) -> None:
    """All runs known on this machine, the newest first."""
    from runbook import runs, status
    from runbook.replay import replay

    documents = []
    for found in runs.all_runs():
        try:
            past = found.replay()
            documents.append(status.document(past.lines, past, engine=found.engine()))
        except RunbookError as error:
            documents.append({**status.document([], replay([])), "run": found.id, "why": error.message})
    if output == "json":
        click.echo(json.dumps({"runs": documents}, indent=2, ensure_ascii=False))
    else:
        click.echo(status.runs_table(documents))


@cli.command()
@RUN
@OUTPUT
def report(run: str | None, output: str) -> None:
    """The timeline of a run, as Markdown or JSON."""
    from runbook import bind, choice, report
    from runbook.replay import replay

    found = choice.find(run, "report")
    lines = found.lines()
    past = replay(lines)
    try:
        plan = bind.bound_plan(found, past, f"runbook report {found.id}")[0] if past.header else None
    except bind.PlanMissing:  # what happened stands in the journal
        plan = None
    if output == "json":
        _show(report.document(lines, past, plan), "", output)
    else:
        click.echo(report.markdown(lines, past, plan))


@cli.command()
@RUN
@click.option("--accept", is_flag=True, help="Accept it as it is: not verified, or without hosts that are gone.")
@YES
@OUTPUT
def finish(run: str | None, accept: bool, yes: bool, output: str) -> None:
    """Remove what a run left on the hosts, the kept old data included; there is no rollback afterwards."""
    from runbook import choice, commands, situation

    found = choice.find(run, "finish")
    agreed = confirm(yes, f"runbook finish {found.id}{' --accept' if accept else ''}")
    past, word = commands.finish(found, accept, agreed, _progress(output))
    _ended(past, word, output, situation.closed(past))


cli.add_command(init)
cli.add_command(diagnose)
cli.add_command(lab)
cli.add_command(snapshot)


def main() -> NoReturn:
    """The command line's entry point. It does not wait for the interpreter to take itself apart: all is on the disk."""
    streams.hold()
    gc.set_threshold(50_000, 20, 50)  # cycles are few here; looking for them took 13 % of the start
    try:
        cli(prog_name="runbook")
    except SystemExit as end:
        streams.leave(end.code)
    raise AssertionError("click always exits")


if __name__ == "__main__":
    main()
