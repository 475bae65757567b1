"""The bootstrap: idempotent, and plain where it cannot go on; what it downloads, every other lab test proves."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from runbook.lab import etcdbuild, toolchain
from runbook.lab.errors import Missing

pytestmark = pytest.mark.lab


def test_it_finds_everything_and_the_second_time_at_once(capsys: pytest.CaptureFixture[str]) -> None:
    assert toolchain.main() == 0
    first = capsys.readouterr().out
    began = time.monotonic()
    assert toolchain.main() == 0
    assert time.monotonic() - began < 5
    assert capsys.readouterr().out == first
    for line in first.splitlines():
        assert Path(line.partition(": ")[2]).exists(), line


def says_what_is_missing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> str:
    """The one sentence of a bootstrap that cannot go on, and leaves nothing behind."""
    assert toolchain.main() == 1
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert sorted(p.name for p in tmp_path.iterdir()) == [".lock"], "something half-done was left"
    return said


@pytest.fixture
def bare(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A machine without the programs, with an empty cache; and no etcd is chosen, whatever these tests run with."""
    monkeypatch.setenv("RUNBOOK_CACHE_DIR", str(tmp_path))
    monkeypatch.delenv(toolchain.CHOICE, raising=False)
    for module in (toolchain, etcdbuild):
        monkeypatch.setattr(module, "on_path", lambda _name: None)


@pytest.mark.usefixtures("bare")
def test_without_apt_it_says_in_one_sentence_what_is_missing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    said = says_what_is_missing(tmp_path, capsys)
    assert "etcd 3.5.10 or newer" in said
    assert "apt-get" in said


@pytest.mark.usefixtures("bare")
def test_without_go_it_says_in_one_sentence_what_etcd_3_6_needs(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """That etcd is built, not downloaded: apt is no matter to it."""
    monkeypatch.setenv(toolchain.CHOICE, etcdbuild.SERIES)
    said = says_what_is_missing(tmp_path, capsys)
    assert "etcd 3.6 is built from its Go modules" in said
    assert "install Go" in said
    assert "apt-get" not in said


@pytest.mark.usefixtures("bare")
def test_what_is_quickly_found_missing_is_told_before_etcd_3_6_is_built(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The build takes minutes: kubectl, which cannot be downloaded without apt, is asked for before it."""
    monkeypatch.setenv(toolchain.CHOICE, etcdbuild.SERIES)
    monkeypatch.setattr(etcdbuild, "on_path", Path)
    monkeypatch.setattr(etcdbuild, "_build", lambda *_: pytest.fail("it is built before"))
    said = says_what_is_missing(tmp_path, capsys)
    assert said.startswith("runbook lab: kubectl is not on PATH")


def test_a_cache_that_cannot_be_written_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("RUNBOOK_CACHE_DIR", str(tmp_path / "file"))
    with pytest.raises(Missing, match="RUNBOOK_CACHE_DIR"):
        toolchain.ensure()


def test_an_etcd_without_the_bump_is_not_good_enough(tmp_path: Path) -> None:
    programs = {}
    for name in toolchain.ETCD:
        programs[name] = tmp_path / name
        programs[name].write_text(f"#!/bin/sh\necho '{name} version: 3.5.1'; echo 'etcd Version: 3.5.1'\n")
        programs[name].chmod(0o755)
    assert not toolchain.is_good_etcd(programs)
    with programs["etcdutl"].open("a") as file:
        file.write("echo --bump-revision\n")
    assert toolchain.is_good_etcd(programs)
