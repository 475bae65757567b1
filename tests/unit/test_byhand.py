"""The manual card, typed into a real shell: it ends where a rollback ends, from every state that a swap can leave."""

from __future__ import annotations

import os
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from runbook.procedures import scripts
from runbook.procedures.byhand import by_hand
from runbook.procedures.words import STATIC_PODS, swap_words
from runbook.step import Target
from tests.fake.sessions import BOUND, RUN, plan

CUTS = ("whole", "between", "back again", "old gone")


def target(root: Path, *, wal: bool) -> Target:
    """A host whose paths are all below ``root``."""
    node = plan(1).nodes[0]
    places = {"manifests": f"{root}/m", "data_dir": f"{root}/data", "workspace": f"{root}/ws"}
    paths = replace(node.paths, **places, wal_dir=f"{root}/wal" if wal else "")
    return Target(plan(1), BOUND, replace(node, paths=paths))


def sh(text: str, *words: str, root: Path) -> subprocess.CompletedProcess[str]:
    env = {**os.environ, "PATH": f"{root}/bin:{os.environ['PATH']}"}
    return subprocess.run(["sh", "-c", text, "sh", *words], env=env, text=True, capture_output=True, check=False)


def tree(root: Path, n: Target) -> None:
    """Old data in place, the restored beside it, manifests saved and parked."""
    for place, text in ((f"{root}/data/member/snap", "old"), (f"{root}/data/.{RUN}.restored/member/snap", "new")):
        Path(place).mkdir(parents=True)
        (Path(place) / "db").write_text(text)
    for place, text in ((f"{root}/wal", "old"), (f"{root}/wal/.{RUN}.restored", "new")):
        Path(place).mkdir(parents=True, exist_ok=True)
        (Path(place) / "0.wal").write_text(text)
    for place in (f"{root}/m", f"{n.run_dir}/manifests", f"{root}/bin"):
        Path(place).mkdir(parents=True, exist_ok=True)
    for name in STATIC_PODS:
        (Path(n.run_dir) / "manifests" / name).write_text(name)
    (root / "bin/crictl").write_text("#!/bin/sh\n")
    (root / "bin/crictl").chmod(0o755)


def before_manifests(n: Target) -> str:
    """The card up to the old data's return."""
    lines = list(by_hand(n))
    return "\n".join(lines[: lines.index("sync)") + 1])


def moments(text: str) -> list[str]:
    """The script, ended before each of its commands that change something."""
    lines = text.splitlines()
    changing = [at for at, line in enumerate(lines) if line.split()[:1] and line.split()[0] in ("mv", "find", "touch")]
    return ["\n".join([*lines[:at], "exit 0", *lines[at:]]) for at in changing]


def test_without_the_saved_manifests_no_manifest_is_moved(tmp_path: Path) -> None:
    """Typed on a host where the run's directory is gone, the card would else stop a cluster that serves."""
    n = target(tmp_path, wal=False)
    tree(tmp_path, n)
    shutil.rmtree(n.run_dir)
    for name in STATIC_PODS:
        (tmp_path / "m" / name).write_text(name)
    done = sh("\n".join(by_hand(n)), root=tmp_path)
    assert "STOP" in done.stdout
    assert sorted(p.name for p in (tmp_path / "m").iterdir()) == sorted(STATIC_PODS)
    assert (tmp_path / "data/member/snap/db").read_text() == "old"


@pytest.mark.parametrize("had", [True, False])
@pytest.mark.parametrize("wal", [False, True])
@pytest.mark.parametrize("text", [scripts.SWAP, scripts.SWAP_BACK])
def test_from_wherever_a_swap_was_cut(tmp_path: Path, text: str, *, wal: bool, had: bool) -> None:
    """The card and the script both bring all of the old data back, or nothing where there was none."""
    for number, cut in enumerate(moments(text)):
        for finish in ("card", "script"):
            root = tmp_path / f"{number}-{finish}"
            n = target(root, wal=wal)
            tree(root, n)
            if not had:
                shutil.rmtree(root / "data/member")
                (root / "wal/0.wal").unlink()
            words = swap_words(n)
            if text is scripts.SWAP_BACK:
                assert sh(scripts.SWAP, *words, root=root).returncode == 0
            sh(cut, *words, root=root)
            if finish == "card":
                assert "STOP" not in sh("\n".join(by_hand(n)), root=root).stdout
                assert {p.name for p in (root / "m").iterdir()} == set(STATIC_PODS)
            done = sh(scripts.SWAP_BACK, *words, root=root)
            assert done.returncode == 0, (number, finish, done.stderr)
            assert sh(scripts.UNSWAPPED, *words, root=root).returncode == 0
            assert (root / "data/member").exists() == had
            assert not had or (root / "data/member/snap/db").read_text() == "old"
            assert not wal or [p.read_text() for p in (root / "wal").glob("*.wal")] == (["old"] if had else [])


@pytest.mark.parametrize("wal", [False, True])
@pytest.mark.parametrize("cut", CUTS)
def test_the_card_ends_where_a_rollback_ends(tmp_path: Path, cut: str, wal: bool) -> None:
    n = target(tmp_path, wal=wal)
    tree(tmp_path, n)
    words, member = swap_words(n), tmp_path / "data/member"
    old, new = tmp_path / f"data/.{RUN}.old/member", tmp_path / f"data/.{RUN}.discarded/member"
    script = scripts.SWAP.replace('if [ ! -e "$4/swapped" ]', "exit 0\nif true") if cut == "between" else scripts.SWAP
    assert sh(script, *words, root=tmp_path).returncode == 0
    if cut == "back again":
        text = scripts.SWAP_BACK.split("rm -f --")[0]
        assert sh(text, *words, root=tmp_path).returncode == 0
    if cut == "old gone":
        old.rename(tmp_path / "somewhere")
    said = sh(before_manifests(n), root=tmp_path).stdout
    if cut == "old gone":
        assert "STOP" in said
        assert "STOP" in sh("\n".join(by_hand(n)), root=tmp_path).stdout
        assert not list((tmp_path / "m").iterdir()), "no manifest comes back onto the restored data"
        assert (member / "snap/db").read_text() == "new"
        assert sh(scripts.SWAP_BACK, *words, root=tmp_path).returncode == 1
        return
    assert "STOP" not in said
    assert (member / "snap/db").read_text() == "old"
    assert cut == "between" or (new / "snap/db").read_text() == "new"
    assert not wal or (tmp_path / "wal/0.wal").read_text() == "old"
    again = sh("\n".join(by_hand(n)), root=tmp_path)
    assert again.returncode == 0, again.stderr
    assert {p.name for p in (tmp_path / "m").iterdir()} == set(STATIC_PODS)
    assert (member / "snap/db").read_text() == "old"
    for text in (scripts.SWAP_BACK, scripts.UNSWAPPED):
        done = sh(text, *words, root=tmp_path)
        assert done.returncode == 0, done.stdout + done.stderr
    assert (member / "snap/db").read_text() == "old"


def test_odd_paths_are_quoted(tmp_path: Path) -> None:
    n = target(tmp_path / "a b; c", wal=True)
    tree(tmp_path / "a b; c", n)
    assert sh(scripts.SWAP, *swap_words(n), root=tmp_path / "a b; c").returncode == 0
    sh("\n".join(by_hand(n)), root=tmp_path / "a b; c")
    assert (tmp_path / "a b; c/data/member/snap/db").read_text() == "old"


@pytest.mark.parametrize("finish", ["script", "card"])
def test_a_wal_directory_behind_a_link(tmp_path: Path, finish: str) -> None:
    n = target(tmp_path, wal=True)
    tree(tmp_path, n)
    (tmp_path / "wal").rename(tmp_path / "disk")
    (tmp_path / "wal").symlink_to("disk")
    words = swap_words(n)
    assert sh(scripts.SWAP, *words, root=tmp_path).returncode == 0
    assert (tmp_path / "disk/0.wal").read_text() == "new"
    assert (tmp_path / f"disk/.{RUN}.old/0.wal").read_text() == "old"
    assert sh("\n".join(by_hand(n)) if finish == "card" else scripts.SWAP_BACK, *words, root=tmp_path).returncode == 0
    assert (tmp_path / "disk/0.wal").read_text() == "old"
    assert (tmp_path / f"disk/.{RUN}.discarded/0.wal").read_text() == "new"


def test_an_old_wal_that_is_gone_keeps_the_new_data_in_place(tmp_path: Path) -> None:
    n = target(tmp_path, wal=True)
    tree(tmp_path, n)
    words = swap_words(n)
    assert sh(scripts.SWAP, *words, root=tmp_path).returncode == 0
    shutil.rmtree(tmp_path / f"wal/.{RUN}.old")
    assert f"{tmp_path}/wal/.{RUN}.old is gone" in sh(scripts.KEPT, *words, root=tmp_path).stdout
    assert "STOP" in sh("\n".join(by_hand(n)), root=tmp_path).stdout
    done = sh(scripts.SWAP_BACK, *words, root=tmp_path)
    assert done.returncode == 1
    assert "the old WAL" in done.stderr
    assert (tmp_path / "wal/0.wal").read_text() == "new"
    assert (tmp_path / "data/member/snap/db").read_text() == "new"
