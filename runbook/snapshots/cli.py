"""`runbook snapshot`: the commands. Nothing heavy is imported before one runs."""

from __future__ import annotations

import json
import shlex
import shutil
import signal
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from runbook.snapshots.sidecar import Sidecar
    from runbook.snapshots.work import Source, Where

OUTPUT = click.option(
    "--output", type=click.Choice(["text", "json"]), default="text", show_default=True, help="How to print the result."
)
ENDPOINT = click.option("--endpoint", default="", metavar="URL", help="Of an object store that is not the provider's.")
REGION = click.option("--region", default="", help="The bucket's.")
IDENTITY = click.option(
    "--identity-file",
    type=click.Path(path_type=Path),
    help="With what an encrypted snapshot is opened: age's, or an SSH key. Else $RUNBOOK_AGE_IDENTITY names it.",
)
FROM_PLAN = click.option(
    "--plan",
    type=click.Path(path_type=Path),
    help="The backup plan that says how its store is reached; host:// needs one.",
)
YES = click.option("--yes", is_flag=True, help="Answer every confirmation with yes.")
PLAN = click.argument("plan")
STORE = click.argument("where", metavar="PLAN|URL")


def _tell(text: str) -> None:
    from runbook.tables import visible

    click.echo(visible(text), err=True)


def _show(document: dict[str, Any], text: str, output: str) -> None:
    from runbook.tables import visible

    click.echo(json.dumps(document, indent=2, ensure_ascii=False) if output == "json" else visible(text))


def _source(url: str, plan: Path | None, identity_file: Path | None, endpoint: str, region: str) -> Source:
    from runbook.snapshots.work import source

    return source(url, plan, identity_file, endpoint, region, _tell)


def _where(word: str, endpoint: str = "", region: str = "") -> Where:
    from runbook.snapshots.work import where

    return where(word, _tell, endpoint, region)


class _Polite(click.Group):
    """Ended by a timer, or with its terminal, a command takes back what it has begun, as after Ctrl-C."""

    def invoke(self, ctx: click.Context) -> Any:
        from runbook.interrupts import USUAL, polite_end

        with polite_end((*USUAL, signal.SIGHUP)):
            return super().invoke(ctx)


@click.group(cls=_Polite)
def snapshot() -> None:
    """Take snapshots, prove them, keep them in a store, and find them again.

    A store is named by a backup plan (kind: EtcdBackup), or by its URL: s3://, gs://, az://, file:///DIRECTORY.
    """


@snapshot.command()
@PLAN
@OUTPUT
def save(plan: str, output: str) -> None:
    """Take a snapshot of a healthy member, prove, compress, encrypt, ship it, and let old ones go.

    No host is changed, and no snapshot is left on it. A second one at the same time ends with 6.
    """
    from runbook.checks.words import size
    from runbook.snapshots.saving import save as work
    from runbook.snapshots.work import plan_of, told, typed

    backup = plan_of(plan, "save", _tell)
    with told([typed("list", plan), typed("save", plan)], "the newest snapshot is the one before"):
        saved = work(backup, _tell)
    for text in saved.warnings:
        _tell(f"warning: {text}")
    made = saved.sidecar
    document = json.loads(made.json()) | {
        "store": backup.store.url,
        "seconds": round(saved.seconds, 1),
        "pruned": list(saved.pruned),
        "warnings": list(saved.warnings),
    }
    text = (
        f"{backup.store.url}/{made.name}\nrevision {made.revision}, {size(made.size)}, stored {size(made.stored.size)}"
        f"{_sealed(made)}; taken of {made.member}, verified; {saved.seconds:.1f} s\nsha256 {made.sha256}"
    )
    _show(document, text, output)


def _sealed(made: Sidecar) -> str:
    keys = len(made.stored.recipients)
    return f", encrypted to {keys} recipient{'s' * (keys > 1)}" if keys else ", not encrypted"


@snapshot.command()
@click.argument("what", metavar="FILE|URL")
@IDENTITY
@FROM_PLAN
@ENDPOINT
@REGION
@OUTPUT
def verify(what: str, identity_file: Path | None, plan: Path | None, endpoint: str, region: str, output: str) -> None:
    """Read a snapshot to its end: checksum, database, keys, and what its sidecar says. Exit code 3: not whole.

    URL is STORE/NAME or STORE?latest=verified.
    """
    from runbook.snapshots.proving import verify as work

    proof = work(_source(what, plan, identity_file, endpoint, region), _tell)
    for text in proof.warnings:
        _tell(f"warning: {text}")
    _show(proof.document(), proof.text(), output)


@snapshot.command()
@click.argument("file", type=click.Path(path_type=Path))
@STORE
@click.option("--name", "cluster", default="", help="The cluster's name, where no plan says it.")
@click.option("--recipient", "recipients", multiple=True, help="Encrypt to it, where no plan says to whom; repeatable.")
@click.option("--member", default="", metavar="NAME", help="The member that it was taken from.")
@click.option("--etcd", default="", metavar="VERSION", help="That member's version of etcd.")
@click.option(
    "--pki", type=click.Path(path_type=Path), metavar="DIR", help="The cluster's PKI: its CAs' fingerprints are noted."
)
@ENDPOINT
@REGION
@OUTPUT
def push(
    file: Path,
    where: str,
    cluster: str,
    recipients: tuple[str, ...],
    member: str,
    etcd: str,
    pki: Path | None,
    endpoint: str,
    region: str,
    output: str,
) -> None:
    """Prove a snapshot file of this machine, and store it as a plan says, or as the options do."""
    from runbook.checks.words import size
    from runbook.snapshots.origin import origin
    from runbook.snapshots.proving import push as work

    known = origin(member, etcd, pki, _tell)
    at = _where(where, endpoint, region)
    _named(at, cluster, recipients)
    made = work(file, at, cluster, recipients, known, _tell)
    if not made.stored.recipients:
        _tell(
            "warning: it is not encrypted: whoever may read the store has every Secret of the cluster (--recipient KEY)"
        )
    text = f"{at.store.url}/{made.name}\nrevision {made.revision}, {size(made.size)}, stored {size(made.stored.size)}"
    _show(json.loads(made.json()) | {"store": at.store.url}, text + _sealed(made), output)


def _named(at: Where, cluster: str, recipients: tuple[str, ...]) -> None:
    """A plan says both; without one the name must be given. Raises UsageError."""
    from runbook.errors import UsageError
    from runbook.planfile.words import plan_name

    sentences: dict[str, Any] = {"true": "nothing was changed", "next": ("runbook snapshot push --help",)}
    if at.backup and (cluster or recipients):
        raise UsageError("--name and --recipient are for a URL: the plan says both", means="one of them", **sentences)
    if at.backup is None and (fault := plan_name(cluster)):
        means = "with a URL, --name says whose snapshot it is: its name begins with it, and prune goes by it"
        said = f"--name {shlex.quote(cluster)} {fault}" if cluster else "--name is missing"
        raise UsageError(said, means=means, **sentences)


@snapshot.command()
@click.argument("url", metavar="URL")
@click.option("-o", "file", type=click.Path(path_type=Path), help="The plain file; default: its name, here.")
@IDENTITY
@FROM_PLAN
@ENDPOINT
@REGION
@OUTPUT
def fetch(
    url: str,
    file: Path | None,
    identity_file: Path | None,
    plan: Path | None,
    endpoint: str,
    region: str,
    output: str,
) -> None:
    """Bring a stored snapshot here as a plain file, 0600, opened and proven. It holds every Secret of the cluster."""
    from runbook.snapshots.proving import fetch as work

    path, proof = work(_source(url, plan, identity_file, endpoint, region), file, _tell)
    _show(proof.document() | {"file": str(path)}, f"{path}\n{proof.text()}", output)


@snapshot.command("list")
@STORE
@ENDPOINT
@REGION
@OUTPUT
def list_(where: str, endpoint: str, region: str, output: str) -> None:
    """What a store holds, the newest good snapshot first (+: whole and verified)."""
    from runbook.snapshots.work import listed

    document, text, warnings = listed(_where(where, endpoint, region), datetime.now(UTC))
    _show(document | {"warnings": warnings}, text, output)
    for warning in warnings if output == "text" else ():
        _tell(f"warning: {warning}")


@snapshot.command()
@PLAN
@click.option("--dry-run", is_flag=True, help="Only say what would go.")
@YES
@OUTPUT
def prune(plan: str, dry_run: bool, yes: bool, output: str) -> None:
    """Let go what the plan's keep does not keep; never the newest verified one, never a file of others."""
    from runbook.confirming import confirm
    from runbook.snapshots.work import prune as work

    at = _where(plan)
    document, text = work(at, dry_run=dry_run, confirm=confirm(yes, at.typed("prune")), tell=_tell)
    _show(document, text, output)


@snapshot.command()
@PLAN
@click.option("--systemd", is_flag=True, help="A timer and a service, for a machine that is not in the cluster.")
@click.option("--only", type=click.Choice(["cronjob", "rules"]), help="The CronJob alone, or the PrometheusRule alone.")
@click.option("--etcd-image", default="", metavar="IMAGE", help="The cluster's own etcd's, in place of the plan's.")
@OUTPUT
def schedule(plan: str, systemd: bool, only: str | None, etcd_image: str, output: str) -> None:
    """Print a CronJob and its alerts for a backup plan, or a timer and a service; connects to nothing."""
    from runbook.errors import UsageError
    from runbook.snapshots.schedule import Kind, render
    from runbook.snapshots.work import backup_of

    if systemd and only:
        raise UsageError(
            "--systemd and --only exclude each other",
            true="nothing was changed",
            means="--only chooses among what goes into a cluster",
            next=(f"runbook snapshot schedule {shlex.quote(plan)} --systemd",),
        )
    kind: Kind = "systemd" if systemd else "cronjob" if only == "cronjob" else "rules" if only else "kubernetes"
    own = Path(sys.argv[0]).absolute()
    program = own if own.name == "runbook" else Path(shutil.which("runbook") or "/usr/local/bin/runbook")
    hidden = [p for p in (program.resolve(), Path(plan).absolute()) if p.parts[1] in ("root", "home", "tmp")]
    for path in hidden if systemd else ():
        _tell(f"warning: the service's user cannot read {path}: have it below /opt or /etc, and render from there")
    text = render(backup_of(Path(plan), _tell), kind, etcd_image, program)
    if output == "json":
        click.echo(json.dumps({"kind": kind, "text": text}, indent=2, ensure_ascii=False))
    else:
        click.echo(text, nl=not text.endswith("\n"))
