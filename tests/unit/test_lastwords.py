"""What is told of a container's log: the lines that say why it ended, few, short, and without secrets."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runbook.lastwords import LENGTH, LINES, of, telling
from runbook.procedures.scripts import LAST_WORDS

INFO = '{"level":"info","ts":"2026-04-09T14:00:00Z","caller":"embed/etcd.go:1","msg":"closing etcd server"}'
WARN = '{"level":"warn","ts":"t","caller":"etcdmain/etcd.go:75","msg":"failed to verify flags","error":"--x is bad"}'
ERROR = '{"level":"error","ts":"t","caller":"c","msg":"setting up serving failed","error":"bind: in use"}'
FATAL = '{"level":"fatal","ts":"t","msg":"discovery failed","error":"cannot access it","stacktrace":"a\\n\\tb.go:1"}'
PANIC = "panic: failed to update; member unknown"
TRACE = ["goroutine 1 [running]:", "go.uber.org/zap/zapcore.CheckWriteAction.OnWrite(...)", "\t/go/zap/entry.go:196"]
USAGE = ["Usage:", "  etcd [OPTIONS]", *(f"    --flag-{i} a flag" for i in range(20))]


@pytest.mark.parametrize(
    ("log", "told"),
    [
        ([], []),
        (["one", "", "two", "three", "four"], ["two", "three", "four"]),
        ([INFO, FATAL, INFO], ["fatal: discovery failed: cannot access it"]),
        (
            [ERROR, FATAL, INFO],
            ["fatal: discovery failed: cannot access it", "error: setting up serving failed: bind: in use"],
        ),
        ([INFO, WARN], ["warn: failed to verify flags: --x is bad"]),
        ([WARN, ERROR, INFO], ["error: setting up serving failed: bind: in use"]),
        ([INFO, PANIC, "", *TRACE], [PANIC]),
        ([INFO, ERROR, *[PANIC] * 5, *TRACE], [PANIC, "error: setting up serving failed: bind: in use"]),
        (["flag provided but not defined: -no-such", *USAGE], ["flag provided but not defined: -no-such"]),
        (["Error: unknown flag: --no-such", *USAGE], ["Error: unknown flag: --no-such"]),
        (["I0409 14:00:00.1 x.go:1] up", "F0409 14:00:01.0 x.go:2] no etcd"], ["F0409 14:00:01.0 x.go:2] no etcd"]),
        (
            [f"E0409 14:00:0{i}.0 x.go:2] no {i}" for i in range(9)],
            [f"E0409 14:00:0{i}.0 x.go:2] no {i}" for i in (6, 7, 8)],
        ),
        (['{"level":"fatal", torn'], ['{"level":"fatal", torn']),
        (['{"level":"panic","msg":"no","cluster":7,"who":["a"]}'], ["panic: no (cluster 7, who ['a'])"]),
    ],
)
def test_the_most_telling_lines_come_first(log: list[str], told: list[str]) -> None:
    assert telling(log) == told


def inspect(code: int = 2, attempt: int = 4, **more: object) -> str:
    return json.dumps({"status": {"exitCode": code, "metadata": {"attempt": attempt}, **more}, "info": {"pid": 0}})


@pytest.mark.parametrize(
    ("about", "told"),
    [
        (inspect(reason="Error", message=""), "with exit code 2, after 4 restarts"),
        (inspect(137, 1, reason="OOMKilled"), "with exit code 137 (OOMKilled), after 1 restart"),
        (f"[{inspect(1, 0)}]", "with exit code 1, at its first start"),
        (inspect(128, 3, reason="StartError", message="no such file"), "code 128 (StartError: no such file), after 3"),
        ("", "with an exit code that crictl could not tell"),
        ('{"status": {}}', "with an exit code that crictl could not tell"),
    ],
)
def test_how_it_ended(about: str, told: str) -> None:
    said = of("etcd", f"{about}\n----\n{PANIC}\n")
    assert told in said
    assert said.endswith(f"; its last words: {PANIC}")


def test_an_empty_log_is_told() -> None:
    assert of("etcd", f"{inspect()}\n----\n").endswith("after 4 restarts, and its log is empty")


ENDPOINTS = (
    'time="2026-04-09T14:00:00+02:00" level=warning msg="runtime connect using default endpoints: '
    '[unix:///run/containerd/containerd.sock]. As the default settings are now deprecated, you should set the endpoint"'
)
GONE = 'time="2026-04-09T14:00:00Z" level=fatal msg="failed to try resolving symlinks in path \\"/0.log\\": lstat"'


@pytest.mark.parametrize(
    ("log", "told"),
    [
        ([ENDPOINTS], ", and its log is empty"),
        ([ENDPOINTS, INFO], "; its last words: info: closing etcd server"),
        ([ENDPOINTS, GONE], '; its log cannot be read: failed to try resolving symlinks in path \\"/0.log\\": lstat'),
    ],
)
def test_what_crictl_says_of_itself_is_no_word_of_the_containers(log: list[str], told: str) -> None:
    """Without an /etc/crictl.yaml, which kubeadm writes none of, it warns before each answer."""
    assert of("etcd", f"{inspect()}\n----\n" + "\n".join(log)).endswith(f"after 4 restarts{told}")


def test_nothing_secret_is_told_of_the_log_or_of_the_environment() -> None:
    key = "-----BEGIN RSA PRIVATE KEY-----\nMIIEowIBAAKCAQEA\n-----END RSA PRIVATE KEY-----"
    log = f"panic: https://me:swordfish@10.0.1.10 said no\nerror: password=swordfish\n{key}\n{key}"
    about = json.dumps({**json.loads(inspect(reason="x password: swordfish")), "env": ["TOKEN=swordfish"]})
    said = of("etcd", f"{about}\n----\n{log}")
    assert "swordfish" not in said
    assert "MIIE" not in said
    assert "panic: https://me:•••@10.0.1.10 said no" in said


@given(st.text(), st.lists(st.text()))
def test_whatever_a_host_says_is_short_and_of_one_line(about: str, log: list[str]) -> None:
    said = of("etcd", f"{about}\n----\n" + "\n".join([*log, "x" * 9999]))
    assert said.isprintable()
    assert len(said) < (LINES + 2) * (LENGTH + 20) + 200


CRICTL = r"""#!/bin/sh
echo "$*" >> "${0%/*}/log"
case $1 in
  ps) echo new; echo old ;;
  inspect) echo '{"status": {"exitCode": 2}}' ;;
  logs) for i in 1 2 3 4 5 6 7 8 9; do printf '%09999d\n' $i >&2; done; echo "panic: at last" >&2 ;;
esac
"""


@pytest.mark.parametrize("there", [True, False])
def test_the_newest_alone_is_asked_and_its_log_is_bounded(tmp_path: Path, there: bool) -> None:
    if there:
        (tmp_path / "crictl").write_text(CRICTL)
        (tmp_path / "crictl").chmod(0o755)
    env = {"PATH": f"{tmp_path}:/usr/bin:/bin"}
    done = subprocess.run(
        ["sh", "-c", LAST_WORDS, "runbook", "etcd"], env=env, capture_output=True, text=True, check=False
    )
    said = of("etcd", done.stdout)
    if not there:
        assert said == ""
        return
    assert "panic: at last" in said
    assert len(done.stdout) < 70_000
    assert [line.split()[-1] for line in (tmp_path / "log").read_text().splitlines()][1:] == ["new", "new"]
