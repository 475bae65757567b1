"""Stopping a static pod, with the real ``sh`` and a crictl that tells what a runtime would: when is a pod gone?"""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from runbook.procedures import scripts

CRICTL = r"""#!/bin/sh
# What there is stands in files: `pods` and `ps`, one line each: id and labels. $AT/after is done after each question.
AT=${0%/*}
echo "$*" >> "$AT/log"
verb=$1
shift
case $verb in
  rm) exit 0 ;;
  stop | stopp)
    [ ! -e "$AT/on-$verb" ] || . "$AT/on-$verb"
    echo "rpc error: code = NotFound" >&2
    exit 1 ;;
esac
[ ! -e "$AT/silent" ] || { echo "connect: no such file or directory" >&2; exit 1; }
labels=
while [ $# -gt 0 ]; do
  case $1 in --label) labels="$labels $2"; shift ;; --state) [ "$2" != exited ] || verb=dead; shift ;; esac
  shift
done
while read -r id rest; do
  for label in $labels; do
    case " $rest " in *" $label "*) ;; *) continue 2 ;; esac
  done
  echo "$id"
done < "$AT/$verb"
[ "$verb" != dead ] || exit 0
[ ! -e "$AT/after" ] || . "$AT/after"
"""
ETCD_POD = "box component=etcd tier=control-plane io.kubernetes.pod.namespace=kube-system\n"
ETCD = "0a1b io.kubernetes.container.name=etcd io.kubernetes.pod.namespace=kube-system\n"
OTHERS = (
    "b1 component=etcd tier=backup io.kubernetes.pod.namespace=kube-system\n"
    "b2 component=etcd tier=control-plane io.kubernetes.pod.namespace=monitoring\n"
    "b3 component=etcd-backup tier=control-plane io.kubernetes.pod.namespace=kube-system\n"
    "c1 io.kubernetes.container.name=etcd io.kubernetes.pod.namespace=monitoring\n"
    "c2 io.kubernetes.container.name=etcd-exporter io.kubernetes.pod.namespace=kube-system\n"
)


@dataclass
class Runtime:
    """A runtime that has these sandboxes and containers."""

    place: Path

    def has(self, pods: str = "", ps: str = "", dead: str = "") -> None:
        (self.place / "dead").write_text(dead + OTHERS)
        (self.place / "pods").write_text(pods + OTHERS)
        (self.place / "ps").write_text(ps + OTHERS)

    def when(self, event: str, script: str) -> None:
        """``after`` each question, ``on-stop``, ``on-stopp``."""
        (self.place / event).write_text(script + "\n")

    def stop(self, *names: str, limit: int = 0) -> subprocess.CompletedProcess[str]:
        path = f"{self.place}:{os.environ['PATH']}"
        words = [str(self.place / "manifests"), str(self.place / "saved"), str(limit), *(names or ("etcd",))]
        argv = ["sh", "-c", scripts.STOP, "runbook", *words]
        return subprocess.run(argv, env={"PATH": path}, capture_output=True, text=True, timeout=90, check=False)

    def asked(self, verb: str) -> list[str]:
        log = self.place / "log"
        lines = log.read_text().splitlines() if log.exists() else []
        return [line for line in lines if line.split()[0] == verb and "--state exited" not in line]


@pytest.fixture
def runtime(tmp_path: Path) -> Runtime:
    stub = tmp_path / "crictl"
    stub.write_text(CRICTL)
    stub.chmod(0o755)
    (tmp_path / "manifests").mkdir()
    (tmp_path / "saved").mkdir()
    found = Runtime(tmp_path)
    found.has()
    return found


def put(runtime: Runtime, place: str, name: str, text: str = "kind: Pod") -> Path:
    path = runtime.place / place / f"{name}.yaml"
    path.write_text(text)
    return path


def test_what_is_not_there_is_gone_at_once_whatever_else_is_named_so(runtime: Runtime) -> None:
    manifest = put(runtime, "manifests", "etcd")
    put(runtime, "saved", "etcd")
    done = runtime.stop(limit=9)
    assert (done.returncode, done.stderr) == (0, "")
    assert not manifest.exists()
    assert len(runtime.asked("pods")) == len(runtime.asked("ps")) == 1, "one question each: the outage counts"


def test_a_manifest_without_an_equal_copy_stays_and_so_do_all(runtime: Runtime) -> None:
    first, second = put(runtime, "manifests", "etcd"), put(runtime, "manifests", "kube-scheduler")
    put(runtime, "saved", "etcd")
    assert runtime.stop("etcd", "kube-scheduler").returncode != 0
    put(runtime, "saved", "kube-scheduler", "kind: Other")
    assert runtime.stop("etcd", "kube-scheduler").returncode != 0
    assert first.exists()
    assert second.exists()
    assert not runtime.asked("pods")


def test_a_crash_loop_is_not_gone_before_the_kubelet_wants_it_no_more(runtime: Runtime) -> None:
    """No container runs; the sandbox is ready until the kubelet has seen that the manifest is gone."""
    runtime.has(pods=ETCD_POD)
    runtime.when("after", 'echo x >> "$AT/count"; [ "$(grep -c x "$AT/count")" -lt 3 ] || : > "$AT/pods"')
    done = runtime.stop(limit=9)
    assert (done.returncode, done.stderr) == (0, "")
    assert len(runtime.asked("pods")) == 4
    assert len(runtime.asked("ps")) == 1, "not while the sandbox is ready"


def test_what_has_ended_goes_too(runtime: Runtime) -> None:
    """The kubelet would read off it how long the next one has to wait."""
    runtime.has(dead=ETCD.replace("0a1b", "d1") + ETCD.replace("0a1b", "d2"))
    assert runtime.stop(limit=9).returncode == 0
    assert runtime.asked("rm") == ["rm d1", "rm d2"]


def test_a_container_may_outlive_its_sandbox(runtime: Runtime) -> None:
    runtime.has(ps=ETCD)
    runtime.when("after", 'echo x >> "$AT/count"; [ "$(grep -c x "$AT/count")" -lt 4 ] || : > "$AT/ps"')
    assert runtime.stop(limit=9).returncode == 0
    assert len(runtime.asked("ps")) == 3


@pytest.mark.parametrize("pods", [ETCD_POD, ""], ids=["in a ready sandbox", "alone"])
def test_past_the_deadline_crictl_stops_it(runtime: Runtime, pods: str) -> None:
    """The container with its grace, then the sandbox, which would kill without."""
    runtime.has(pods, ETCD)
    runtime.when("on-stop", ': > "$AT/ps"; exit 0')
    runtime.when("on-stopp", ': > "$AT/pods"; exit 0')
    done = runtime.stop(limit=1)
    assert done.returncode == 0
    assert done.stderr == "the kubelet did not stop etcd within 1 s; crictl stop\n"
    assert runtime.asked("stop") == ["stop --timeout 30 0a1b"]
    assert runtime.asked("stopp") == (["stopp box"] if pods else [])


CASES: dict[str, tuple[Callable[[Runtime], None], int]] = {
    "it ended by itself just before": (lambda r: r.when("on-stop", ': > "$AT/ps"'), 0),
    "it stays": (lambda r: None, 1),
    "the runtime falls silent": (lambda r: r.when("on-stop", ': > "$AT/silent"'), 1),
    "the runtime was silent all the time": (lambda r: r.when("silent", ""), 1),
}


@pytest.mark.parametrize("case", CASES)
def test_what_crictl_could_not_stop(runtime: Runtime, case: str) -> None:
    """Then crictl knows no such container, and it is gone all the same; what stays is not, nor what is unheard of."""
    make, code = CASES[case]
    runtime.has(ps=ETCD)
    make(runtime)
    done = runtime.stop()
    assert done.returncode == code
    if code:
        assert "etcd is still there after crictl stop" in done.stderr


def test_a_kubelet_that_refused_once_is_not_waited_for_as_long_again(runtime: Runtime) -> None:
    """In the next step: what stops without it is gone by the same means, and its deadline is no wait."""
    runtime.has(pods=ETCD_POD, ps=ETCD)
    runtime.when("on-stop", '(cat "$AT/ps.gone") > "$AT/ps"; exit 0')
    runtime.when("on-stopp", '(cat "$AT/pods.gone") > "$AT/pods"; exit 0')
    (runtime.place / "ps.gone").write_text(OTHERS)
    (runtime.place / "pods.gone").write_text(OTHERS)
    assert runtime.stop(limit=0).returncode == 0
    assert (runtime.place / "kubelet-refuses").exists()
    runtime.has(pods=ETCD_POD, ps=ETCD)
    begun = time.monotonic()
    done = runtime.stop(limit=120)
    assert done.returncode == 0
    assert 25 <= time.monotonic() - begun < 60
    assert done.stderr == "the kubelet did not stop etcd within 25 s; crictl stop\n"
    (runtime.place / "manifests").mkdir(exist_ok=True)
    (runtime.place / "saved").mkdir(exist_ok=True)
    (runtime.place / "saved" / "kube-apiserver.yaml").write_text("kind: Pod\n")
    words = [str(runtime.place / "manifests"), str(runtime.place / "saved"), "run", "", "kube-apiserver"]
    subprocess.run(["sh", "-c", scripts.START, "runbook", *words], check=True)
    assert not (runtime.place / "kubelet-refuses").exists(), "there is an API server to be seen again"


def test_several_are_waited_for_by_one_deadline(runtime: Runtime) -> None:
    runtime.has(
        ETCD_POD + ETCD_POD.replace("box", "api").replace("etcd", "kube-apiserver"),
        ETCD + ETCD.replace("0a1b", "0a2b").replace("etcd", "kube-apiserver"),
    )
    runtime.when("on-stop", 'grep -v "^$3" "$AT/ps" > "$AT/new"; mv "$AT/new" "$AT/ps"; exit 0')
    runtime.when("on-stopp", 'grep -v "^$1" "$AT/pods" > "$AT/new"; mv "$AT/new" "$AT/pods"; exit 0')
    done = runtime.stop("etcd", "kube-apiserver", limit=1)
    assert done.returncode == 0
    assert [line.split()[4] for line in done.stderr.splitlines()] == ["stop", "stop"]
    assert runtime.asked("stopp") == ["stopp box", "stopp api"]
