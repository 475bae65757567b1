"""`runbook lab …`: the commands. The command line mounts `lab`; nothing heavy is imported before a command runs."""

from __future__ import annotations

import functools
import json
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from runbook.lab.lab import Lab

OUTPUT = click.option("--output", type=click.Choice(["text", "json"]), default="text", help="How to print the result.")


def tells(function: Callable[..., Any]) -> Callable[..., Any]:
    """Turn the lab's errors into a message and an exit code."""

    @functools.wraps(function)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        from runbook.lab.errors import LabError

        try:
            return function(*args, **kwargs)
        except LabError as error:
            click.echo(f"Error: {error}", err=True)
            sys.exit(error.code)

    return wrapper


def show(document: dict[str, Any], text: str, output: str) -> None:
    """The result, on standard output."""
    click.echo(json.dumps(document) if output == "json" else text)


def chosen(context: click.Context) -> Lab:
    """The lab that `--name` or RUNBOOK_LAB names."""
    from runbook.lab.lab import Lab

    return Lab(context.obj)


@click.group("lab")
@click.option("--name", metavar="NAME", help="Which lab; default: $RUNBOOK_LAB, else `default`.")
@click.pass_context
def lab(context: click.Context, name: str | None) -> None:
    """Throwaway control planes on this machine. Needs root on Linux; nothing of them leaves the machine."""
    context.obj = name


@lab.command()
@click.option("--nodes", type=int, default=3, show_default=True, help="Control-plane nodes: m1, m2, …")
@click.option("--workers", type=int, default=0, show_default=True, help="Workers: w1, w2, …")
@click.option("--wal-dir", is_flag=True, help="Give etcd a WAL directory apart from its data: /var/lib/etcd-wal/wal.")
@click.option("--user", default="ops", show_default=True, help="The user beside root; has sudo without a password.")
@click.option("--disk", default="6g", show_default=True, help="Each host's disk at most; memory, taken as it fills.")
@click.option("--etcd", default="", metavar="3.6|DIR", help="Another etcd: 3.6 (built with Go), or DIR's programs.")
@OUTPUT
@click.pass_context
@tells
def up(
    context: click.Context, nodes: int, workers: int, wal_dir: bool, user: str, disk: str, etcd: str, output: str
) -> None:
    """Boot a control plane and wait until it is healthy."""
    from runbook.lab.lab import WAL_DIR, Lab

    wal = WAL_DIR if wal_dir else ""
    made = Lab.up(context.obj, nodes=nodes, workers=workers, wal_dir=wal, user=user, disk=disk, etcd=etcd)
    status = made.status()
    hosts = "\n".join(f"  {h['name']}  {h['alias']}  {h['ip']}" for h in status["hosts"])
    ssh = f"ssh -F {made.ssh_config} m1"
    text = f"lab {made.name} is up:\n{hosts}\nidentity:    {made.identity}\nknown hosts: {made.known_hosts}\n"
    show(status, f"{text}try:         runbook lab --name {made.name} exec operator -- {ssh}", output)


@lab.command()
@OUTPUT
@click.pass_context
@tells
def down(context: click.Context, output: str) -> None:
    """Take the lab away, whatever state it is in; says so, and exits 0, where there is none."""
    which = chosen(context)
    there = which.down()
    show(
        {"name": which.name, "removed": there},
        f"lab {which.name} is gone" if there else f"lab {which.name} was not up",
        output,
    )


@lab.command()
@OUTPUT
@click.pass_context
@tells
def status(context: click.Context, output: str) -> None:
    """Say which hosts run, are plugged in, and answer. Exits 2 where the lab is not up."""
    which = chosen(context)
    found = which.status()
    lines = [f"lab {which.name} is {'up' if found['up'] else 'not up'}"]
    for host in found["hosts"]:
        power = "running" if host["running"] else "crashed"
        ports = " ".join(f"{p}={'yes' if host[p] else 'no'}" for p in ("ssh", "etcd", "api") if p in host)
        lines.append(
            f"  {host['name']}  {host['ip']}  {power}  {'plugged' if host['plugged'] else 'UNPLUGGED'}  {ports}"
        )
    show(found, "\n".join(lines), output)
    sys.exit(0 if found["up"] else 2)


@lab.command("exec", context_settings={"ignore_unknown_options": True})
@click.argument("host")
@click.argument("command", nargs=-1, required=True, type=click.UNPROCESSED, metavar="-- CMD…")
@click.pass_context
@tells
def exec_(context: click.Context, host: str, command: tuple[str, ...]) -> None:
    """Run a command as root on HOST (m1, cp1, its address), or here in the network of the `operator`.

    Standard input, output and error are the command's own; so is the exit code.
    """
    import os

    which = chosen(context)
    argv = which.argv(host, command)
    os.execvpe(argv[0], argv, which.operator_env())  # noqa: S606 - no shell is meant


def _on_host(name: str, doc: str, said: str) -> None:
    """Make one of the commands that take a host and say one thing."""

    @lab.command(name, help=doc)
    @click.argument("host")
    @OUTPUT
    @click.pass_context
    @tells
    def command(context: click.Context, host: str, output: str) -> None:
        which = chosen(context)
        getattr(which, name)(host)
        host = which.host(host).name
        show({"name": which.name, "host": host, "did": name}, f"{host} {said}", output)


_on_host("crash", "Take the power from HOST. Its disk stays; what is in memory, /run and /tmp is lost.", "has crashed")
_on_host("boot", "Give HOST power again.", "boots")
_on_host("unplug", "Pull HOST's network cable.", "is unplugged")
_on_host("plug", "Put HOST's network cable in again.", "is plugged in")


@lab.command()
@click.option("--objects", type=click.IntRange(0, 100_000), default=200, show_default=True, help="How many objects.")
@click.option(
    "--mb", type=click.IntRange(0, 1900), default=0, show_default=True, help="Size the database to about this."
)
@OUTPUT
@click.pass_context
@tells
def fill(context: click.Context, objects: int, mb: int, output: str) -> None:
    """Write namespaces, pods, Secrets and ConfigMaps into the cluster, and random ballast up to a size in MiB."""
    done = chosen(context).fill(objects=objects, mb=mb)
    size = done["db_bytes"] / (1 << 20)
    show(dict(done), f"{done['objects']} objects; the database has {size:.1f} MiB, revision {done['revision']}", output)


@lab.command()
@click.argument("file", type=click.Path(dir_okay=False))
@click.option("--from", "host", metavar="HOST", help="Through which member; default: the first that runs.")
@OUTPUT
@click.pass_context
@tells
def snapshot(context: click.Context, file: str, host: str | None, output: str) -> None:
    """Save a snapshot of the lab's etcd to FILE on this machine, mode 0600."""
    path = chosen(context).snapshot(file, host)
    show({"file": str(path), "bytes": path.stat().st_size}, f"{path}: {path.stat().st_size} bytes", output)
