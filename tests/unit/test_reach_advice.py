"""What to do about a host that cannot be reached: the plan's key that is to blame, and the login to try."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from runbook import findings
from runbook.checks import Finding
from runbook.checks.reach import Reachable
from runbook.plan import Plan, Ssh
from runbook.step import Binding, Result
from tests.fake.sessions import plan


def whole(**ssh: object) -> Plan:
    made = Ssh(identity_file=Path("/keys/my key"), known_hosts_file=Path("/keys/known"))
    return replace(plan(1), nodes=(replace(plan(1).nodes[0], ssh=replace(made, **ssh)),))  # type: ignore[arg-type]


def found(text: str, plan_: Plan | None = None) -> Finding:
    plan_ = plan_ or whole()
    return next(iter(Reachable().judge(plan_, Binding(), {"m1": (Result(None, err=text),)})))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (
            "m1 (10.0.1.10:22): the login as root was refused with the key /keys/my key: Authentication failed; "
            "check with: ssh -i '/keys/my key' root@10.0.1.10 true",
            (
                "spec.ssh.identityFile",
                "spec.ssh.user",
                "ssh -i '/keys/my key' -o UserKnownHostsFile=/keys/known root@10.0.1.10 true",
            ),
        ),
        (
            "m1: the host key is not known: /keys/known has no entry",
            ("spec.ssh.knownHostsFile", "ssh-keyscan 10.0.1.10 >> /keys/known"),
        ),
        (
            "m1: no answer within 10s; check that the host is up and that port 22 is reachable from here",
            ("check that the host is up and that port 22 is reachable from here", "ssh -i '/keys/my key'"),
        ),
    ],
)
def test_the_plans_key_and_what_to_type(text: str, words: tuple[str, ...]) -> None:
    finding = found(text)
    assert all(word in finding.do for word in words), finding.do
    assert "check" not in finding.saw, "that is what to do, and stands there alone"


@pytest.mark.parametrize(
    "why", ["No route to host", "the name is not known (Name or service not known)", "no answer within 10 s"]
)
def test_the_table_says_which_address_or_name(why: str) -> None:
    finding = found(f"m1 (10.0.1.10:22): {why}; check that the host is up")
    assert findings.told(findings.grouped([finding]))[0] == f"✗ m1: 10.0.1.10:22: {why}"


def test_a_jump_host_is_named_as_it_is() -> None:
    finding = found("jump host bastion (bastion:22): No route to host; check that the host is up")
    assert finding.saw == "jump host bastion (bastion:22): No route to host"


def test_the_login_is_the_plans_own() -> None:
    finding = found("no answer", whole(user="ops", port=2222, identity_file=None))
    assert finding.do == "try: ssh -p 2222 -o UserKnownHostsFile=/keys/known ops@10.0.1.10 sudo true"


def test_a_minority_that_is_dead_can_be_left_out() -> None:
    three = plan(3)
    dead = (Result(None, err="no answer within 15 s; check that the host is up"),)
    answers = {"m1": (Result(0, "0\n"),), "m2": dead, "m3": (Result(0, "0\n"),)}
    told = {f.host: f.do for f in Reachable().judge(three, Binding(), answers)}
    assert told["m2"].endswith("; where it stays dead: `runbook run`, or `resume`, with --without m2")
    told = {f.host: f.do for f in Reachable().judge(three, Binding(), {**answers, "m3": dead})}
    assert not any("stays dead" in do for do in told.values()), "two of three are no minority"
    boot = "; a run goes on without 1 of 3 at most: boot 1 of m2, m3, then `runbook run`, or `resume`, with --without"
    assert told["m3"].endswith(f"{boot} the other")
    refused = (Result(None, err="the login as root was refused: Authentication failed"),)
    told = {f.host: f.do for f in Reachable().judge(three, Binding(), {**answers, "m2": refused})}
    assert not any("--without" in do for do in told.values()), "it is alive, and its etcd may be"
