"""What hosts ask etcd around the outage, with the real ``sh``: a dead one costs no time, a silent one is told of."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from runbook.procedures import scripts

LEADER = '[{"Endpoint":"e","Status":{"header":{"cluster_id":1,"member_id":7,"revision":9},"leader":7,"raftTerm":2}}]'
FOLLOWER = LEADER.replace('"leader":7', '"leader":8')
ALONE = LEADER.replace('"leader":7,', "")


class Host:
    """A run directory, an ``ss`` that knows which ports are open, and an etcd that says this; "" where it is silent."""

    def __init__(self, place: Path) -> None:
        self.place = place
        self.dir = place / "run"
        self.dir.mkdir()
        (self.dir / "snapshot.json").write_text('{"revision": 4}\n')
        self.tool("ss", 'case $* in *:2379 | *:6443) cat "$AT/open" ;; *2380*) cat "$AT/peers" ;; esac')
        self.tool("etcdctl", 'echo "$*" >> "$AT/asked"; [ -s "$AT/says" ] || exit 1; cat "$AT/says"')
        (place / "open").write_text("LISTEN 0 4096 *:2379 *:*\n")
        (place / "peers").write_text("")
        (place / "says").write_text("")

    def tool(self, name: str, text: str) -> None:
        path = self.place / name
        path.write_text(f"#!/bin/sh\nAT=${{0%/*}}\n{text}\n")
        path.chmod(0o755)

    def says(self, text: str) -> None:
        (self.place / "says").write_text(text)

    def closed(self) -> None:
        (self.place / "open").write_text("")

    def lived(self) -> None:
        (self.dir / "living.json").write_text(LEADER.replace("9", "6") + "\n")

    @property
    def asked(self) -> bool:
        return (self.place / "asked").exists()

    @property
    def noted(self) -> bool:
        return (self.dir / "etcd-answered").exists()

    def run(self, text: str, *words: str) -> subprocess.CompletedProcess[str]:
        env = {"PATH": f"{self.place}:{os.environ['PATH']}"}
        argv = ["sh", "-c", text, "runbook", *words, "etcdctl", "status"]
        return subprocess.run(argv, env=env, capture_output=True, text=True, timeout=20, check=False)

    def leader_last(self, *, note: bool = True) -> subprocess.CompletedProcess[str]:
        return self.run(scripts.LEADER_LAST, str(self.dir) if note else "", "2379", "2380", "1")

    def last_revision(self) -> subprocess.CompletedProcess[str]:
        return self.run(scripts.LAST_REVISION, str(self.dir), "2379")


@pytest.fixture
def host(tmp_path: Path) -> Host:
    return Host(tmp_path)


def test_a_dead_etcd_is_not_even_asked(host: Host) -> None:
    """Etcdctl would try for seconds, in the outage, of the very clusters that this is for."""
    host.closed()
    assert (host.leader_last().returncode, host.leader_last().stderr) == (0, "")
    seen = host.last_revision()
    assert (seen.returncode, seen.stdout) == (4, '{"revision": 4}\n\n')
    assert not host.asked
    assert not host.noted


@pytest.mark.parametrize("closed", [True, False])
def test_an_etcd_that_fell_silent_is_told_of_and_its_earlier_revision_serves(host: Host, closed: bool) -> None:
    host.lived()
    if closed:
        host.closed()
    told = host.leader_last()
    assert told.returncode == 4
    assert "etcd answered while this was prepared, and does not now" in told.stderr
    seen = host.last_revision()
    assert seen.returncode == 4
    assert '"revision":6' in seen.stdout.partition("\n\n")[2]
    assert host.asked is not closed
    assert host.leader_last(note=False).returncode == 0, "of the restored one, nothing is to be told"


def test_a_living_etcd_says_its_revision(host: Host) -> None:
    host.lived()
    host.says(LEADER)
    seen = host.last_revision()
    assert (seen.returncode, seen.stdout) == (0, f'{{"revision": 4}}\n\n{LEADER}\n')


def test_without_the_snapshots_figures_nothing_is_compared(host: Host) -> None:
    (host.dir / "snapshot.json").unlink()
    host.says(LEADER)
    assert host.last_revision().returncode == 1


@pytest.mark.parametrize(("says", "noted"), [(LEADER, True), (FOLLOWER, True), (ALONE, False)])
def test_who_serves_is_noted_for_the_way_back(host: Host, says: str, noted: bool) -> None:
    """A member without a leader serves nobody: to wait for it later would be in vain."""
    host.says(says)
    assert host.leader_last(note=False).returncode == 0
    assert not host.noted
    assert host.leader_last().returncode == 0
    assert host.noted is noted


def test_who_was_ready_is_waited_for_on_the_way_back_and_nobody_else(host: Host, tmp_path: Path) -> None:
    mark = str(host.dir / "api-answered")
    host.closed()
    assert host.run(scripts.ANSWERED, mark, "6443").returncode == 0
    assert not Path(mark).exists()
    assert host.run(scripts.AWAIT, mark, "9").returncode == 0, "there is nobody to wait for"
    (host.place / "open").write_text("LISTEN 0 4096 *:6443 *:*\n")
    host.tool("etcdctl", "exit 1")
    assert host.run(scripts.ANSWERED, mark, "6443").returncode == 0
    assert not Path(mark).exists(), "the port was open, and it was not ready"
    host.tool("etcdctl", "echo ok")
    assert host.run(scripts.ANSWERED, mark, "6443").returncode == 0
    assert Path(mark).exists()
    host.tool("etcdctl", f"[ -e {tmp_path}/up ] || {{ touch {tmp_path}/up; exit 1; }}; echo ok")
    assert (host.run(scripts.AWAIT, mark, "9").returncode, (tmp_path / "up").exists()) == (0, True)
    host.tool("etcdctl", "exit 1")
    assert host.run(scripts.AWAIT, mark, "0").returncode == 1, "its time is over: the step goes on without it"


def test_the_leader_waits_for_the_others_and_not_for_ever(host: Host, tmp_path: Path) -> None:
    (tmp_path / "peers").write_text("0 0 10.0.1.10:2380 10.0.1.11:4711\n")
    host.says(FOLLOWER)
    assert host.leader_last().returncode == 0
    host.says(LEADER)
    assert host.leader_last().returncode == 0, "after a second it stops all the same"


def test_what_lives_while_the_figures_are_taken_is_kept(host: Host) -> None:
    host.tool("etcdutl", "echo '{\"revision\": 5}'")
    (host.dir / "snapshot.json").unlink()

    def keep() -> None:
        done = host.run(scripts.FIGURES, "etcdutl", str(host.dir))
        assert done.returncode == 0, done.stderr

    keep()
    assert sorted(p.name for p in host.dir.iterdir()) == ["snapshot.json"], "a dead one leaves nothing"
    host.says(LEADER)
    keep()
    assert (host.dir / "living.json").read_text() == LEADER
    host.says("")
    keep()
    assert (host.dir / "living.json").read_text() == LEADER, "what is known stays known"
    assert (host.dir / "snapshot.json").read_text() == '{"revision": 5}\n'
