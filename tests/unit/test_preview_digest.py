"""The digest changes with whatever would be done, and with nothing else."""

import dataclasses
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from runbook import kube, outlook, preview
from runbook.plan import OwnCheck, Plan, Ssh, Tools, Verify, Worker
from runbook.procedure import Procedure
from runbook.procedures import data, kubeadm, scripts
from runbook.step import Binding, Command, Step
from tests.fake.sessions import PROCEDURE, plan

BOUND = Binding(sha256="ab" * 32, etcdctl_sha256="cd" * 32, etcdutl_sha256="ef" * 32)


def full_plan() -> Plan:
    """A plan with a value in every field."""
    base = plan(3, wal=True)
    ssh = Ssh(identity_file=Path("/id"), jump="bastion")
    return replace(
        base,
        ticket="INC-1",
        nodes=tuple(replace(n, ssh=ssh) for n in base.nodes),
        workers=(Worker("w1", ssh=ssh),),
        tools=Tools(upload=Path("/opt/tools")),
        snapshot=replace(base.snapshot, sha256="ab" * 32),
        verify=Verify(
            secrets=("default/known",), rbac=("clusterrole/x",), checks=(OwnCheck("pay", "local", "true", 5.0),)
        ),
    )


def changed(value: Any) -> Iterator[tuple[str, Any]]:
    """The value with one thing in it changed, for each thing in it."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        for field in dataclasses.fields(value):
            if isinstance(value, Plan) and field.name in ("file", "text"):
                continue
            for path, other in changed(getattr(value, field.name)):
                yield f".{field.name}{path}", replace(value, **{field.name: other})
    elif isinstance(value, tuple):
        for i, item in enumerate(value):
            for path, other in changed(item):
                yield f"[{i}]{path}", (*value[:i], other, *value[i + 1 :])
        if value:
            yield "[-1] dropped", value[:-1]
    elif isinstance(value, bool):
        yield "", not value
    elif isinstance(value, int | float):
        yield "", value + 1
    elif isinstance(value, Path):
        yield "", value / "other"
    elif isinstance(value, str):
        yield "", f"{value}x"
    elif value is None:
        yield "", "m1"
    else:
        raise TypeError(type(value))


MUTATIONS = dict(changed(full_plan()))


def test_every_field_of_a_plan_is_mutated() -> None:
    assert len(MUTATIONS) > 80
    for path in (".cluster.token", ".nodes[0].ssh.sudo", ".timeouts.stop", ".verify.checks[0].run", ".snapshot.node"):
        assert path in MUTATIONS


@pytest.mark.parametrize("path", [p for p in MUTATIONS if p != ".nodes[-1] dropped"])
def test_the_digest_changes_with_the_plan(path: str) -> None:
    assert preview.digest(MUTATIONS[path], BOUND, PROCEDURE) != preview.digest(full_plan(), BOUND, PROCEDURE)


def test_the_digest_does_not_change_with_layout_place_run_or_holder() -> None:
    mine = preview.digest(full_plan(), BOUND, PROCEDURE)
    other_text = replace(full_plan(), text=b"# a comment\nthe plan", file=Path("/elsewhere/p.yaml"))
    assert preview.digest(other_text, BOUND, PROCEDURE) == mine
    assert preview.digest(full_plan(), replace(BOUND, run="r-1", holder="me@here"), PROCEDURE) == mine


@pytest.mark.parametrize("field", ["sha256", "etcdctl_sha256", "etcdutl_sha256"])
def test_the_digest_changes_with_what_is_bound(field: str) -> None:
    changed: dict[str, Any] = {field: "01" * 32}
    other = replace(BOUND, **changed)
    assert preview.digest(full_plan(), other, PROCEDURE) != preview.digest(full_plan(), BOUND, PROCEDURE)


def test_the_digest_of_a_snapshot_on_a_node_is_the_same_before_and_after_it_was_read() -> None:
    on_node = replace(plan(3), snapshot=replace(plan(3).snapshot, source="host://m1/s.db", node="m1"))
    before = preview.digest(on_node, Binding(), PROCEDURE)
    assert preview.digest(on_node, replace(BOUND, run="r-1"), PROCEDURE) == before
    planned = replace(on_node, snapshot=replace(on_node.snapshot, sha256="ab" * 32))
    assert preview.digest(planned, Binding(), PROCEDURE) == preview.digest(planned, BOUND, PROCEDURE) != before


USED = sorted(preview.document(full_plan(), BOUND, PROCEDURE)["scripts"])


@pytest.mark.parametrize("name", USED)
def test_the_digest_changes_with_every_script(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    before = preview.digest(full_plan(), BOUND, PROCEDURE)
    module, _, constant = name.rpartition(".")
    where = {"": scripts.__name__, "kube": kube.__name__}.get(module, f"runbook.checks.{module}")
    text = preview.document(full_plan(), BOUND, PROCEDURE)["scripts"][name]
    monkeypatch.setattr(f"{where}.{constant}", f"{text}# changed\n")
    assert preview.digest(full_plan(), BOUND, PROCEDURE) != before


def test_every_constant_script_is_named_by_its_constant() -> None:
    assert not [name for name in USED if name.startswith("PLAN-")]
    assert {"SWAP", "SWAP_BACK", "STOP", "START", "RESTORE", "LOCK", "SWEEP", "LATER"} <= set(USED)


def _with(change: Step | None, at: int) -> Procedure:
    steps = [s for i, s in enumerate(kubeadm.STEPS) if change is not None or i != at]
    if change is not None:
        steps[at] = change
    return Procedure(tuple(steps), kubeadm.LOCK_STEP, kubeadm.may_roll_back, data.sweep)


def test_the_digest_changes_with_the_procedure(monkeypatch: pytest.MonkeyPatch) -> None:
    mine = preview.digest(full_plan(), BOUND, PROCEDURE)
    digests = {mine}
    for at in range(len(kubeadm.STEPS)):
        digests.add(preview.digest(full_plan(), BOUND, _with(None, at)))
    swapped = list(kubeadm.STEPS)
    swapped[8], swapped[9] = swapped[9], swapped[8]
    digests.add(preview.digest(full_plan(), BOUND, replace(PROCEDURE, steps=tuple(swapped))))
    digests.add(preview.digest(full_plan(), BOUND, replace(PROCEDURE, sweep=lambda n: [Command(("true",))])))
    digests.add(preview.digest(full_plan(), BOUND, replace(PROCEDURE, lock=kubeadm.STEPS[2])))
    later = replace(PROCEDURE, may_roll_back=lambda n: kubeadm.may_roll_back(n).within(1))
    digests.add(preview.digest(full_plan(), BOUND, later))
    assert len(digests) == len(kubeadm.STEPS) + 5
    monkeypatch.setattr(outlook, "__version__", "99.0")
    assert preview.digest(full_plan(), BOUND, PROCEDURE) not in digests


@pytest.mark.parametrize(
    "change",
    [
        {"argv": ("true", "x")},
        {"timeout": 61.0},
        {"changes": False},
        {"bare": True},
        {"optional": True},
    ],
    ids=str,
)
def test_the_digest_changes_with_how_a_command_is_run(change: dict[str, Any]) -> None:
    base = Command(("true",))
    one = replace(PROCEDURE, sweep=lambda n: [base])
    other = replace(PROCEDURE, sweep=lambda n: [replace(base, **change)])
    assert preview.digest(full_plan(), BOUND, one) != preview.digest(full_plan(), BOUND, other)
