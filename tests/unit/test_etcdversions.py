"""Which versions of etcd are warned of, and what is better."""

from __future__ import annotations

import pytest

from runbook.etcdversions import Version, better, dots, faults


@pytest.mark.parametrize(
    ("version", "words"),
    [
        ((3, 5, 0), "inconsistent"),
        ((3, 5, 2), "inconsistent"),
        ((3, 5, 5), "a crash during defragmentation"),
        ((3, 5, 22), "a snapshot applied during defragmentation"),
        ((3, 5, 23), "learner"),
        ((3, 6, 4), "a snapshot applied during defragmentation"),
    ],
)
def test_known_faults(version: Version, words: str) -> None:
    assert any(words in fault for fault in faults(version))


@pytest.mark.parametrize("version", [(3, 5, 24), (3, 5, 26), (3, 6, 5), (3, 6, 16), (3, 4, 34)])
def test_no_known_fault(version: Version) -> None:
    assert faults(version) == []


def test_each_fault_is_told_once_and_what_is_better_has_none() -> None:
    assert len(faults((3, 5, 1), (3, 5, 2))) == len(set(faults((3, 5, 1)))) == 3
    for version in ((3, 5, 1), (3, 6, 0)):
        wanted = better(version).split()[0]
        major, minor, patch = map(int, wanted.split("."))
        assert faults((major, minor, patch)) == []
        assert wanted.startswith(dots(version)[:4])
