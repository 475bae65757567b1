"""``runbook init``: arguments in, a plan out. Nothing heavy is imported before the command runs."""

from __future__ import annotations

import json
import os
import shlex
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from runbook.discovery.outfile import NOTHING, Again, may_write, write
from runbook.errors import NOTE, Refused, RunbookError, UsageError, closing, command

if TYPE_CHECKING:
    from runbook.discovery.draft import Draft, Source
    from runbook.discovery.seen import Seen
    from runbook.plan import Node, Ssh

LOOKUP = 2.0
"""Seconds for the addresses of silent hosts."""


@dataclass(frozen=True)
class Made:
    """What came of it: the plan's text and values, how many hosts, and what to mind."""

    text: str
    document: dict[str, Any]
    draft: Draft
    preview: str
    run: str
    again: str
    warnings: tuple[str, ...]


@click.command()
@click.option(
    "--host",
    "hosts",
    multiple=True,
    required=True,
    metavar="[USER@]HOST[:PORT]",
    help="A control plane, dead or alive; repeatable: name all of them.",
)
@click.option(
    "--snapshot", metavar="FILE|URL", help="What to restore: a file here, host://NODE/path, or a store's URL."
)
@click.option("--identity-file", type=click.Path(path_type=Path), help="The SSH key to log in with.")
@click.option("--known-hosts-file", type=click.Path(path_type=Path), help="Whose host keys to trust.")
@click.option("--jump", default="", metavar="[USER@]HOST[:PORT]", help="The jump host on the way.")
@click.option("-o", "out", type=click.Path(path_type=Path), help="Write the plan to this file; else it is printed.")
@click.option("--force", is_flag=True, help="Write over the file where it is there already.")
@click.option(
    "--output", type=click.Choice(["text", "json"]), default="text", show_default=True, help="How to print the result."
)
def init(
    hosts: tuple[str, ...],
    snapshot: str | None,
    identity_file: Path | None,
    known_hosts_file: Path | None,
    jump: str,
    out: Path | None,
    force: bool,
    output: str,
) -> None:
    """Write a plan from what the hosts themselves say, healthy or dead; changes nothing there."""
    from runbook.tables import visible

    ssh = _ssh(identity_file, known_hosts_file, jump)

    def again(file: Path) -> str:
        return _command(hosts, ssh, snapshot or "", file).removesuffix(" --force")

    may_write(out, force, again)
    made = _make(hosts, ssh, snapshot or "", out)
    if out:
        _keep(made, out, force, again, output)
    for text in made.warnings:
        click.echo(visible(f"warning: {text}"), err=True)
    if output == "json":
        document: dict[str, Any] = {"plan": made.document, "text": made.text, "file": str(out) if out else None}
        document |= {"warnings": list(made.warnings), "exit_code": 0}
        click.echo(json.dumps(document, indent=2, ensure_ascii=False))
        return
    told = _told(made, out)
    if not out:
        click.echo(made.text, nl=False)
    click.echo(told, err=not out)


def _keep(made: Made, out: Path, force: bool, again: Again, output: str) -> None:
    """Write the plan; where that fails, it is printed: the hosts may not answer a second time."""
    try:
        write(out, made.text, force, again)
    except UsageError:
        click.echo(made.text, nl=False, err=output == "json")
        raise


def _told(made: Made, out: Path | None) -> str:
    """What was written, and what to type now."""
    file = shlex.quote(str(out)) if out else "plan.yaml"
    counts = ((len(made.draft.nodes), "node"), (len(made.draft.workers), "worker"))
    kinds = [f"{number} {kind}{'s' if number > 1 else ''}" for number, kind in counts if number]
    head = f"{out or 'the plan'}: {', '.join(kinds)}; written from what was read there just now"
    next_ = [f"{made.preview}{NOTE}every check, every command; changes nothing", made.run]
    if made.draft.missing:
        next_.insert(0, f"{made.again}{NOTE}with the members that are missing here")
    if not made.draft.source.url:
        next_.insert(0, f"$EDITOR {file}{NOTE}name the snapshot: spec.snapshot.from")
    next_ = [
        f"{back}{NOTE}where etcd's data is in place; its kubelet starts it then" for back in made.draft.put_back
    ] + next_
    return "\n".join([head, *closing("no host is changed", "", next_)])


def _ssh(identity_file: Path | None, known_hosts_file: Path | None, jump: str) -> Ssh:
    """The login of the command line. Raises UsageError for a file that cannot be read."""
    from runbook.discovery.snapshots import listing
    from runbook.plan import Ssh
    from runbook.planfile.places import jump as jump_fault

    for option, path in (("--identity-file", identity_file), ("--known-hosts-file", known_hosts_file)):
        if path:
            try:
                path.expanduser().open("rb").close()
            except OSError as error:
                means = "no host can be asked without that file"
                look = listing(str(path.expanduser().absolute().parent))
                raise UsageError(
                    f"{option} {path}: {error.strerror}", true=NOTHING, means=means, next=(look,)
                ) from error
    if identity_file:
        _refuse_no_key(identity_file)
    if fault := jump_fault(jump):
        raise UsageError(
            f"--jump {jump!r} {fault}; it should be [user@]host[:port]",
            true=NOTHING,
            means="the hosts are reached through one jump host, or through what ~/.ssh/config says of them",
            next=(f"runbook init --help{NOTE}then once more, with the jump host as it should be",),
        )
    ssh = Ssh(identity_file=identity_file and identity_file.expanduser().absolute(), jump=jump or None)
    return replace(ssh, known_hosts_file=known_hosts_file.expanduser().absolute()) if known_hosts_file else ssh


def _refuse_no_key(path: Path) -> None:
    """Raises UsageError for a file that cannot log in anywhere. Of a public key an agent may have the other half."""
    from runbook.discovery.snapshots import listing
    from runbook.hosts.keys import is_private_key

    full = path.expanduser().absolute()
    if is_private_key(full) or (full.suffix == ".pub" and "SSH_AUTH_SOCK" in os.environ):
        return
    raise UsageError(
        f"--identity-file {path}: it is no private key (one has a line -----BEGIN … PRIVATE KEY-----)",
        true=NOTHING,
        means="no login was tried with it, and none can be",
        next=(listing(str(full.parent)),),
    )


def _make(words: Sequence[str], ssh: Ssh, snapshot: str, out: Path | None) -> Made:
    """Ask, judge, write, and read what was written. Raises UsageError, Refused, Held."""
    from concurrent.futures import Future
    from threading import Thread

    from runbook.connecting import enter_lab
    from runbook.discovery.judge import judge
    from runbook.discovery.seen import survey
    from runbook.discovery.snapshots import named, source
    from runbook.hosts import connect
    from runbook.plan import Plan, Snapshot
    from runbook.step import Binding, Target
    from runbook.transport import Claim

    def again(url: str) -> str:
        return _command(words, ssh, url, out)

    places, twice = _places(words, ssh, lambda hosts: _command(hosts, ssh, snapshot, out))
    wanted = named(snapshot, again)
    plan = Plan("init", Snapshot("", Path("/")), tuple(places))
    enter_lab(plan)
    places = [_ported(p) for p in places]
    local: Future[Source] = Future()

    def read() -> None:
        try:
            local.set_result(source(wanted))
        except BaseException as error:  # it belongs to the caller's thread
            local.set_exception(error)

    # a large snapshot is hashed while the hosts are asked; a daemon: Ctrl-C is not kept waiting for a slow disk
    Thread(target=read, daemon=True).start()
    hosts = connect([Target(plan, Binding(run="init"), p) for p in places], Claim(0))
    try:
        seen = survey(hosts, places, (wanted.node, wanted.path))
    finally:
        hosts.close()
    found = wanted.on_its_node(local.result(), seen, again)
    draft = judge(seen, found, _resolved(seen), _known(seen, ssh))
    for text in twice:
        draft.warn("nodes", text)
    _mind_snapshot(draft, found, seen)
    return _read_back(draft, seen, words, snapshot, out)


def _mind_snapshot(draft: Draft, found: Source, seen: Sequence[Seen]) -> None:
    """Warn of what is known of the snapshot, or of there being none."""
    if found.damage:
        draft.warn("snapshot", found.damage)
    elif not found.url:
        lying = ((b.at, f"host://{s.name}{b.path}") for s in seen if s.name for b in s.backups)
        newest = max(lying, default=(0, ""))[1]
        perhaps = f"; the newest file seen on a host: --snapshot {newest}" if newest else ""
        draft.warn("no snapshot", f"no --snapshot was given: spec.snapshot.from is only a placeholder{perhaps}")


def _read_back(draft: Draft, seen: Sequence[Seen], words: Sequence[str], snapshot: str, out: Path | None) -> Made:
    """The text, as our own loader takes it. Raises Refused where it does not: then a host says impossible things."""
    from datetime import UTC, datetime

    import yaml

    from runbook import __version__, planfile
    from runbook.discovery.draft import preview_command, run_command
    from runbook.discovery.writer import render
    from runbook.tables import visible

    name = shlex.quote(str(out or "plan.yaml"))
    hosts = [*words, *(f"{draft.ssh.user}@{place}" for place in draft.missing)]
    again = _command(hosts, draft.ssh, snapshot, out)
    text = render(draft, seen, __version__, datetime.now(UTC), name)
    try:
        plan, problems = planfile.read(text.encode(), out or Path("plan.yaml"))
    except planfile.PlanErrors as error:
        told = "\n".join(f"  {p.path}: {p.message}" for p in error.problems)
        raise Refused(
            f"what the hosts say makes no valid plan:\n{visible(told)}",
            true="no host is changed, and no plan was written",
            means="a value that a host's own files hold cannot stand in a plan, or two of them contradict each other",
            next=(f"{again}{NOTE}after mending it there, or with the hosts that belong to the cluster",),
        ) from error
    if plan.nodes != tuple(draft.nodes) and [n.name for n in plan.nodes] != [n.name for n in draft.nodes]:
        raise RunbookError("the plan reads otherwise than it was meant: this is a fault of runbook; please report it")
    warnings = (*draft.warnings, *(f"{p.path}: {p.message}" for p in problems))
    typed = preview_command(draft, seen, name), run_command(draft, seen, name)
    return Made(text, yaml.safe_load(text), draft, *typed, again, warnings)


def _command(hosts: Sequence[str], ssh: Ssh, snapshot: str, out: Path | None) -> str:
    """The same command for these hosts, over the file where it is there."""
    from runbook.plan import Ssh

    known = ssh.known_hosts_file
    options = {
        "--identity-file": str(ssh.identity_file or ""),
        "--known-hosts-file": str(known) if known != Ssh().known_hosts_file else "",
        "--jump": ssh.jump or "",
        "--snapshot": snapshot,
        "-o": str(out or ""),
    }
    words = ["runbook", "init", *(w for h in hosts for w in ("--host", h))]
    return f"{command(words, options)}{' --force' if out else ''}"


def _places(words: Sequence[str], ssh: Ssh, again: Callable[[Sequence[str]], str]) -> tuple[list[Node], list[str]]:
    """The hosts of the command line, each once, and what to say of those that stand there twice. Raises UsageError.

    ``again``: the same command with other hosts.
    """
    from runbook.planfile.charset import USER
    from runbook.planfile.places import host, host_key

    found: dict[tuple[str, int], Node] = {}
    warnings = []
    for word, place in [(w, _place(w, words, ssh, again)) for w in words]:
        if fault := host(place.host) or USER(place.ssh.user):
            raise _bad_host(f"--host {word!r} {fault}; it should be [user@]HOST[:PORT]", word, words, again)
        key = (host_key(place.host), place.ssh.port)
        if key in found:
            warnings.append(f"--host {word} stands there twice: it is asked once")
        found.setdefault(key, place)
    names = [host_key(p.host) for p in found.values()]
    alone = [
        p if names.count(host_key(p.host)) == 1 else replace(p, name=f"{p.host}:{p.ssh.port}") for p in found.values()
    ]
    return alone, warnings


def _place(word: str, words: Sequence[str], ssh: Ssh, again: Callable[[Sequence[str]], str]) -> Node:
    """One host of the command line. Raises UsageError."""
    from runbook.takeover import targets_of

    if "," in word:
        raise _bad_host(f"--host {word!r} names more than one host", word, words, again)
    try:
        return targets_of([word], ssh)[0].node
    except UsageError as error:
        raise _bad_host(error.message, word, words, again) from None


def _bad_host(message: str, word: str, words: Sequence[str], again: Callable[[Sequence[str]], str]) -> UsageError:
    """What is wrong with a ``--host``, and the command with that one mended, as far as it can be told."""
    several = [part.strip() for part in word.split(",") if part.strip()] if "," in word else []
    user = several[0].rpartition("@")[0] if several else ""
    better = [part if "@" in part or not user else f"{user}@{part}" for part in several] or ["HOST"]
    hosts = [h for w in words for h in (better if w == word else [w])]
    note = "" if several else f"{NOTE}with HOST as it should be"
    return UsageError(
        message, true=NOTHING, means="every host has a --host of its own", next=(f"{again(hosts)}{note}",)
    )


def _ported(place: Node) -> Node:
    """With the port that ``~/.ssh/config`` says where the command line does not: a plan says it itself."""
    from runbook.hosts.address import Address
    from runbook.hosts.login import Unreachable, ssh_config

    port = place.ssh.port
    if not port:
        try:
            port = int(ssh_config(Address.to(place.name, place.host, place.ssh))[1].get("port", 22))
        except (Unreachable, ValueError):
            port = 22
    return replace(place, ssh=replace(place.ssh, port=port))


def _resolved(seen: Sequence[Seen]) -> dict[str, set[str]]:
    """The addresses of silent hosts, as this machine knows them; a name service that is down holds nobody up."""
    import socket
    from threading import Thread

    from runbook.hosts.address import Address
    from runbook.hosts.login import Unreachable, ssh_config

    found: dict[str, set[str]] = {s.word: set() for s in seen if s.silent}

    def ask(word: str, place: Node) -> None:
        try:
            name = ssh_config(Address.to(place.name, place.host, place.ssh))[1].get("hostname", place.host)
            rows = socket.getaddrinfo(name, None, type=socket.SOCK_STREAM)
            found[word] = {name, *(str(row[4][0]) for row in rows)}
        except (OSError, UnicodeError, Unreachable):
            return

    threads = [Thread(target=ask, args=(s.word, s.place), daemon=True) for s in seen if s.silent]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(LOOKUP)
    return dict(found)


def _known(seen: Sequence[Seen], ssh: Ssh) -> dict[str, bool]:
    """Which names and addresses of the cluster's nodes known_hosts has a key for."""
    from runbook.hosts.keys import known_keys

    places: Iterable[str] = {p for s in seen for n in s.nodes for p in (n.name, n.internal) if p}
    port = next((s.place.ssh.port for s in seen), 22)
    try:
        return {p: bool(known_keys(ssh.known_hosts_file, p, port).keys) for p in places}
    except OSError:
        return {}
