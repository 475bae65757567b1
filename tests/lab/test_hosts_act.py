"""Changing commands over real SSH: exactly once, found again, refused where another engine or run is ahead."""

from __future__ import annotations

import json
import threading
import time

import pytest

from runbook.hosts import errands
from runbook.step import Action, Command, Secret
from tests.lab import hosts_kit
from tests.lab.hosts_kit import RUN_DIR, Bench, Witness, ask, do, meanwhile

pytestmark = pytest.mark.lab
bench = hosts_kit.bench
quiet_lab = hosts_kit.quiet_lab


def test_actions_run_in_order_on_all_hosts_and_stop_at_the_first_failure(bench: Bench) -> None:
    fleet, key, witness = bench.connect("m1", "m2", "m3", user="ops"), bench.key(), Witness()
    actions: list[Action] = [
        do("echo 1 >>/root/t/log; echo one"),
        do("exit 9", optional=True),
        do("echo 2 >>/root/t/log; echo two; [ $(hostname) != m2 ]"),
        do("echo 3 >>/root/t/log; echo three"),
    ]
    results = fleet.act({"m1": actions, "m2": actions, "m3": []}, key, witness)
    assert {h: (r.code, r.out) for h, r in results.items()} == {"m1": (0, "three\n"), "m2": (1, "two\n"), "m3": (0, "")}
    assert [bench.sh("cat /root/t/log", h) for h in ("m1", "m2")] == ["1\n2\n3\n", "1\n2\n"]
    assert [e for e in witness.ends if e[0] == "m2"] == [("m2", f"{key}.{n}", code) for n, code in enumerate((0, 9, 1))]
    assert sorted(witness.begun) == sorted((h, k) for h, k, _ in witness.ends)


def test_what_a_witness_forbids_does_not_start(bench: Bench) -> None:
    class Full(Witness):
        def begins(self, host: str, key: str, action: Action) -> None:
            if host == "m2":
                raise OSError("the disk is full")

    fleet = bench.connect("m1", "m2")
    with pytest.raises(OSError, match="the disk is full"):
        fleet.act({h: [do("touch /root/t/ran")] for h in ("m1", "m2")}, bench.key(), Full())
    assert [bench.sh("ls /root/t", h) for h in ("m1", "m2")] == ["ran\n", ""]


def test_a_lost_connection_loses_nothing(bench: Bench) -> None:
    fleet, key = bench.connect(user="ops"), bench.key()
    with meanwhile(1.0, bench.cut):
        result = fleet.act({"m1": [do("echo x >>/root/t/ran; sleep 3; echo done; exit 5")]}, key, Witness())["m1"]
    assert (result.code, result.out) == (5, "done\n")
    assert result.seconds > 2.5
    assert bench.sh("cat /root/t/ran") == "x\n"
    assert bench.sh(f"cat {RUN_DIR}/commands/{key}.0.rc") == "5\n"


def test_a_pulled_cable_loses_nothing(bench: Bench) -> None:
    fleet, key = bench.connect(connect_timeout=2.0), bench.key()
    cable = (lambda: bench.lab.unplug("m1"), lambda: time.sleep(10), lambda: bench.lab.plug("m1"))
    with meanwhile(1.0, *cable):
        result = fleet.act({"m1": [do("echo x >>/root/t/ran; sleep 4; echo done; exit 5", 30)]}, key, Witness())["m1"]
    assert (result.code, result.out) == (5, "done\n")
    assert bench.sh("cat /root/t/ran") == "x\n"


def test_a_cable_that_stays_out_makes_the_result_unknown_and_bars_the_late_start(
    bench: Bench,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(errands, "MARGIN", 3.0)
    fleet, key, witness = bench.connect(connect_timeout=2.0), bench.key(), Witness()
    actions = [do("echo x >>/root/t/ran; sleep 3; exit 5", 4), do("touch /root/t/never")]
    begun = time.monotonic()
    with meanwhile(0.8, lambda: bench.lab.unplug("m1")):
        result = fleet.act({"m1": actions}, key, witness)["m1"]
    assert result.unknown
    assert time.monotonic() - begun < 25
    assert "may have run" in result.err
    assert witness.ends == [("m1", f"{key}.0", None)]
    bench.lab.plug("m1")
    assert fleet.settle(["m1"], 10)["m1"].ok
    assert fleet.act({"m1": [do("exit 6")]}, key, Witness())["m1"].code == 5, "the same key: its recorded result"
    assert bench.sh("cat /root/t/ran; ls /root/t") == "x\nran\n"


def test_a_host_that_stays_away_is_not_waited_for_until_a_long_deadline(
    bench: Bench,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(errands, "AWAY", 5.0)
    fleet, key = bench.connect(connect_timeout=2.0), bench.key()
    begun = time.monotonic()
    with meanwhile(0.8, lambda: bench.lab.unplug("m1")):
        result = fleet.act({"m1": [do("sleep 12; exit 5", 1800)]}, key, Witness())["m1"]
    assert result.unknown
    assert 5 < time.monotonic() - begun < 40
    assert "may have run" in result.err
    bench.lab.plug("m1")
    assert fleet.settle(["m1"], 30)["m1"].ok, "what ran on is found, and waited for"
    assert fleet.act({"m1": [do("exit 6")]}, key, Witness())["m1"].code == 5


def test_a_host_that_cannot_be_reached_has_started_nothing(bench: Bench) -> None:
    fleet = bench.connect(connect_timeout=1.0)
    bench.lab.unplug("m1")
    begun = time.monotonic()
    result = fleet.act({"m1": [do("true", 600)]}, bench.key(), Witness())["m1"]
    assert result.unknown
    assert "nothing was started" in result.err
    assert time.monotonic() - begun < 8, "there is nothing to wait for"


def test_a_host_that_crashes_loses_the_command_and_says_so(bench: Bench) -> None:
    fleet, key = bench.connect("m3", connect_timeout=2.0), bench.key()

    def power() -> None:
        bench.lab.crash("m3")
        bench.lab.boot("m3")

    with meanwhile(1.0, power):
        result = fleet.act({"m3": [do("echo x >>/root/t/ran; sleep 20", 30)]}, key, Witness())["m3"]
    bench.sh("systemctl stop kubelet", "m3")
    assert result.unknown
    assert "killed or lost on the host before it could record its exit" in result.err
    assert bench.sh("cat /root/t/ran", "m3") == "x\n"
    assert fleet.settle(["m3"], 5)["m3"].ok


def test_a_new_engine_finds_what_the_old_one_left_running(bench: Bench) -> None:
    old, key = bench.connect(epoch=1), bench.key()
    thread = threading.Thread(
        target=old.act, args=({"m1": [do("echo x >>/root/t/ran; sleep 4; exit 5"), do("true")]}, key, Witness())
    )
    thread.start()
    while not bench.sh("cat /root/t/ran", check=False):
        time.sleep(0.1)
    new = bench.connect(epoch=2)
    busy = new.settle(["m1"], 0)["m1"]
    assert busy.code == 96
    assert f"{key}.0" in busy.err
    assert new.act({"m1": [do("touch /root/t/never")]}, bench.key(), Witness())["m1"].code == 96
    begun = time.monotonic()
    assert new.settle(["m1"], 30)["m1"].ok
    assert time.monotonic() - begun > 0.5
    thread.join()
    assert new.act({"m1": [do("exit 6")]}, key, Witness())["m1"].code == 5
    stale = old.act({"m1": [do("touch /root/t/never")]}, bench.key(), Witness())["m1"]
    assert stale.code == 97
    assert "a newer engine has this run" in stale.err
    assert old.settle(["m1"], 0)["m1"].code == 97
    assert bench.sh("ls /root/t") == "ran\n"


def test_another_runs_lock_and_a_directory_that_is_gone(bench: Bench) -> None:
    fleet = bench.connect("m1", "m2", user="ops")
    holder = json.dumps({"run": "prod-2", "holder": "eve@elsewhere"})
    bench.sh(f"echo '{holder}' >/var/lib/etcd-runbook.lock")
    bench.sh(f"rm -rf {RUN_DIR}", "m2")
    results = fleet.act({h: [do("touch /root/t/never")] for h in ("m1", "m2")}, bench.key(), Witness())
    assert {h: r.code for h, r in results.items()} == {"m1": 98, "m2": 95}
    assert json.loads(results["m1"].out) == json.loads(holder)
    assert "eve@elsewhere" in results["m1"].err
    assert [bench.sh("ls /root/t", h) for h in ("m1", "m2")] == ["", ""]
    bench.sh("""echo '{"run": "prod-1"}' >/var/lib/etcd-runbook.lock""")
    assert fleet.act({"m1": [do("true")]}, bench.key(), Witness())["m1"].ok


def test_deadlines(bench: Bench) -> None:
    fleet, begun = bench.connect(user="ops"), time.monotonic()
    assert fleet.act({"m1": [do("sleep 4711", 1)]}, bench.key(), Witness())["m1"].code == 124
    assert fleet.act({"m1": [do("sleep 4711", 1, bare=True)]}, bench.key(), Witness())["m1"].code == 124
    assert time.monotonic() - begun < 12
    assert bench.sh("pgrep -f 'sleep 471[1]'", check=False) == ""


def test_fifty_megabytes_of_errors_stay_on_the_host(bench: Bench) -> None:
    fleet, key = bench.connect(user="ops"), bench.key()
    result = fleet.act({"m1": [do("head -c 50000000 /dev/zero >&2; echo last >&2; exit 3", 60)]}, key, Witness())["m1"]
    assert result.code == 3
    assert result.err.endswith("last\n")
    assert f"{RUN_DIR}/commands/{key}.0.err" in result.err.splitlines()[0]
    assert len(result.err) < 70_000


def test_bare_commands_need_no_directory(bench: Bench) -> None:
    bench.sh(f"rm -rf {RUN_DIR}")
    fleet = bench.connect(user="ops")
    make = Command(("mkdir", "-m", "700", RUN_DIR), bare=True)
    assert fleet.act({"m1": [make]}, bench.key(), Witness())["m1"].ok
    assert bench.sh(f"stat -c '%a %U' {RUN_DIR}; ls -A {RUN_DIR}") == "700 root\n"
    with meanwhile(1.0, bench.cut):
        result = fleet.act({"m1": [do("echo x >>/root/t/ran; sleep 3", bare=True)]}, bench.key(), Witness())["m1"]
    assert result.unknown
    assert bench.sh("cat /root/t/ran") == "x\n", "never a second time"


def test_secrets_reach_the_program_and_nothing_else(bench: Bench) -> None:
    word = "hunter2-xyz"
    command = Command(("sh", "-c", 'printf %s "$1" | md5sum; echo "$1" is wrong >&2', "sh", Secret(word)))
    result = bench.connect(user="ops").act({"m1": [command]}, bench.key(), Witness())["m1"]
    assert result.out.split()[0] == bench.sh(f"printf %s {word} | md5sum").split()[0]
    assert result.err == "••• is wrong\n"
    assert word not in bench.sh(f"cat {RUN_DIR}/commands/*.intent; cat /var/log/sshd.log")


def test_a_restart_of_sshd_does_not_end_what_runs(bench: Bench) -> None:
    fleet, key = bench.connect(), bench.key()
    with meanwhile(1.0, lambda: bench.sh("systemctl restart ssh"), bench.cut):
        result = fleet.act({"m1": [do("echo x >>/root/t/ran; sleep 3; exit 5")]}, key, Witness())["m1"]
    assert result.code == 5
    assert bench.sh("cat /root/t/ran") == "x\n"
    assert fleet.ask({"m1": [ask("id -un")]})["m1"][0].out == "root\n"
