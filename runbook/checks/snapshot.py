"""Is the snapshot whole? Asked before it gets as far as any host's run directory."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence

from runbook import parse
from runbook.checks import Answers, Check, Finding, Severity, heard
from runbook.checks.content import fetched
from runbook.checks.words import ask, on, script, size
from runbook.errors import RunbookError
from runbook.plan import Node, Plan
from runbook.snapshots.content import NotWhole
from runbook.snapshots.integrity import TRAILER, inspect_source
from runbook.step import Binding, Command, Result, Target

MAGIC = "edda0ced"  # bbolt's 0xED0CDAED, as little-endian bytes 16 to 20 of the file

READ = r"""
set -u
f=$1
[ -f "$f" ] || { echo "there is no such file" >&2; exit 3; }
seen() { stat -L -c '%s %y %d %i' -- "$f"; }
before=$(seen) || exit 3
octets=${before%% *}
echo "size $octets"
echo "magic $(od -A n -t x1 -j 16 -N 4 -- "$f" | tr -d ' \n')"
digest() { { openssl dgst -sha256 -r 2> /dev/null || sha256sum; } | cut -c 1-64; }
echo "whole $(digest < "$f")"
if [ "$(( octets % 512 ))" -eq 32 ]; then
  echo "body $(head -c -32 -- "$f" | digest)"
  echo "trailer $(tail -c 32 -- "$f" | od -A n -v -t x1 | tr -d ' \n')"
fi
[ "$(seen)" = "$before" ] || { echo "it was written to while it was read: is a backup still at it?" >&2; exit 3; }
"""
"""What decides about a snapshot on a host's disk. etcdutl ignores the trailing SHA-256: flipped bytes exit 0."""

CUT = "it is cut short"
"""What is said of a file whose end is missing, here and in what came over of it."""


class SnapshotWhole(Check):
    """The snapshot is whole, and the one that the plan means."""

    at_first = True
    order, slow, fetches, tells = 40, True, True, True

    def asks(self, n: Target) -> Sequence[Command]:
        """Only of the node whose disk holds it."""
        source = n.plan.snapshot
        if source.node != n.name or not isinstance(n.place, Node):
            return ()
        wait = n.plan.timeouts.restore
        return [
            script(READ, str(source.path), timeout=wait),
            ask(n.plan.tools.etcdutl, "snapshot", "status", str(source.path), "-w", "json", timeout=60),
        ]

    def look(self, plan: Plan, bound: Binding) -> Sequence[Result]:
        """The file on the responder's machine, or the copy that came over from elsewhere, read from end to end."""
        source = plan.snapshot
        if source.node:
            return [_copy(plan)]
        if source.trouble:
            return [Result(1, err=source.trouble)]
        try:
            facts = inspect_source(source)
        except RunbookError as error:
            return [Result(1, err=json.dumps({"saw": error.message, "do": " ".join(error.next)}))]
        return [Result(0, _told(facts.sha256, facts.size, facts.revision, facts.warnings()))]

    def judge(self, plan: Plan, bound: Binding, answers: Answers) -> Iterator[Finding]:
        """On this machine; or on the node's disk, by what the host says, and then by the copy that came over."""
        looked = answers[""][0]
        if plan.snapshot.node is None:
            yield from self._looked(plan, bound, "", looked)
        for node, (read, status) in heard(answers, [n for n in plan.nodes if n.name == plan.snapshot.node]):
            yield from self._there(plan, bound, node, read, status, looked)

    def _looked(self, plan: Plan, bound: Binding, host: str, result: Result) -> Iterator[Finding]:
        if not result.ok:
            told = json.loads(result.err)
            yield self.blocks(host, told["saw"], told["do"])
            return
        told = json.loads(result.out)
        path = plan.snapshot.shown
        changed = self._changed(bound, host, path, told["sha256"])
        if changed:
            yield changed
        elif told["revision"] == 0:
            yield self.blocks(host, f"{path} holds no key", "use another snapshot")
        else:
            yield self.ok(host, f"{path}: {size(told['size'])}, revision {told['revision']}, sha256 {told['sha256']}")
        for text in told["warns"]:
            yield self.warns(host, text, "mind it")

    def _changed(self, bound: Binding, host: str, path: str, sha256: str) -> Finding | None:
        """The file may have been replaced since the run was bound to it."""
        if not (bound.known and bound.sha256) or bound.sha256 == sha256:
            return None
        saw = f"{path} has the sha256 {sha256}; this run is bound to {bound.sha256}"
        return self.blocks(host, saw, "the file was changed or replaced: put the right one back, or begin a new run")

    def _there(
        self, plan: Plan, bound: Binding, node: Node, read: Result, status: Result, copy: Result
    ) -> Iterator[Finding]:
        path = str(plan.snapshot.path)
        if path.lower().endswith(".part"):
            do = "wait until the backup is complete, or name one that is"
            yield self.blocks(node.name, f"{path} is a snapshot that is still being written (.part)", do)
            return
        if not read.ok:
            do = f"correct spec.snapshot.from: {on(node, 'ls', '-la', str(plan.snapshot.path.parent))}"
            yield self.blocks(node.name, f"{path}: {read.tail()}", do)
            return
        facts = dict(line.split(" ", 1) for line in read.out.splitlines() if " " in line)
        bad = _damage(plan, facts) or _no_keys(status)
        changed = self._changed(bound, node.name, path, facts.get("whole", ""))
        if bad and copy.code == 1 and CUT in copy.err:  # which the host cannot tell of a size that is a raw copy's
            yield from self._looked(plan, bound, node.name, copy)
        elif bad:
            yield self.blocks(node.name, f"{path}: {bad}", "use another copy, or another snapshot")
        elif changed:
            yield changed
        elif copy.ok and (came := json.loads(copy.out)["sha256"]) != facts["whole"]:
            saw = f"{path} has the sha256 {facts['whole']} there, and what came over here has {came}"
            yield self.blocks(node.name, saw, "somebody writes to it, or it cannot be read twice alike: check again")
        elif copy.code in (0, 1):
            yield from self._looked(plan, bound, node.name, copy)
        elif "trailer" not in facts:
            saw = f"{path} has no checksum at its end: only the plan's sha256 can tell whether it is whole"
            yield self.warns(node.name, saw, "mind it")
        else:
            yield self.ok(node.name, f"{path}: {size(int(facts['size']))}, sha256 {facts['whole']}")


def summed_up(findings: Iterable[Finding]) -> str:
    """The snapshot's SHA-256 in hex, as this check tells it where all is well; "" where it does not."""
    own = (f for f in findings if f.check == SnapshotWhole.id() and f.severity is Severity.OK)
    return next((found[1] for f in own if (found := re.search(r"sha256 ([0-9a-f]{64})$", f.saw))), "")


def _copy(plan: Plan) -> Result:
    """What the copy of a node's snapshot is, as of a file here; code 2 where none came, and another check says why."""
    try:
        copy = fetched(plan).result()
    except NotWhole as error:
        return Result(1, err=json.dumps({"saw": str(error), "do": "use another copy, or another snapshot"}))
    except (ValueError, OSError) as error:
        return Result(2, err=str(error))
    return Result(0, _told(copy.sha256, copy.size, copy.revision, copy.warnings))


def _told(sha256: str, octets: int, revision: int, warns: Sequence[str]) -> str:
    return json.dumps({"sha256": sha256, "size": octets, "revision": revision, "warns": warns})


def _damage(plan: Plan, facts: Mapping[str, str]) -> str:
    """What is wrong with the file, "" where nothing is."""
    octets = int(facts.get("size", "0")) if facts.get("size", "").isdigit() else 0
    whole, body = facts.get("whole", ""), facts.get("body", "")
    if octets == 0:
        return "it is empty"
    if facts.get("magic") != MAGIC:
        return "it is no etcd snapshot: bbolt's magic number is not where it belongs"
    if octets % 512 not in (0, TRAILER):
        return f"{CUT}: {octets} bytes is not a multiple of 512, nor 32 more, as a snapshot's size is"
    if octets % 512 == 0 and not plan.snapshot.allow_missing_trailer:
        return "it has no checksum at its end (spec.snapshot.allowMissingTrailer is for a raw copy of member/snap/db)"
    if len(whole) != 64:
        return "its sha256 could not be computed there"
    if octets % 512 == TRAILER and (len(body) != 64 or facts.get("trailer") != body):
        return f"its checksum is wrong: it ends in {facts.get('trailer', '')[:16]}…, its content makes {body[:16]}…"
    if plan.snapshot.sha256 and plan.snapshot.sha256.lower() != whole:
        return f"its sha256 is {whole}, the plan says {plan.snapshot.sha256.lower()}"
    return ""


def _no_keys(status: Result) -> str:
    """What etcdutl says, where it is there already."""
    if status.code in (126, 127):
        return ""
    if not status.ok:
        return f"etcdutl cannot read it: {status.tail()}"
    try:
        return "" if parse.snapshot_status(status.out).total_key else "it holds no key"
    except parse.ParseError as error:
        return str(error)
