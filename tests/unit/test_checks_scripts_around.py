"""More of the checks' shell texts, run by a real ``sh``: what is around etcd on a host."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from runbook.checks import distribution, jobs, neighbours, ownership
from runbook.checks.neighbours import _answered, _why
from tests.unit.test_checks_scripts import sh


@pytest.fixture
def listening() -> Iterator[tuple[str, int]]:
    """A port that takes connections."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[:2]


def test_ports_that_are_open_refused_and_silent(listening: tuple[str, int]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as gone:
        refused = gone.getsockname()[1]
    # a server that accepts nobody and whose queue is full: the kernel drops what comes, as a firewall would
    with socket.socket() as full, socket.socket() as one, socket.socket() as two:
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        silent = full.getsockname()[1]
        for filler in (one, two):
            filler.setblocking(False)
            filler.connect_ex(("127.0.0.1", silent))
        ports = [str(p) for p in (listening[1], refused, silent)]
        result = sh(neighbours.REACH, "1", *(word for port in ports for word in ("127.0.0.1", port)))
    rows = {line.split(" ")[2]: line.split(" ", 3) for line in result.out.splitlines()}
    assert result.ok
    assert [_answered(rows[port]) for port in ports] == [True, True, False]
    assert _why(rows[ports[2]]) == "no answer in 3 s"
    assert "refused" in rows[ports[1]][3]


def test_what_a_host_says_of_a_port_is_in_english(monkeypatch: pytest.MonkeyPatch) -> None:
    """A dead cluster's ports are refused in the host's own tongue, and a host abroad must not block for that."""
    monkeypatch.setenv("LC_ALL", "de_DE.UTF-8")
    said = sh(f'bash() {{ echo "LC_ALL=$LC_ALL"; }}; timeout() {{ shift; "$@"; }}\n{neighbours.REACH}', "1", "h", "1")
    assert said.out == "0 h 1 LC_ALL=C\n"


def test_a_name_that_nobody_knows_is_no_answer() -> None:
    row = sh(neighbours.REACH, "2", "no-such-host.invalid", "2380").out.splitlines()[0].split(" ", 3)
    assert not _answered(row)
    assert _why(row)


def test_a_host_without_bash_says_so(tmp_path: Path) -> None:
    done = subprocess.run(
        ["/bin/sh", "-c", neighbours.REACH, "x", "1", "127.0.0.1", "1"],
        env={"PATH": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout) == (0, "none\n")


def test_the_way_to_the_api_is_read_from_both_kubeconfigs(tmp_path: Path) -> None:
    (tmp_path / "kubelet.conf").write_text('clusters:\n- cluster:\n    server: "https://api.internal:6443"\n')
    (tmp_path / "admin.conf").write_text("clusters:\n- cluster:\n    server: https://10.0.1.10:6443\nusers: []\n")
    result = sh(neighbours.SERVER, tmp_path / "kubelet.conf", tmp_path / "none", tmp_path / "admin.conf")
    assert result.ok
    assert result.out.split() == ["https://api.internal:6443", "https://10.0.1.10:6443"]


@pytest.mark.parametrize(
    ("words", "kind"),
    [
        (("snapshot", "save", "/x.db"), "save"),
        (("--endpoints=https://a", "snapshot", "restore", "x.db"), "restore"),
        (("defrag",), "defrag"),
        (("snapshot", "restore", "--help"), ""),
        (("endpoint", "status"), ""),
    ],
)
def test_programs_that_work_on_the_data_are_seen_without_their_words(words: tuple[str, ...], kind: str) -> None:
    argv = ["/usr/bin/etcdctl", "-c", "import time; time.sleep(30)", *words, "--password=s3cret *"]
    process = subprocess.Popen(argv, executable=sys.executable, stdin=subprocess.DEVNULL)
    try:
        result = sh(jobs.LOOK)
    finally:
        process.kill()
        process.wait()
    mine = [line for line in result.out.splitlines() if line.endswith(f" {process.pid}")]
    assert result.ok
    assert mine == ([f"{kind} {process.pid}"] if kind else [])
    assert "s3cret" not in result.out + result.err


def test_another_program_that_names_them_is_none_of_them() -> None:
    argv = [sys.executable, "-c", "import time; time.sleep(30)", "etcdctl", "snapshot", "save"]
    process = subprocess.Popen(argv, stdin=subprocess.DEVNULL)
    try:
        assert f" {process.pid}" not in sh(jobs.LOOK).out
    finally:
        process.kill()
        process.wait()


def test_the_signs_of_a_distribution(tmp_path: Path) -> None:
    (tmp_path / "kube-apiserver.yaml").touch()
    (tmp_path / "sign").mkdir()
    result = sh(distribution.LOOK, tmp_path, tmp_path / "sign", tmp_path / "none")
    assert result.ok
    lines = result.out.splitlines()
    assert "pod kube-apiserver" in lines
    assert "pod etcd" not in lines
    assert "own etcd" not in lines
    (tmp_path / "kube-apiserver.yaml").write_text("    - --etcd-servers=https://127.0.0.1:2379\n")
    assert "own etcd" in sh(distribution.LOOK, tmp_path).out.splitlines()
    (tmp_path / "kube-apiserver.yaml").write_text("    - --etcd-servers=https://10.0.0.7:2379,https://127.0.0.1:2379\n")
    assert "own etcd" not in sh(distribution.LOOK, tmp_path).out.splitlines()
    assert f"sign {tmp_path / 'sign'}" in lines
    assert f"sign {tmp_path / 'none'}" not in lines


def test_owner_mode_and_label(tmp_path: Path) -> None:
    data = tmp_path / "etcd"
    assert sh(ownership.LOOK, data).out == ""
    (data / "member").mkdir(parents=True)
    data.chmod(0o750)
    (data / "member").chmod(0o700)
    os.chown(data / "member", 2379, 2380)
    lines = sh(ownership.LOOK, data).out.splitlines()
    assert lines[:2] == ["owner 0 0 750", "member 2379 2380 700"]
    tools = tmp_path / "bin"
    tools.mkdir()
    (tools / "selinuxenabled").write_text("#!/bin/sh\nexit 0\n")
    (tools / "selinuxenabled").chmod(0o755)
    assert any(line.startswith("label ") for line in sh(ownership.LOOK, data, path=str(tools)).out.splitlines())
