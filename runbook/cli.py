"""Arguments in, exit code out; what the commands do stands in ``runbook.commands``.

Standard output carries the result, standard error the progress and the errors.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import click

from runbook import __version__
from runbook.errors import RunbookError, UsageError
from runbook.lab.cli import lab

if TYPE_CHECKING:
    from runbook.progress import Progress
    from runbook.replay import Replay

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
            click.echo("interrupted", err=True)
            sys.exit(130)
        except (click.ClickException, click.exceptions.Exit, click.Abort, BrokenPipeError):
            raise
        except Exception as error:
            from runbook.commands import unexpected

            _fail(unexpected(error))


def _fail(error: RunbookError) -> NoReturn:
    """The message, with nothing in it that a terminal would act on: hosts' own words may stand there."""
    from runbook.tables import visible

    text = visible(str(error))
    click.echo(text if error.code == 2 and "\n" in error.message else f"Error: {text}", err=True)
    arguments = " ".join(sys.argv[1:])
    if not error.told and ("--output json" in arguments or "--output=json" in arguments):
        told = {"error": error.message, "true": error.true, "means": error.means, "next": list(error.next)}
        click.echo(json.dumps({"event": "result", "exit_code": error.code, **told}, ensure_ascii=False))
    sys.exit(error.code)


def _show(document: dict[str, Any], text: str, output: str) -> None:
    click.echo(json.dumps(document, indent=2, ensure_ascii=False) if output == "json" else text)


def _progress(output: str) -> Progress:
    from runbook import progress

    return progress.make(output, sys.stderr, sys.stdout)


def _confirm(yes: bool) -> Callable[[str], None]:
    """Asks a person; raises UsageError where there is none, or where the answer is no."""

    def ask(question: str) -> None:
        if yes:
            return
        if not sys.stdin.isatty():
            raise UsageError("there is no terminal to confirm on", true="nothing was changed", next=("add --yes",))
        click.echo(f"{question} Type yes: ", nl=False, err=True)
        if sys.stdin.readline().strip().lower() != "yes":
            raise UsageError("not confirmed", true="nothing was changed")

    return ask


def _ended(past: Replay, word: str, output: str) -> None:
    """The result of a command on a run, in words; JSON has its own last line."""
    from runbook import situation

    if output == "json":
        if word:
            click.echo(
                json.dumps({"event": "result", "run": past.run, "state": past.state, "exit_code": 0, "note": word})
            )
        return
    lines = [f"{past.run}: {word or past.state}"]
    outage = past.outage_seconds()
    if outage and not word:
        lines.append(f"outage: {outage:.1f} s")
    lines.append(situation.meaning(past))
    lines += [f"next: {command}" for command in situation.commands(past, past.run)]
    click.echo("\n".join(lines))


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
@OUTPUT
def preview(plan: Path, check: bool, output: str) -> None:
    """Show every step with its exact commands on each host; changes nothing."""
    from runbook import commands, planfile, preview

    loaded, warnings = planfile.load_with_warnings(plan)
    for warning in warnings:
        click.echo(str(warning), err=True)
    bound, note = commands.binding_for_checks(loaded) if check else commands.preview_binding(loaded)
    procedure = commands.kubeadm()
    document = preview.document(loaded, bound, procedure) if output == "json" else {}
    text = "" if output == "json" else preview.render(loaded, bound, procedure, note=note)
    findings = commands.check(loaded)[0] if check else []
    if check:
        from runbook import progress

        names = [*(n.name for n in loaded.nodes), *(w.name for w in loaded.workers)]
        document |= {"findings": progress.findings_document(findings)}
        text = f"{progress.findings_table(findings, names)}\n\n{text}"
    _show(document, text, output)
    if findings:
        commands.refuse(findings)


@cli.command()
@PLAN
@YES
@WITHOUT
@click.option("--approve", metavar="DIGEST", help="Go on only if plan and program do exactly what was previewed.")
@OUTPUT
def run(plan: Path, yes: bool, approve: str | None, without: tuple[str, ...], output: str) -> None:
    """Carry out a plan: prepare, stop all, swap all, start all, verify."""
    from runbook import commands, planfile, preview

    loaded, warnings = planfile.load_with_warnings(plan)
    for warning in warnings:
        click.echo(str(warning), err=True)
    bound, note = commands.preview_binding(loaded)
    digest = preview.digest(loaded, bound, commands.kubeadm())
    if approve is not None and approve != digest:
        raise UsageError(
            f"--approve {approve} is not what this would do now: its digest is {digest}",
            true="nothing was changed",
            means="the plan, the snapshot or the program differs from what was previewed",
            next=(f"runbook preview {plan}",),
        )
    hosts = ", ".join(f"{n.name} ({n.host})" for n in loaded.nodes)
    question = (
        f"Restore etcd of {loaded.name} from {loaded.snapshot.source} ({note}) on {hosts}?\n"
        "The control plane is stopped on all of them; the old data is kept until `runbook finish`."
    )
    _confirm(yes or approve is not None)(question)
    _ended(commands.start(loaded, bound, digest, _progress(output), without), "", output)


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
    from runbook import commands, runs

    past, word = commands.resume(runs.find(run), plan_file, _progress(output), without)
    _ended(past, word, output)


@cli.command()
@RUN
@click.option("--discard-writes", is_flag=True, help="Needed once the restored API servers were started.")
@WITHOUT
@YES
@OUTPUT
def rollback(run: str | None, discard_writes: bool, without: tuple[str, ...], yes: bool, output: str) -> None:
    """Put the old data, manifests and services back."""
    from runbook import commands, runs

    past, word = commands.rollback(runs.find(run), discard_writes, _progress(output), without)
    _ended(past, word, output)


@cli.command()
@click.option(
    "--host", "hosts", multiple=True, required=True, metavar="[USER@]HOST", help="A host of the run; repeatable."
)
@click.option("--identity-file", type=click.Path(path_type=Path), help="The SSH key to log in with, from now on.")
@click.option("--known-hosts-file", type=click.Path(path_type=Path), help="Whose host keys to trust, from now on.")
@click.option("--workspace", default="/var/lib/etcd-runbook", show_default=True, help="Where runs lie on the hosts.")
@click.option("--run", "wanted", default="", help="Which run, where the hosts hold several.")
@OUTPUT
def adopt(
    hosts: tuple[str, ...],
    identity_file: Path | None,
    known_hosts_file: Path | None,
    workspace: str,
    wanted: str,
    output: str,
) -> None:
    """Take a run over on this machine, from what its hosts hold; changes no service."""
    from runbook import commands

    document, text = commands.adopt(hosts, identity_file, known_hosts_file, workspace, wanted)
    _show(document, text, output)


@cli.command()
@RUN
@OUTPUT
def status(run: str | None, output: str) -> None:
    """Where a run stands, what is true on each host, and what to type next."""
    from runbook import runs, status
    from runbook.replay import replay

    found = runs.find(run)
    lines = found.lines()
    document = status.document(lines, replay(lines), None)
    _show(document, "" if output == "json" else status.text(document), output)


@cli.command("runs")
@OUTPUT
def runs_(output: str) -> None:
    """All runs known on this machine, the newest first."""
    from runbook import runs, status
    from runbook.replay import replay

    documents = []
    for found in runs.all_runs():
        try:
            lines = found.lines()
            documents.append(status.document(lines, replay(lines), None))
        except RunbookError as error:
            documents.append({**status.document([], replay([]), None), "run": found.id, "why": error.message})
    if output == "json":
        click.echo(json.dumps({"runs": documents}, indent=2, ensure_ascii=False))
    else:
        click.echo(status.runs_table(documents))


@cli.command()
@RUN
@OUTPUT
def report(run: str | None, output: str) -> None:
    """The timeline of a run, as Markdown or JSON."""
    from runbook import bind, report, runs
    from runbook.replay import replay

    found = runs.find(run)
    lines = found.lines()
    past = replay(lines)
    plan = bind.bound_plan(found, past)[0] if past.header else None
    if output == "json":
        _show(report.document(lines, past, plan), "", output)
    else:
        click.echo(report.markdown(lines, past, plan))


@cli.command()
@RUN
@click.option("--accept", is_flag=True, help="Accept a run that was restored but not verified.")
@YES
@OUTPUT
def finish(run: str | None, accept: bool, yes: bool, output: str) -> None:
    """Remove what a run left on the hosts, the kept old data included; there is no rollback afterwards."""
    from runbook import commands, runs

    past, word = commands.finish(runs.find(run), accept, _confirm(yes), _progress(output))
    _ended(past, word or "closed: nothing of this run is left on the hosts", output)


cli.add_command(lab)


def main() -> None:
    """The command line's entry point."""
    cli(prog_name="runbook")


if __name__ == "__main__":
    main()
