"""The shell texts of `runbook diagnose` in real shells: bounded in time and size, and no key leaves the host."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from pathlib import Path

import pytest

from runbook.diagnose import questions, scripts
from runbook.step import Binding, Target
from tests.fake.sessions import plan

SHELLS = [[path] for name in ("dash", "bash") if (path := shutil.which(name))]
SHELLS += [[path, "sh"] for name in ("busybox",) if (path := shutil.which(name))]


@pytest.fixture(params=SHELLS, ids=lambda s: Path(s[0]).name)
def shell(request: pytest.FixtureRequest) -> list[str]:
    found: list[str] = request.param
    return found


def ran(
    shell: list[str], text: str, *words: str | Path, limit: float = 5, cap: int = 1000, path: Path | None = None
) -> subprocess.CompletedProcess[str]:
    argv = [*shell, "-c", scripts.SAY + text + scripts.END, "runbook", f"{limit:g}", str(cap), *map(str, words)]
    search = f"{path}:{os.environ['PATH']}" if path else os.environ["PATH"]
    return subprocess.run(
        argv, env={"PATH": search}, capture_output=True, encoding="utf-8", errors="replace", timeout=60
    )


def program(folder: Path, name: str, text: str) -> None:
    (folder / name).write_text(f"#!/bin/sh\n{text}\n")
    (folder / name).chmod(0o755)


def test_it_reads_as_a_terminal(shell: list[str]) -> None:
    done = ran(shell, scripts.ONE, "sh", "-c", "echo one; echo two >&2; exit 7")
    assert done.stdout == "\n$ sh -c echo one; echo two >&2; exit 7\none\ntwo\n[exit code 7]\n"
    assert done.returncode == 7
    assert done.stderr == ""
    assert ran(shell, scripts.ONE, "true").stdout == "\n$ true\n[no output]\n"


def test_of_much_the_end_is_kept_from_a_whole_line_on(shell: list[str]) -> None:
    done = ran(shell, scripts.ONE, "seq", "100000", "100999")
    lines = done.stdout.splitlines()
    assert lines[2] == "[cut: only the last 1000 bytes are kept]"
    assert lines[-1] == "100999"
    assert set(map(len, lines[3:])) == {6}
    assert 130 < len(lines) <= 146
    whole = ran(shell, scripts.ONE, "seq", "100000", "100141")  # 994 bytes
    assert "[cut" not in whole.stdout
    assert whole.stdout.splitlines()[2] == "100000"


def test_a_line_longer_than_that_is_left_out(shell: list[str]) -> None:
    done = ran(shell, scripts.ONE, "sh", "-c", "head -c 5000 /dev/zero | tr '\\0' x")
    assert "xxx" not in done.stdout.partition("\n[cut")[2]
    assert "[one line, longer than that: left out]" in done.stdout


def test_megabytes_take_no_time(shell: list[str]) -> None:
    began = time.monotonic()
    done = ran(shell, scripts.ONE, "sh", "-c", "seq 1000000 1900000", cap=questions.LOG)
    assert len(done.stdout) > questions.LOG - 100
    assert done.stdout.endswith("1900000\n")
    assert time.monotonic() - began < 15


def test_each_command_has_its_own_time(shell: list[str]) -> None:
    began = time.monotonic()
    text = "say sh -c 'echo begun; sleep 60'\nsay echo after\n"
    done = ran(shell, text, limit=1)
    assert time.monotonic() - began < 20
    assert "begun\n[exit code 124]" in done.stdout or "begun\n[exit code 143]" in done.stdout
    assert "after" in done.stdout


ENCRYPTION = {
    "block": "apiVersion: apiserver.config.k8s.io/v1\nkind: EncryptionConfiguration\nresources:\n- resources:\n"
    "  - secrets\n  - '*.example.com'\n  providers:\n  - aescbc:\n      keys:\n      - name: key1\n"
    "        secret: {}\n  - kms:\n      apiVersion: v2\n      name: vault\n      endpoint: unix:///var/run/kms.sock\n"
    "  - identity: {{}}\n",
    "block below": "resources:\n- providers:\n  - aescbc:\n      keys:\n      - name: key1\n        secret: |\n"
    "          {}\n  - kms:\n      name: vault\n",
    "flow": "resources: [{{providers: [{{aescbc: {{keys: [{{name: key1, secret: {}}}]}}}},"
    " {{kms: {{name: vault}}}}]}}]\n",
    "json": '{{"resources":[{{"providers":[{{"aescbc":{{"keys":[{{"name":"key1","secret":"{}"}}]}}}},'
    '{{"kms":{{"name":"vault"}}}}]}}]}}',
}
RELOAD = "--encryption-provider-config-automatic-reload"
SECRET = "dGhlIGtleSB0aGF0IG1heSBub3QgbGVhdmU="


@pytest.mark.parametrize("shape", ENCRYPTION)
@pytest.mark.parametrize(
    "flag", ["    - --encryption-provider-config={}", "    - --encryption-provider-config\n    - {}"]
)
def test_of_the_encryption_only_kinds_and_names_leave(shell: list[str], tmp_path: Path, shape: str, flag: str) -> None:
    conf = tmp_path / "enc.yaml"
    conf.write_text(ENCRYPTION[shape].format(SECRET))
    (tmp_path / "kube-apiserver.yaml").write_text(f"  - command:\n{flag.format(conf)}\n    - {RELOAD}=true\n")
    done = ran(shell, scripts.ENCRYPTION, tmp_path, "", scripts.NAMES)
    assert "aescbc" in done.stdout, done.stdout + done.stderr
    for name in ("key1", "kms", "vault"):
        assert name in done.stdout
    assert SECRET not in done.stdout
    assert SECRET[:12] not in done.stdout
    assert SECRET[12:30] not in done.stdout


def test_without_encryption_it_says_so(shell: list[str], tmp_path: Path) -> None:
    (tmp_path / "kube-apiserver.yaml").write_text(f"  - command:\n    - {RELOAD}=true\n")
    done = ran(shell, scripts.ENCRYPTION, tmp_path, tmp_path / "gone", scripts.NAMES)
    assert "no --encryption-provider-config: encryption at rest is not configured" in done.stdout
    assert "gone/kube-apiserver.yaml: there is no such file" in done.stdout
    assert done.returncode == 0


def test_logs_of_all_containers_the_newest_in_full(shell: list[str], tmp_path: Path) -> None:
    ids = ["a" * 64, "b" * 64]
    listed = "\n".join(ids)
    program(
        tmp_path,
        "crictl",
        f'case $1 in ps) printf "%s\\n" "WARN no config" "{listed}";;\n'
        'logs) for n in 1 2 3 4 5 6 7 8 9; do echo "line $n of $4"; done;; esac',
    )
    done = ran(shell, scripts.LOG, "etcd", "5", "100", path=tmp_path)
    assert f"$ crictl logs --tail 20000 {ids[0]}\nline 1 of {ids[0]}" in done.stdout
    assert f"$ crictl logs --tail 20000 {ids[1]}\n[cut: only the last 100 bytes are kept]\nline 9" in done.stdout
    assert done.returncode == 0


def test_without_a_runtime_the_files_are_read(shell: list[str], tmp_path: Path) -> None:
    program(tmp_path, "crictl", "echo cannot connect >&2; exit 1")
    folder = tmp_path / "kube-system_etcd-m1_0/etcd"
    folder.mkdir(parents=True)
    (folder / "0.log").write_text("from the disk\n")
    text = scripts.LOG.replace("/var/log/pods", str(tmp_path))
    done = ran(shell, text, "etcd", "5", "100", path=tmp_path)
    assert "cannot connect\n[exit code 1]" in done.stdout
    assert "from the disk" in done.stdout
    assert done.returncode == 1


@pytest.mark.parametrize("run", ["", "r-1"])
def test_what_the_commands_of_a_run_printed(shell: list[str], tmp_path: Path, run: str) -> None:
    commands = tmp_path / "ws/r-1/commands"
    commands.mkdir(parents=True)
    for number, name in enumerate(["First.do.0", "RestoreAside.do.1"]):
        (commands / f"{name}.intent").write_text(f'{{"action": "etcdutl {name}"}}\n')
        os.utime(commands / f"{name}.intent", (number, number))
    (commands / "First.do.0.rc").write_text("0\n")
    (commands / "First.do.0.out").write_text("all well\n")
    (commands / "RestoreAside.do.1.err").write_text("no space left\n")
    done = ran(shell, scripts.RESTORE, tmp_path / "ws", tmp_path / "lock", run)
    said = done.stdout[done.stdout.index("--- ") :]
    assert said.index("First.do.0") < said.index("RestoreAside.do.1")
    assert "its exit code: 0\nits .out:\nall well" in said
    assert "its exit code: none: it still runs, or was killed\nits .err:\nno space left" in said
    assert "there is no lock" in done.stdout


def test_nothing_that_is_asked_changes_anything() -> None:
    """No redirection into a file, and no program that writes: read-only is more than a word."""
    node = Target(plan(3), Binding("r-1"), plan(3).nodes[0])
    for topic in questions.topics(node):
        assert not topic.command.changes
        text = str(topic.command.argv[2])
        bare = text.replace("2>&1", "").replace("2> /dev/null", "").replace("> /dev/null", "")
        lines = [line for line in bare.splitlines() if not line.strip().startswith("#")]
        assert not any(" > " in line or ">>" in line for line in lines), topic.name
        words = {word.strip("'\"();") for line in lines for word in line.split()}
        assert not words & {"rm", "mv", "cp", "touch", "tee", "mkdir", "mktemp", "kill", "systemctl restart", "dd"}


def test_what_is_asked_of_a_node_is_about_its_own_plan() -> None:
    node = Target(plan(3), Binding("r-1"), plan(3).nodes[1])
    asked = {t.name: t.command.words() for t in questions.topics(node)}
    assert f"--endpoints={','.join(u for n in plan(3).nodes for u in n.client_urls)}" in asked["etcd-status"]
    assert f"--endpoints={','.join(plan(3).nodes[1].client_urls)}" in asked["etcd-members"]
    assert asked["restore"][-1] == "r-1"
    assert f"{node.run_dir}/manifests" in asked["manifests"]
