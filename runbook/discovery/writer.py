"""The draft as the text of a plan: every key, each with what was learned of it as a comment. Pure."""

from __future__ import annotations

import json
import re
import textwrap
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import fields
from datetime import UTC, datetime
from typing import Any

from runbook.checks.words import size
from runbook.discovery.draft import Draft, preview_command, run_command
from runbook.discovery.seen import NO_TOOL, Seen
from runbook.discovery.settings import etcd_version
from runbook.log import redact
from runbook.plan import Node, Paths, Ssh, Worker
from runbook.planfile.build import FIELDS
from runbook.snapshots.urls import is_reference
from runbook.tables import printable

KEYS = {field: key for key, field in FIELDS.items()}
PLACEHOLDER = "name-the-snapshot-here.db"
"""What stands for a snapshot that nobody named: ``validate`` takes it, ``run`` says that there is no such file."""
WIDTH = 116
_PLAIN = re.compile(r"[A-Za-z/~$][A-Za-z0-9._/:$~@%+-]*|[1-9][0-9]*(?:\.[0-9]+){3}")
_WORDS = frozenset(("true", "false", "null", "yes", "no", "on", "off", "y", "n", "~"))


def scalar(text: str) -> str:
    """A text as YAML; in quotes wherever somebody could take it for something else."""
    if _PLAIN.fullmatch(text) and text.lower() not in _WORDS and not text.endswith(":") and ": " not in text:
        return text
    return json.dumps(text, ensure_ascii=False)


def flow(texts: Iterable[str]) -> str:
    """A list on one line."""
    return f"[{', '.join(json.dumps(t, ensure_ascii=False) for t in texts)}]"


def comment(text: str, indent: int) -> list[str]:
    """One comment, without secrets and without anything that a terminal or YAML would act on, in lines."""
    lead = " " * indent + "# "
    plain = printable(redact(text))
    return textwrap.wrap(plain, WIDTH, initial_indent=lead, subsequent_indent=lead + "  ", break_on_hyphens=False)


class _Page:
    """Lines of YAML, with the draft's notes above the keys that they are for."""

    def __init__(self, draft: Draft) -> None:
        self.lines: list[str] = []
        self.draft = draft

    def put(self, indent: int, text: str = "", *notes: str) -> None:
        """A line, below the notes of these keys."""
        for key in notes:
            for note in self.draft.notes(key):
                self.lines += comment(note, indent)
        self.lines.append(" " * indent + text if text else "")


def render(draft: Draft, seen: Sequence[Seen], version: str, at: datetime, again: str) -> str:
    """The plan's text. ``version`` is the program's, ``again`` how the file will be called."""
    page = _Page(draft)
    page.lines += [line for text in _head(draft, seen, version, at, again) for line in text]
    page.put(0, "apiVersion: runbook/v1")
    page.put(0, "kind: EtcdRestore")
    page.put(0, "metadata:")
    page.put(2, f"name: {scalar(draft.name)}", "name")
    page.put(0, "spec:")
    _snapshot(page, seen)
    page.put(2, "cluster:")
    page.put(4, "token: $RUN  # the run's id, so that old and new members never mix")
    page.put(4, f"bumpRevision: {draft.bump}", "bump")
    page.put(4, "markCompacted: true")
    page.put(2, "nodes:", "nodes")
    for node in draft.nodes:
        _node(page, node, next((s for s in seen if s.word == node.name or s.name == node.name), None))
    _workers(page)
    _ssh(page)
    _rest(page, seen)
    text = "\n".join(page.lines) + "\n"
    return text.encode("utf-8", "replace").decode()  # JSON can hold half of a surrogate pair, UTF-8 cannot


def _head(draft: Draft, seen: Sequence[Seen], version: str, at: datetime, again: str) -> Iterator[list[str]]:
    yield comment(
        f"Restores etcd. Written by `runbook init` {version}, {at:%Y-%m-%d %H:%M} UTC, from what these said:", 0
    )
    for s in seen:
        yield comment(f"- {s.place.ssh.user}@{s.word}: {_said(s)}", 0)
    yield ["# What stands here was read there, unless a comment says otherwise. Look through it; then:", "#"]
    file = printable(again)
    yield [f"#   {preview_command(draft, seen, file)}", f"#   {run_command(draft, seen, file)}", "#"]
    for text in draft.warnings:
        yield comment(f"WARNING: {text}", 0)


def _said(s: Seen) -> str:
    """One host in a line."""
    if s.silent:
        return f"did not answer: {s.silent}"
    if not s.pod:
        return "no control plane"
    tag = s.pod.version or "no tag"
    how = "could not be asked" if s.etcd_said == NO_TOOL else "does not answer"
    etcd = f"etcd {etcd_version(s)} answers" if s.statuses else f"etcd {how} ({s.etcd_said})"
    api = "API server answers" if s.nodes else f"API server does not answer ({s.api_said})"
    return f"{s.name}; {etcd}, image {tag}; {api}, Kubernetes {s.api.version if s.api and s.api.version else 'unknown'}"


def _snapshot(page: _Page, seen: Sequence[Seen]) -> None:
    source = page.draft.source
    page.put(2, "snapshot:")
    if not source.url:
        page.lines += comment(
            "REPLACE this name: no --snapshot was given. file:///path, or a path from this file on", 4
        )
        page.lines += comment("(on your machine), host://NODE/path (on that node's disk), or a store's URL", 4)
    for text in source.hints:
        page.lines += comment(text, 4)
    for s in seen:
        for b in s.backups if s.name and not source.url else ():
            when = f"{datetime.fromtimestamp(b.at, UTC):%Y-%m-%d %H:%M} UTC"
            page.lines += comment(f"seen: host://{s.name}{b.path}, {size(b.size)}, {when}", 4)
    page.put(4, f"from: {scalar(source.url or PLACEHOLDER)}", "snapshot")
    unknown = "its sidecar's" if is_reference(source.url) else "taken when the file is first read"
    page.put(4, f"sha256: {json.dumps(source.sha256)}{'' if source.sha256 else f'  # {unknown}'}")
    if source.raw:
        page.lines += comment("no checksum at its end: set true only if it is a raw copy of member/snap/db", 4)
    page.put(4, "allowMissingTrailer: false")


def _node(page: _Page, node: Node, seen: Seen | None) -> None:
    page.put(4, f"- name: {scalar(node.name)}", f"node {node.name}")
    page.put(6, f"host: {scalar(node.host)}")
    page.put(6, f"peerURLs: {flow(node.peer_urls)}")
    page.put(6, f"clientURLs: {flow(node.client_urls)}")
    for name, value, usual in (("ssh", node.ssh, page.draft.ssh), ("paths", node.paths, page.draft.paths)):
        own = _differing(value, usual)
        if own:
            page.put(6, f"{name}: {{{', '.join(f'{k}: {v}' for k, v in own.items())}}}")
    if seen and seen.api:
        _flags(page, seen)


def _flags(page: _Page, seen: Seen) -> None:
    """The API server's flags that matter to a restore."""
    for flag in ("etcd-servers", "encryption-provider-config"):
        value = seen.api.flag(flag) if seen.api else ""
        if value and (flag != "etcd-servers" or value != "https://127.0.0.1:2379"):
            page.lines += comment(f"kube-apiserver --{flag}={value}", 6)


def _differing(value: Any, usual: Any) -> dict[str, str]:
    """The keys of a settings object that differ from the common one, as YAML."""
    found = {}
    for f in fields(value):
        mine = getattr(value, f.name)
        if mine != getattr(usual, f.name):
            found[KEYS.get(f.name, f.name)] = str(mine) if isinstance(mine, int) else json.dumps(str(mine or ""))
    return found


def _workers(page: _Page) -> None:
    workers: list[Worker] = page.draft.workers
    if not workers:
        page.put(2, "workers: []", "workers")
        return
    page.put(2, "workers:  # their kubelets are restarted afterwards", "workers")
    for worker in workers:
        own = _differing(worker.ssh, page.draft.ssh)
        inline = f"{{host: {scalar(worker.host)}, ssh: {{{', '.join(f'{k}: {v}' for k, v in own.items())}}}}}"
        page.put(4, f"- {inline if own else scalar(worker.host)}", f"worker {worker.host}")


def _ssh(page: _Page) -> None:
    ssh: Ssh = page.draft.ssh
    page.put(2, "ssh:")
    page.put(4, f"user: {scalar(ssh.user)}")
    page.put(4, f"port: {ssh.port}")
    identity = str(ssh.identity_file or "")
    page.put(4, f"identityFile: {scalar(identity)}{'' if identity else '  # the agent and ~/.ssh/config'}")
    page.put(4, f"knownHostsFile: {scalar(str(ssh.known_hosts_file))}")
    page.put(4, f"jump: {scalar(ssh.jump or '')}")
    page.put(4, "sudo: auto  # where the login is not root; it is always sudo -n")
    page.put(4, "connectTimeout: 10s")


def _rest(page: _Page, seen: Sequence[Seen]) -> None:
    draft = page.draft
    page.put(2, "tools:", "tools")
    for tool in ("etcdctl", "etcdutl"):
        page.put(4, f"{tool}: {scalar(draft.tools.get(tool, tool))}")
    page.put(4, 'upload: ""  # a directory here with both, brought along where hosts have none', "upload")
    page.put(2, "paths:")
    for f in fields(Paths):
        key = KEYS.get(f.name, f.name)
        page.put(4, f"{key}: {scalar(getattr(draft.paths, f.name))}", key)
    page.put(2, "restore:")
    page.put(4, f"owner: {scalar(draft.owner)}", "owner")
    page.put(2, "timeouts: {stop: 120s, quorum: 120s, apiServer: 180s, nodesReady: 300s, command: 60s, restore: 30m}")
    page.put(2, "verify:")
    page.put(4, "nodesReady: true")
    page.put(4, "pods: true")
    page.put(4, f"secrets: {flow(draft.secrets)}", "secrets")
    page.put(4, f"rbac: {flow(draft.rbac)}", "rbac")
    endpoint = next((e for s in seen if (e := s.kubeadm.get("controlPlaneEndpoint", ""))), "")
    if endpoint:
        page.lines += comment(f"clients reach the API at {endpoint}: it is down with the API servers", 4)
    page.put(4, "checks: []  # your own: {name: …, on: local, run: shell text, within: 60s}")
