"""`runbook diagnose`: the command. Nothing heavy is imported before it runs."""

from __future__ import annotations

import json
from pathlib import Path

import click


@click.command()
@click.argument("what", required=False, metavar="[PLAN|RUN]")
@click.option(
    "-o",
    "file",
    type=click.Path(path_type=Path, dir_okay=False),
    help="The archive; default: NAME-diagnose-TIME.tar.zst, here. An existing file is refused.",
)
@click.option(
    "--output", type=click.Choice(["text", "json"]), default="text", show_default=True, help="How to print the result."
)
def diagnose(what: str | None, file: Path | None, output: str) -> None:
    """Gather what to send with a call for help, without secrets, in one archive; changes nothing.

    A file, or a name that ends in .yaml or .yml, is a plan, whose open run comes along; all else is a run. Hosts that
    do not answer are named, and left out.
    """
    from runbook.diagnose.subject import find
    from runbook.diagnose.work import default_path
    from runbook.diagnose.work import diagnose as gather
    from runbook.tables import visible

    subject = find(what)
    click.echo(f"Asking the hosts of {subject.what}; nothing is changed on them.", err=True)
    done = gather(subject, file or default_path(subject.name), lambda text: click.echo(visible(text), err=True))
    if output == "json":
        click.echo(json.dumps(done.contents.result(done.path, done.octets), indent=2, ensure_ascii=False))
    else:
        click.echo(done.contents.told(done.path, done.octets))
