"""Connecting: strict host keys, logins, sudo, jump hosts, busy servers, dead links."""

from __future__ import annotations

import base64
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from runbook.hosts import errands
from runbook.hosts.keys import fingerprint
from runbook.step import Command, Result
from tests.lab import hosts_kit
from tests.lab.hosts_kit import RUN_DIR, Bench, Witness, ask, do, meanwhile

pytestmark = pytest.mark.lab
bench = hosts_kit.bench
quiet_lab = hosts_kit.quiet_lab
ID = ask("id -un")


def only(answers: dict[str, tuple[Result, ...]], host: str = "m1") -> Result:
    return answers[host][0]


def seen_key(bench: Bench) -> tuple[str, bytes]:
    kind, blob = bench.host_key().split()
    return kind, base64.b64decode(blob)


@pytest.fixture
def hosts_file(tmp_path: Path) -> Path:
    return tmp_path / "known hosts"


# --- host keys ------------------------------------------------------------------------------------------------------


def test_an_unknown_host_is_refused_and_the_message_says_what_to_type(bench: Bench, hosts_file: Path) -> None:
    hosts_file.write_text("elsewhere ssh-ed25519 AAAA\n")
    answer = only(bench.connect(known_hosts_file=hosts_file).ask({"m1": [ID]}))
    kind, blob = seen_key(bench)
    assert answer.unknown
    for words in (
        "m1 (10.0.1.10:22)",
        "not known",
        str(hosts_file),
        kind,
        fingerprint(blob),
        "ssh-keyscan -p 22 10.0.1.10",
    ):
        assert words in answer.err
    assert hosts_file.read_text() == "elsewhere ssh-ed25519 AAAA\n", "nothing is added"


def test_a_missing_known_hosts_file(bench: Bench, hosts_file: Path) -> None:
    answer = only(bench.connect(known_hosts_file=hosts_file).ask({"m1": [ID]}))
    assert answer.unknown
    assert f"cannot read the known hosts in {hosts_file}: No such file" in answer.err


def test_a_changed_key_is_refused_loudly(bench: Bench, hosts_file: Path) -> None:
    other = bench.host_key("m2").split()[1]
    hosts_file.write_text(f"10.0.1.10 ssh-ed25519 {other}\n")
    begun = time.monotonic()
    answer = only(bench.connect(known_hosts_file=hosts_file).ask({"m1": [ID]}))
    assert answer.unknown
    assert time.monotonic() - begun < 3, "not tried again"
    _, blob = seen_key(bench)
    for words in (
        "HAS CHANGED",
        str(hosts_file),
        fingerprint(blob),
        fingerprint(base64.b64decode(other)),
        "ssh-keygen -R",
    ):
        assert words in answer.err


def test_a_key_of_another_type_than_the_file_holds_is_refused(bench: Bench, hosts_file: Path, tmp_path: Path) -> None:
    subprocess.run(["ssh-keygen", "-q", "-t", "ecdsa", "-N", "", "-f", str(tmp_path / "k")], check=True)
    hosts_file.write_text("10.0.1.10 " + (tmp_path / "k.pub").read_text())
    answer = only(bench.connect(known_hosts_file=hosts_file).ask({"m1": [ID]}))
    assert answer.unknown
    assert "no key of the types" in answer.err
    assert "ecdsa-sha2-nistp256" in answer.err


@pytest.mark.parametrize("kind", ["rsa", "ecdsa", "ed25519"])
def test_the_type_that_the_file_holds_is_asked_for(bench: Bench, hosts_file: Path, kind: str) -> None:
    bench.sh("for t in rsa ecdsa; do [ -e /root/$t ] || ssh-keygen -q -t $t -N '' -f /root/$t; done")
    bench.sshd(2222, "HostKey /root/rsa", "HostKey /root/ecdsa")
    pub = bench.sh("cat /etc/ssh/ssh_host_ed25519_key.pub" if kind == "ed25519" else f"cat /root/{kind}.pub")
    hosts_file.write_text(f"[10.0.1.10]:2222 {pub}")
    subprocess.run(["ssh-keygen", "-q", "-H", "-f", str(hosts_file)], check=True, capture_output=True)
    fleet = bench.connect(known_hosts_file=hosts_file, port=2222)
    assert only(fleet.ask({"m1": [ID]})).out == "root\n"
    assert only(bench.connect(known_hosts_file=hosts_file).ask({"m1": [ID]})).unknown, "port 22 is another host"


# --- logins and sudo ------------------------------------------------------------------------------------------------


def user(bench: Bench, name: str, shell: str = "/bin/sh", sudoers: str = "") -> None:
    bench.sh(
        f"grep -q ^{name}: /etc/passwd || echo {name}:x:$((3000 + $(wc -l </etc/passwd))):2000::/home/{name}:{shell} "
        f">>/etc/passwd; grep -q ^{name}: /etc/shadow || echo '{name}:*:19000:0:99999:7:::' >>/etc/shadow; "
        f"mkdir -p /home/{name}; chmod 755 /home/{name}"
    )
    if sudoers:
        bench.sh(f"echo '{name} {sudoers}' >/etc/sudoers.d/{name}; chmod 440 /etc/sudoers.d/{name}")


def test_sudo_without_a_password_makes_root(bench: Bench) -> None:
    fleet = bench.connect("m1", "m2", user="ops")
    assert {h: r[0].out for h, r in fleet.ask({"m1": [ID], "m2": [ID]}).items()} == {"m1": "root\n", "m2": "root\n"}
    assert only(bench.connect(user="ops", sudo="never").ask({"m1": [ID]})).out == "ops\n"
    assert only(bench.connect(user="root", sudo="always").ask({"m1": [ask("echo $SUDO_USER")]})).out == "root\n"


@pytest.mark.parametrize(("name", "sudoers"), [("nopass", "ALL=(ALL:ALL) ALL"), ("stranger", "")])
def test_sudo_that_wants_a_password_is_named(bench: Bench, name: str, sudoers: str) -> None:
    user(bench, name, sudoers=sudoers)
    fleet = bench.connect(user=name)
    for answer in (
        only(fleet.ask({"m1": [ID]})),
        fleet.act({"m1": [do("touch /root/t/ran")]}, bench.key(), Witness())["m1"],
        fleet.act({"m1": [do("touch /root/t/ran", bare=True)]}, bench.key(), Witness())["m1"],
        fleet.settle(["m1"], 1)["m1"],
    ):
        assert answer.code == 1
        assert "sudo refused" in answer.err
        assert "a password is required" in answer.err
        assert "NOPASSWD" in answer.err
    assert bench.sh("ls /root/t") == ""


def test_a_refused_login_names_the_key_and_is_not_tried_again(bench: Bench, tmp_path: Path) -> None:
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(tmp_path / "k")], check=True)
    begun = time.monotonic()
    answer = only(bench.connect(identity_file=tmp_path / "k").ask({"m1": [ID]}))
    assert answer.unknown
    assert time.monotonic() - begun < 3
    assert f"the login as root was refused with the key {tmp_path / 'k'}" in answer.err
    assert answer.err.endswith(f"check with: ssh -i {tmp_path / 'k'} root@{bench.lab.nodes[0].ip} true")
    subprocess.run(["ssh-keygen", "-q", "-p", "-N", "secret", "-f", str(tmp_path / "k")], check=True)
    answer = only(bench.connect(identity_file=tmp_path / "k").ask({"m1": [ID]}))
    assert "passphrase" in answer.err
    answer = only(bench.connect(identity_file=tmp_path / "none").ask({"m1": [ID]}))
    assert "does not exist" in answer.err


def test_what_is_no_private_key_is_not_refused_by_anybody(bench: Bench, tmp_path: Path) -> None:
    (tmp_path / "text.db").write_text("no key\n")
    answer = only(bench.connect(identity_file=tmp_path / "text.db").ask({"m1": [ID]}))
    assert answer.unknown
    assert answer.err.endswith(f"{tmp_path / 'text.db'} is no private key, and no login was tried with it")
    assert "refused" not in answer.err


def test_an_agents_key_serves(bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "agent"
    agent = subprocess.Popen(["ssh-agent", "-D", "-a", str(path)], stdout=subprocess.DEVNULL)
    try:
        while not path.exists():
            time.sleep(0.01)
        monkeypatch.setenv("SSH_AUTH_SOCK", str(path))
        subprocess.run(["ssh-add", "-q", str(bench.lab.identity)], check=True)
        assert only(bench.connect(identity_file=None).ask({"m1": [ID]})).out == "root\n"
    finally:
        agent.terminate()
        agent.wait()


def test_a_login_shell_that_talks_and_one_that_is_none(bench: Bench) -> None:
    user(bench, "chatty", "/bin/bash", "ALL=(ALL:ALL) NOPASSWD: ALL")
    bench.sh("echo 'echo welcome; echo trouble >&2' >/home/chatty/.bashrc")
    answer = only(bench.connect(user="chatty").ask({"m1": [ask("echo out; echo err >&2")]}))
    assert (answer.code, answer.out, answer.err) == (0, "out\n", "err\n"), answer
    user(bench, "nobodyhome", "/usr/sbin/nologin")
    answer = only(bench.connect(user="nobodyhome").ask({"m1": [ID]}))
    assert answer.code == 1
    assert "no shell there" in answer.err


@pytest.mark.parametrize("shell", ["tcsh", "csh", "fish", "zsh", "ksh"])
def test_other_login_shells(bench: Bench, shell: str) -> None:
    path = shutil.which(shell)
    if path is None:
        pytest.skip(f"{shell} is not on this machine")
    user(bench, f"u{shell}", path, "ALL=(ALL:ALL) NOPASSWD: ALL")
    fleet = bench.connect(user=f"u{shell}")
    word = 'it\'s "so" $HOME `id` !! \\ *\n;'
    assert only(fleet.ask({"m1": [Command(("printf", "%s", word), changes=False)]})).out == word
    assert fleet.act({"m1": [Command(("printf", "%s", word))]}, bench.key(), Witness())["m1"].out == word


# --- ways there -----------------------------------------------------------------------------------------------------


def test_through_a_jump_host_with_strict_keys_at_each(bench: Bench, hosts_file: Path) -> None:
    fleet = bench.connect("m2", jump="root@10.0.1.10:22")
    assert only(fleet.ask({"m2": [ask("hostname")]}), "m2").out == "m2\n"
    hosts_file.write_text("\n".join(bench.known(without="m1").values()))
    answer = only(bench.connect("m2", jump="root@10.0.1.10", known_hosts_file=hosts_file).ask({"m2": [ID]}), "m2")
    assert answer.unknown
    assert "jump host 10.0.1.10" in answer.err
    assert "not known" in answer.err
    hosts_file.write_text("\n".join(bench.known(without="m2").values()))
    answer = only(bench.connect("m2", jump="root@10.0.1.10", known_hosts_file=hosts_file).ask({"m2": [ID]}), "m2")
    assert "m2 (10.0.1.11:22)" in answer.err
    assert "not known" in answer.err


@pytest.mark.parametrize("way", ["ProxyCommand ssh -F {config} -W %h:%p m1", "ProxyJump root@m1"])
def test_the_users_ssh_config_leads_the_way(
    bench: Bench,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    way: str,
) -> None:
    (tmp_path / ".ssh").mkdir()
    (tmp_path / ".ssh" / "config").write_text(
        f"Host behind\n HostName 10.0.1.11\n HostKeyAlias m2\n {way.format(config=bench.lab.ssh_config)}\n"
        f" ForwardAgent yes\nHost m1\n HostName 10.0.1.10\nHost *\n IdentityFile {bench.lab.identity}\n"
    )
    monkeypatch.setenv("HOME", str(tmp_path))
    fleet = bench.fleet(bench.target("m2", "behind", identity_file=None))
    assert only(fleet.ask({"m2": [ask("hostname; echo ${SSH_AUTH_SOCK-none}")]}), "m2").out == "m2\nnone\n"
    assert only(fleet.ask({"m2": [ask("echo ${SSH_CONNECTION%% *}")]}), "m2").out == "10.0.1.10\n"
    # with a permanent neighbour, m1 does not hear from its own kernel that m2 is gone
    bench.sh("set -- $(ip neigh show 10.0.1.11); ip neigh replace 10.0.1.11 dev $3 lladdr $5 nud permanent")
    begun = time.monotonic()
    with meanwhile(1.0, lambda: bench.lab.unplug("m2")):
        answer = only(fleet.ask({"m2": [ask("sleep 60", 60)]}), "m2")
    bench.sh("ip neigh del 10.0.1.11 dev $(ip -o neigh show 10.0.1.11 | cut -d ' ' -f 3)")
    assert answer.unknown
    assert time.monotonic() - begun < 20, "the far end is asked whether it lives"


def test_a_fabric_file_changes_nothing_and_a_broken_ssh_config_is_named(
    bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / ".fabric.yaml").write_text("gateway: nobody.invalid\nconnect_kwargs: {look_for_keys: 7}\nuser: eve\n")
    assert only(bench.connect().ask({"m1": [ID]})).out == "root\n"
    (tmp_path / ".ssh").mkdir()
    (tmp_path / ".ssh" / "config").write_text("Match nonsense\n")
    answer = only(bench.connect().ask({"m1": [ID]}))
    assert answer.unknown
    assert "m1 (10.0.1.10:22): ~/.ssh/config cannot be followed" in answer.err


def test_nobody_answers_nobody_listens_no_such_name(bench: Bench) -> None:
    begun = time.monotonic()
    fleet = bench.fleet(
        bench.target("m1", "10.0.1.99", connect_timeout=2.0),
        bench.target("m2", port=4711),
        bench.target("m3", "no-such-name.invalid"),
    )
    answers = fleet.ask({h: [ID] for h in ("m1", "m2", "m3")})
    assert time.monotonic() - begun < 10
    assert all(a[0].unknown for a in answers.values())
    assert "m1 (10.0.1.99:22): " in answers["m1"][0].err
    assert (
        "m2 (10.0.1.11:4711): Connection refused; check that the host is up and that its sshd" in answers["m2"][0].err
    )
    assert "the name is not known" in answers["m3"][0].err


def test_a_server_that_is_too_busy_is_tried_again(bench: Bench) -> None:
    bench.sshd(2222, "MaxStartups 1")
    with bench.lab.known_hosts.open("a") as file:
        file.write(f"[10.0.1.10]:2222 {bench.host_key()}\n")
    blocker = socket.create_connection(("10.0.1.10", 2222))
    with meanwhile(1.5, blocker.close):
        fleet = bench.connect(port=2222, connect_timeout=10.0)
        begun = time.monotonic()
        assert only(fleet.ask({"m1": [ID]})).out == "root\n"
        assert 1 < time.monotonic() - begun < 8
    many = [bench.connect(port=2222, connect_timeout=10.0) for _ in range(4)]
    answers: list[Result] = []
    threads = [threading.Thread(target=lambda f=f: answers.append(only(f.ask({"m1": [ID]})))) for f in many]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [a.out for a in answers] == ["root\n"] * 4
    with socket.create_connection(("10.0.1.10", 2222)):
        answer = only(bench.connect(port=2222, connect_timeout=2.0).ask({"m1": [ID]}))
    assert answer.unknown
    assert "MaxStartups" in answer.err


def test_the_wire_is_tuned(bench: Bench) -> None:
    bench.sshd(2222, "Ciphers aes256-ctr")
    with bench.lab.known_hosts.open("a") as file:
        file.write(f"[10.0.1.10]:2222 {bench.host_key()}\n")
    for port, cipher in ((22, "aes128-gcm@openssh.com"), (2222, "aes256-ctr")):
        fleet = bench.connect(port=port)
        assert only(fleet.ask({"m1": [ID]})).out == "root\n"
        link = fleet._links["m1"]
        assert link._connections[0].transport.local_cipher == cipher
        (sock,) = link._sockets
        assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
        assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
        assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == 5000


# --- asking over real connections -----------------------------------------------------------------------------------


def test_one_dead_host_hides_nothing_of_the_others(bench: Bench) -> None:
    fleet = bench.connect("m1", "m2", "m3", connect_timeout=2.0)
    assert len(fleet.ask({h: [ID] for h in ("m1", "m2", "m3")})) == 3
    bench.lab.unplug("m2")
    begun = time.monotonic()
    answers = fleet.ask({h: [ID, ID] for h in ("m1", "m2", "m3")})
    assert time.monotonic() - begun < 12
    assert [r.out for r in answers["m1"] + answers["m3"]] == ["root\n"] * 4
    assert [r.unknown for r in answers["m2"]] == [True, True]
    bench.lab.plug("m2")
    assert only(fleet.ask({"m2": [ID]}), "m2").out == "root\n", "a dead connection is opened again"


def test_a_link_that_dies_is_noticed_in_seconds_and_what_was_answered_counts(bench: Bench) -> None:
    fleet = bench.connect(connect_timeout=2.0)
    with meanwhile(1.0, lambda: bench.lab.unplug("m1")):
        begun = time.monotonic()
        answers = fleet.ask({"m1": [ask("echo first"), ask("sleep 60", 70), ask("echo third")]})["m1"]
        assert time.monotonic() - begun < 15
    assert [a.out for a in answers] == ["first\n", "", ""]
    assert [a.unknown for a in answers] == [False, True, True]


def test_a_connection_that_breaks_is_asked_once_more(bench: Bench) -> None:
    fleet = bench.connect()
    with meanwhile(1.0, bench.cut):
        asks = [ask("echo x >>/root/t/first"), ask("echo x >>/root/t/second; sleep 2; echo done"), ask("echo third")]
        answers = fleet.ask({"m1": asks})["m1"]
    assert [a.out for a in answers] == ["", "done\n", "third\n"]
    assert bench.sh("cat /root/t/first; echo; cat /root/t/second") == "x\n\nx\nx\n", "only the rest is asked again"


def test_the_next_script_finds_its_shell_there_and_a_dead_one_is_replaced(bench: Bench) -> None:
    """Opening a shell takes two round trips and four programs: it is done once."""

    def shells() -> list[str]:
        """Those of the connections that are open now; an earlier one's may still be waiting for what it was told."""
        return bench.sh(f"pgrep -fx '/bin/sh -s' -P {','.join(map(str, bench.sessions()))} || true").split()

    fleet = bench.connect()
    assert only(fleet.ask({"m1": [ID]})).ok
    (first,) = shells()
    act = fleet.act({"m1": [do("echo done")]}, bench.key(), Witness())["m1"]
    assert (act.out, only(fleet.ask({"m1": [ID]})).out, shells()) == ("done\n", "root\n", [first])
    bench.sh(f"kill -KILL {first}")
    time.sleep(0.3)
    assert only(fleet.ask({"m1": [ID]})).out == "root\n", "a dead one is no answer"
    (second,) = shells()
    assert second != first
    bench.cut()
    assert only(fleet.ask({"m1": [ID]})).out == "root\n", "nor is one of a dead connection"


def test_a_script_leaves_nothing_of_itself_in_the_shell(bench: Bench) -> None:
    fleet = bench.connect()
    assert only(fleet.ask({"m1": [ask("cd /tmp; umask 0; LEFT=1; export LEFT; cat")]})).out == "", "nothing to read"
    seen = only(fleet.ask({"m1": [ask("pwd; umask; echo ${LEFT-none}; ls /proc/self/fd")]})).out.split()
    assert seen == ["/root", "0077", "none", "0", "1", "2", "3"], "3 is the list's own"


@pytest.mark.parametrize("kind", ["a plan's own text", "what outlived its time"])
def test_what_may_still_print_shares_no_shell_with_what_comes_next(bench: Bench, kind: str) -> None:
    late = "(sleep 1; echo late; echo late >&2) & "
    if kind == "a plan's own text":
        command = Command(("sh", "-c", late), 20.0, changes=False, stray=True)
    else:
        command = ask(f"setsid sh -c '{late} wait' & sleep 30", timeout=1.0)
    fleet = bench.connect()
    fleet.ask({"m1": [command]})
    answer = only(fleet.ask({"m1": [ask("sleep 2; echo mine")]}))
    assert (answer.out, answer.err) == ("mine\n", "")


def shell_of(bench: Bench) -> int:
    return int(bench.sh(f"pgrep -fx '/bin/sh -s' -P {','.join(map(str, bench.sessions()))}"))


def test_a_shell_that_is_frozen_is_replaced_and_nothing_gets_lost(bench: Bench) -> None:
    fleet = bench.connect()
    assert only(fleet.ask({"m1": [ID]})).ok
    bench.sh(f"kill -STOP {shell_of(bench)}")
    began = time.monotonic()
    assert fleet.act({"m1": [do("echo once >>/root/t/ran", timeout=5)]}, bench.key(), Witness())["m1"].ok
    assert time.monotonic() - began < 10, "its time to connect, and no more"
    assert bench.sh("cat /root/t/ran") == "once\n"


def test_a_script_that_is_killed_is_no_silence(bench: Bench) -> None:
    """Its shell goes with it: else all the time of a question, or of a restore, would be waited for in vain."""
    fleet = bench.connect()
    assert only(fleet.ask({"m1": [ID]})).ok
    began = time.monotonic()
    killed = only(fleet.ask({"m1": [ask("kill -9 $(ps -o ppid= -p $PPID)", timeout=40)]}))
    assert (killed.unknown, time.monotonic() - began < 10) == (True, True)
    assert only(fleet.ask({"m1": [ID]})).ok


def test_a_program_in_a_shells_place_that_ends_with_0_says_no(bench: Bench) -> None:
    bench.sh("cp /etc/passwd /root/t/passwd; sed -i 's|^\\(ops:.*:\\)[^:]*$|\\1/bin/true|' /etc/passwd")
    try:
        answer = only(bench.connect(user="ops").ask({"m1": [ID]}))
    finally:
        bench.sh("cp /root/t/passwd /etc/passwd")
    assert (answer.ok, answer.unknown) == (False, False)
    assert "no shell there, nothing was run" in answer.err


def test_a_host_whose_sshd_hangs_is_given_up(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(errands, "START", 2.0)
    fleet = bench.connect("m1", "m2")
    assert len(fleet.ask({"m1": [ID], "m2": [ID]})) == 2
    (pid,) = bench.sessions()
    bench.sh(f"kill -STOP {pid}")
    assert only(fleet.ask({"m1": [ID]})).out == "root\n", "a connection that hangs is replaced"
    (_, pid) = bench.sessions()
    bench.sh(f"kill -STOP {pid} $(cat /run/sshd.pid)")
    begun = time.monotonic()
    answers = fleet.ask({"m1": [ID], "m2": [ID]})
    bench.sh(f"kill -CONT {pid} $(cat /run/sshd.pid)")
    assert time.monotonic() - begun < 30
    assert (answers["m1"][0].unknown, answers["m2"][0].out) == (True, "root\n")


def test_a_command_that_hangs_is_ended_there(bench: Bench) -> None:
    begun = time.monotonic()
    first, second = bench.connect().ask({"m1": [ask("echo before; sleep 4711", 1), ask("echo after")]})["m1"]
    assert time.monotonic() - begun < 8
    assert (first.code, first.out, second.out) == (124, "before\n", "after\n")
    assert bench.sh("pgrep -f 'sleep 471[1]'", check=False) == ""


def test_fifty_megabytes_are_cut_and_cost_little(bench: Bench) -> None:
    begun = time.monotonic()
    first, second = bench.connect().ask({"m1": [ask("head -c 50000000 /dev/zero >&2; exit 3", 60), ask("echo after")]})[
        "m1"
    ]
    assert time.monotonic() - begun < 20
    assert (first.code, second.out) == (3, "after\n")
    assert len(first.err) < errands.CAP + 100
    assert f"[cut here: {50_000_000 - errands.CAP} bytes more]" in first.err


# --- the caller -----------------------------------------------------------------------------------------------------


def test_ctrl_c_is_heard_at_once_and_leaves_the_command_running(bench: Bench) -> None:
    fleet, key, witness = bench.connect("m1", "m2"), bench.key(), Witness()
    timer = threading.Timer(1.0, os.kill, (os.getpid(), signal.SIGINT))
    timer.start()
    begun = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        fleet.act(
            {h: [do("sleep 3; echo x >>/root/t/ran"), do("touch /root/t/never")] for h in ("m1", "m2")}, key, witness
        )
    assert time.monotonic() - begun < 2.5
    assert [r.code for r in fleet.settle(["m1", "m2"], 20).values()] == [0, 0]
    assert bench.sh("cat /root/t/ran; ls /root/t") == "x\nran\n", "it ended; what would have followed never began"
    assert witness.ends == [], "nobody waits any more, so nobody is told"


def test_closing_never_waits_and_no_thread_holds_the_process(bench: Bench) -> None:
    text = """if True:
        import sys, threading, time
        sys.path.insert(0, sys.argv[1])
        from runbook.hosts import errands
        from runbook.hosts.address import Address
        from runbook.hosts.connection import Link
        from runbook.step import Command
        link = Link(Address("m1", "10.0.1.10", identity_file=sys.argv[2], known_hosts_file=sys.argv[3]))
        sleep = [Command(("sleep", "30"), changes=False)]
        threading.Thread(target=errands.ask, args=(link, sleep), daemon=True).start()
        time.sleep(2)
        assert link.alive
        begun = time.monotonic()
        link.drop()
        assert time.monotonic() - begun < 0.2
    """
    root = str(Path(__file__).resolve().parents[2])
    begun = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-c", text, root, str(bench.lab.identity), str(bench.lab.known_hosts)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert time.monotonic() - begun < 8


def test_where_the_run_has_no_directory_settling_says_so(bench: Bench) -> None:
    bench.sh(f"rm -rf {RUN_DIR}")
    assert bench.connect().settle(["m1"], 5)["m1"].code == 95
