"""What whoever pushes a snapshot says of where it is from."""

from __future__ import annotations

from pathlib import Path

import pytest

from runbook.errors import UsageError
from runbook.lab.pki import Authority
from runbook.snapshots.origin import Origin, origin


def test_what_was_said_and_the_cas_that_are_there(tmp_path: Path) -> None:
    (tmp_path / "etcd").mkdir()
    (tmp_path / "etcd" / "ca.crt").write_text(pem := Authority("etcd-ca").crt.decode())
    told: list[str] = []
    found = origin("m1", "3.5.21", tmp_path, told.append)
    assert (found.member, found.etcd) == ("m1", "3.5.21")
    assert list(found.fingerprints) == ["etcd/ca.crt"]
    assert len(found.fingerprints["etcd/ca.crt"]) == 64
    assert pem not in str(told)
    assert told == []


def test_nothing_said_is_nothing_known() -> None:
    assert origin("", "", None, lambda _: None) == Origin()


@pytest.mark.parametrize(("member", "etcd"), [("a b", ""), ("-x", ""), ("", "three"), ("", "3.5"), ("", "3.5.21;")])
def test_what_no_member_and_no_version_is_called(member: str, etcd: str) -> None:
    with pytest.raises(UsageError, match="allowed"):
        origin(member, etcd, None, lambda _: None)


def test_a_ca_that_cannot_be_read_costs_no_backup(tmp_path: Path) -> None:
    told: list[str] = []
    assert origin("", "", tmp_path, told.append).fingerprints == {}
    assert "has none of etcd/ca.crt" in told.pop()
    (tmp_path / "ca.crt").write_text("no certificate")
    (tmp_path / "etcd").mkdir()
    (tmp_path / "etcd" / "ca.crt").mkdir()
    assert origin("", "", tmp_path, told.append).fingerprints == {}
    assert len(told) == 2
    assert all(text.startswith("warning: --pki: ") for text in told)
