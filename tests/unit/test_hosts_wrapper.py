"""The scripts that run on the hosts, in real local shells, without SSH."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import secrets
import shlex
import shutil
import signal
import stat
import subprocess
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from runbook.hosts import texts, wrapper
from runbook.hosts.frames import Frames, Piece
from runbook.procedures import scripts
from runbook.step import Command, Secret
from runbook.transport import Claim

FULL = [[path] for name in ("dash", "bash") if (path := shutil.which(name))]
# BusyBox prefers its own applets, and its flock knows no -w: such a host can be asked, but not changed
SHELLS = FULL + [[path, "sh"] for name in ("busybox",) if (path := shutil.which(name))]
TOOLS = all(shutil.which(tool) for tool in ("flock", "timeout", "setsid", "stat"))
pytestmark = pytest.mark.skipif(not TOOLS, reason="needs util-linux and coreutils")


@pytest.fixture(params=FULL, ids=lambda s: Path(s[0]).name)
def shell(request: pytest.FixtureRequest) -> list[str]:
    found: list[str] = request.param
    return found


class Host:
    """A host as the scripts see it: a run's directory, the host's lock, and a shell."""

    def __init__(self, root: Path, shell: list[str]) -> None:
        self.root = root
        self.shell = shell
        self.dir = root / "run's dir"
        self.lock = root / "the lock"
        self.dir.mkdir(mode=0o700)

    def start(self, script: bytes) -> subprocess.Popen[bytes]:
        env = {"PATH": os.environ["PATH"], "LC_ALL": "C"}
        process = subprocess.Popen(
            [*self.shell, "-s"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=env,
            start_new_session=True,
        )
        assert process.stdin
        process.stdin.write(script)
        process.stdin.close()
        process.stdin = None
        return process

    def run(self, nonce: str, script: bytes) -> list[tuple[Piece, Piece]]:
        return pieces(nonce, *self.start(script).communicate(timeout=60))

    def command(self, key: str, *argv: str | Secret, epoch: int = 1, timeout: float = 20.0) -> tuple[str, bytes, bytes]:
        nonce, command = "ab" * 16, Command(argv, timeout=timeout)
        return end(self.run(nonce, self.guarded(epoch).run(nonce, key, self.intent(key), command)))

    def guarded(self, epoch: int = 1, void: tuple[str, ...] = ()) -> wrapper.Guarded:
        return wrapper.Guarded(str(self.dir), "prod-1", Claim(epoch), void)

    def intent(self, key: str) -> str:
        return json.dumps({"key": key})

    def settle(self, epoch: int = 1, wait: float = 5, void: tuple[str, ...] = ()) -> tuple[str, bytes, bytes]:
        nonce = secrets.token_hex(16)
        return end(self.run(nonce, self.guarded(epoch, void).settle(nonce, wait)))

    def files(self, key: str) -> dict[str, str]:
        return {
            p.name.removeprefix(f"{key}."): p.read_text() for p in (self.dir / "commands").iterdir() if key in p.name
        }

    def wait_for(self, name: str) -> Path:
        path = self.dir / name
        for _ in range(500):
            if path.exists():
                return path
            time.sleep(0.01)
        raise AssertionError(f"{name} never came")


def pieces(nonce: str, out: bytes, err: bytes) -> list[tuple[Piece, Piece]]:
    both = []
    for data in (out, err):
        frames = Frames(nonce, 10_000_000)
        frames.feed(data)
        both.append(list(frames.pieces))
    assert [p.name for p in both[0]] == [p.name for p in both[1]]
    return list(zip(*both, strict=True))


def end(found: list[tuple[Piece, Piece]]) -> tuple[str, bytes, bytes]:
    assert found[0][0].name == "start"
    out, err = found[-1]
    assert out.name == "end"
    return out.code, out.body, err.body


@pytest.fixture
def host(tmp_path: Path, shell: list[str], monkeypatch: pytest.MonkeyPatch) -> Iterator[Host]:
    made = Host(tmp_path, shell)
    monkeypatch.setattr(wrapper, "LOCK", str(made.lock))
    yield made
    # whatever a test left running holds the flock; ask it, and not a list of processes, for its end
    subprocess.run(["flock", "-w", "30", str(made.dir / "lock"), "true"] if made.dir.exists() else ["true"], check=True)


words = st.text(st.characters(blacklist_characters="\0", blacklist_categories=()), max_size=30) | st.binary(
    max_size=30
).map(lambda b: os.fsdecode(b.replace(b"\0", b"")))
argvs = st.lists(words.filter(lambda w: _encodable(w)), max_size=6)


def _encodable(word: str) -> bool:
    try:
        os.fsencode(word)
    except UnicodeEncodeError:
        return False
    return True


def printed(argv: list[str]) -> bytes:
    return b"".join(os.fsencode(w) + b"\0" for w in ["x", *argv])


# --- asking ---------------------------------------------------------------------------------------------------------


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(argv=argvs)
@pytest.mark.parametrize("shell", SHELLS, ids=lambda s: Path(s[0]).name)
def test_any_words_reach_a_question_unchanged(shell: list[str], argv: list[str]) -> None:
    nonce = secrets.token_hex(16)
    command = Command(("/usr/bin/printf", "%s\\0", "x", *argv), changes=False)
    done = subprocess.run(
        [*shell, "-s"], input=wrapper.ask(nonce, [command, command]), capture_output=True, check=True, timeout=30
    )
    answers = pieces(nonce, done.stdout, done.stderr)[1:]
    assert [(o.code, o.body, e.body) for o, e in answers] == [("0", printed(argv), b"")] * 2


@pytest.mark.parametrize("shell", SHELLS, ids=lambda s: Path(s[0]).name)
def test_each_answer_has_its_own_output_errors_and_code(host: Host, shell: list[str]) -> None:
    nonce = secrets.token_hex(16)
    asks = [
        Command(("sh", "-c", "printf out; printf err >&2; exit 7"), changes=False),
        Command(("sh", "-c", "cat; readlink /proc/self/fd/0"), changes=False),
        Command(("no-such-program",), changes=False),
        Command(("sleep", "20"), timeout=1, changes=False),
        Command(("sh", "-c", "kill -9 $$"), changes=False),
        Command(("sh", "-c", "umask; echo $LC_ALL; echo $PATH"), changes=False),
    ]
    begun = time.monotonic()
    answers = host.run(nonce, wrapper.ask(nonce, asks))[1:]
    assert time.monotonic() - begun < 15
    assert [o.name for o, _ in answers] == list("012345")
    expired = "143" if "busybox" in shell[0] else "124"
    assert [o.code for o, _ in answers] == ["7", "0", "127", expired, "137", "0"]
    assert (answers[0][0].body, answers[0][1].body) == (b"out", b"err")
    assert answers[1][0].body == b"/dev/null\n"
    mask, locale, path = answers[5][0].body.decode().splitlines()
    assert (mask, locale) == ("0077", "C")
    assert path.endswith(":/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")


def test_a_question_writes_no_file(host: Host) -> None:
    nonce = secrets.token_hex(16)
    before = sorted(host.root.rglob("*"))
    host.run(nonce, wrapper.ask(nonce, [Command(("true",), changes=False)]))
    assert sorted(host.root.rglob("*")) == before


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_a_script_cut_off_anywhere_does_nothing(tmp_path: Path, data: st.DataObject) -> None:
    shell = data.draw(st.sampled_from(SHELLS))
    room = tmp_path / secrets.token_hex(8)
    room.mkdir()
    touch = Command(("touch", str(room / "a"), str(room / "b")))
    guarded = wrapper.Guarded(str(room), "r", Claim(1))
    nonce = "cd" * 16
    script = data.draw(
        st.sampled_from(
            [
                wrapper.ask(nonce, [touch]),
                wrapper.bare(nonce, touch),
                guarded.run(nonce, "k", "{}", touch),
                guarded.settle(nonce, 1),
            ]
        )
    )
    length = data.draw(st.integers(0, len(script) - 3))
    subprocess.run([*shell, "-s"], input=script[:length], capture_output=True, check=False, timeout=30)
    assert list(room.iterdir()) == []


def test_nul_and_strange_keys_are_refused() -> None:
    with pytest.raises(ValueError, match="NUL"):
        wrapper.quote(["a\0b"])
    for key in ("", "../x", "a/b", "a b", "-x", ".x", "k.rc", "a\nb", "x" * 300):
        with pytest.raises(ValueError, match="cannot name"):
            wrapper.checked_key(key)
    assert wrapper.checked_key("StopEtcd.do.3.17.0") == "StopEtcd.do.3.17.0"


@pytest.mark.parametrize(("timeout", "seconds"), [(0.2, 1), (1, 1), (1.1, 2), (60.0, 60)])
def test_limits_are_whole_seconds_and_never_none(timeout: float, seconds: int) -> None:
    assert wrapper.limit(timeout) == seconds


# --- changing commands ----------------------------------------------------------------------------------------------


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(argv=argvs)
def test_any_words_reach_a_command_unchanged(host: Host, argv: list[str]) -> None:
    code, out, err = host.command(secrets.token_hex(8), "/usr/bin/printf", "%s\\0", "x", *argv)
    assert (code, out, err) == ("0", printed(argv), b"")


def test_a_command_leaves_its_intent_output_and_code(host: Host) -> None:
    assert host.command("k.0", "sh", "-c", "echo out; echo err >&2; exit 5") == ("5", b"out\n", b"err\n")
    assert host.files("k.0") == {"intent": '{"key": "k.0"}\n', "out": "out\n", "err": "err\n", "rc": "5\n"}
    for path in (host.dir / "commands").iterdir():
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE((host.dir / "commands").stat().st_mode) == 0o700
    assert (host.dir / "epoch").read_text() == "1\n"


def test_the_intent_is_there_before_the_command_runs(host: Host) -> None:
    code, out, _ = host.command("k.0", "cat", str(host.dir / "commands" / "k.0.intent"))
    assert (code, out) == ("0", b'{"key": "k.0"}\n')


def test_the_same_key_runs_once_and_gives_the_recorded_result(host: Host) -> None:
    count = host.root / "count"
    for _ in range(3):
        assert host.command("k.0", "sh", "-c", f"echo x >>{shlex.quote(str(count))}; echo out; exit 5") == (
            "5",
            b"out\n",
            b"",
        )
    assert count.read_text() == "x\n"


def test_two_at_once_with_the_same_key_run_once_and_both_get_the_result(host: Host) -> None:
    count, nonce = host.root / "count", "ef" * 16
    command = Command(("sh", "-c", f"echo x >>{shlex.quote(str(count))}; sleep 1; exit 5"))
    both = [host.start(host.guarded().run(nonce, "k.0", "{}", command)) for _ in range(4)]
    assert [end(pieces(nonce, *p.communicate(timeout=30)))[0] for p in both] == ["5"] * 4
    assert count.read_text() == "x\n"


def test_the_command_outlives_its_caller_and_is_found_again(host: Host) -> None:
    count, nonce = host.root / "count", "ef" * 16
    text = f"echo x >>{shlex.quote(str(count))}; sleep 1.5; echo done; exit 5"
    caller = host.start(host.guarded().run(nonce, "k.0", "{}", Command(("sh", "-c", text))))
    host.wait_for("../count")
    os.killpg(caller.pid, signal.SIGKILL)
    caller.communicate()
    assert not (host.dir / "commands" / "k.0.rc").exists()
    assert host.command("k.0", "sh", "-c", text) == ("5", b"done\n", b"")
    assert count.read_text() == "x\n"


def test_another_command_is_refused_while_one_runs(host: Host) -> None:
    nonce = "ef" * 16
    running = host.start(host.guarded().run(nonce, "k.0", "{}", Command(("sleep", "5"))))
    host.wait_for("commands/k.0.out")
    code, _, err = host.command("k.1", "touch", str(host.root / "never"))
    assert code == "96"
    assert b"k.0" in err
    assert end(pieces(nonce, *running.communicate(timeout=30)))[0] == "0"
    assert not (host.root / "never").exists()
    assert not (host.dir / "commands" / "k.1.intent").exists()


def test_a_waiter_says_that_it_lives(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wrapper, "BEAT", 1)
    nonce = "ef" * 16
    found = host.run(nonce, host.guarded().run(nonce, "k.0", "{}", Command(("sleep", "2.5"))))
    assert [out.name for out, _ in found] == ["start", "beat", "beat", "end"]


def test_a_killed_command_is_lost_and_never_started_again(host: Host) -> None:
    count, nonce = host.root / "count", "ef" * 16
    pid = host.root / "pid"
    text = f"echo x >>{shlex.quote(str(count))}; ps -o sid= -p $$ >{shlex.quote(str(pid))}; sleep 60"
    caller = host.start(host.guarded().run(nonce, "k.0", "{}", Command(("sh", "-c", text))))
    host.wait_for("commands/k.0.out")
    for _ in range(500):
        if pid.exists() and pid.read_text().strip():
            break
        time.sleep(0.01)
    # the whole session of the detached command, as when the host's power fails
    session = int(pid.read_text())
    subprocess.run(["pkill", "-KILL", "-s", str(session)], check=True)
    assert end(pieces(nonce, *caller.communicate(timeout=30)))[0] == "lost"
    assert host.command("k.0", "sh", "-c", text)[0] == "lost"
    assert count.read_text() == "x\n"
    assert host.command("k.1", "true")[0] == "0"


def test_a_daemon_left_behind_does_not_hold_the_flock(host: Host) -> None:
    begun = time.monotonic()
    assert host.command("k.0", "sh", "-c", "sleep 20 & exit 0")[0] == "0"
    assert host.command("k.1", "true")[0] == "0"
    assert time.monotonic() - begun < 10


def test_the_flock_outlives_the_wrappers_own_shell(host: Host) -> None:
    nonce, pid = "ef" * 16, host.root / "pid"
    text = f"ps -o sid= -p $$ >{shlex.quote(str(pid))}; sleep 3"
    caller = host.start(host.guarded().run(nonce, "k.0", "{}", Command(("sh", "-c", text))))
    for _ in range(500):
        if pid.exists() and pid.read_text().strip():
            break
        time.sleep(0.01)
    os.kill(int(pid.read_text()), signal.SIGKILL)  # the session's leader: the shell that would write the exit code
    begun = time.monotonic()
    assert host.settle(wait=0)[0] == "96"
    assert end(pieces(nonce, *caller.communicate(timeout=30)))[0] == "lost"
    assert time.monotonic() - begun > 1


def test_a_command_that_outlives_its_timeout_is_ended(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wrapper, "KILL", 1)
    begun = time.monotonic()
    assert host.command("k.0", "sleep", "60", timeout=1)[0] == "124"
    assert host.command("k.1", "sh", "-c", "trap '' TERM; sleep 60 & wait; sleep 60", timeout=1)[0] == "137"
    assert time.monotonic() - begun < 20


def test_long_output_stays_on_the_host_and_its_tail_comes_back(host: Host) -> None:
    code, out, err = host.command("k.0", "sh", "-c", "head -c 20000000 /dev/zero >&2; echo end >&2")
    assert (code, out) == ("0", b"")
    assert len(err) == wrapper.TAIL + 1
    assert err.endswith(b"\0\0end\n")
    assert (host.dir / "commands" / "k.0.err").stat().st_size == 20_000_004


SUM = hashlib.md5(b"hunter2").hexdigest() + "  -"  # noqa: S324 - only to compare


def test_secrets_reach_the_command_and_no_file(host: Host) -> None:
    command = Command(("sh", "-c", 'test "$(printf %s "$1" | md5sum)" = "$2"', "sh", Secret("hunter2"), SUM))
    nonce = secrets.token_hex(16)
    intent = shlex.join(str(w) for w in command.argv)
    found = host.run(nonce, host.guarded().run(nonce, "k.0", intent, command))
    assert end(found)[0] == "0"
    for path in host.dir.rglob("*"):
        assert path.is_dir() or b"hunter2" not in path.read_bytes()


def test_an_older_engine_is_refused_and_a_newer_one_takes_over(host: Host) -> None:
    assert host.command("a", "true", epoch=5)[0] == "0"
    code, _, err = host.command("b", "touch", str(host.root / "never"), epoch=4)
    assert code == "97"
    assert b"epoch is 5, ours is 4" in err
    assert not (host.root / "never").exists()
    assert host.command("c", "true", epoch=1_795_372_820)[0] == "0"
    assert (host.dir / "epoch").read_text() == "1795372820\n"
    assert host.command("a", "true", epoch=4)[0] == "0", "what it did itself, it may still learn"


@pytest.mark.parametrize("content", ["", "rubbish\n"])
def test_a_damaged_epoch_is_replaced(host: Host, content: str) -> None:
    (host.dir / "epoch").write_text(content)
    assert host.command("a", "true", epoch=2)[0] == "0"
    assert (host.dir / "epoch").read_text() == "2\n"


@pytest.mark.parametrize(
    ("content", "code"),
    [
        ('{"run": "prod-1", "holder": "me"}\n', "0"),
        ('{"holder":"me","run":"prod-1"}', "0"),
        ('{"run": "prod-2", "holder": "her"}\n', "98"),
        ('{"run": "prod-11"}\n', "98"),
        ('{"note": "\\"run\\": \\"prod-1\\"", "run": "prod-2"}\n', "98"),
        ("", "98"),
        ("rubbish\n", "98"),
    ],
)
def test_the_hosts_lock(host: Host, content: str, code: str) -> None:
    host.lock.write_text(content)
    done = host.command("a", "touch", str(host.root / "ran"))
    assert done[0] == code
    assert (host.root / "ran").exists() is (code == "0")
    if code == "98" and content.strip():
        assert done[1].decode().strip() == content.strip(), "who holds it stands in the output"


def test_a_run_directory_that_is_gone(host: Host) -> None:
    host.dir.rmdir()
    assert host.command("a", "touch", str(host.root / "ran"))[0] == "95"
    assert host.settle()[0] == "95"
    assert sorted(host.root.iterdir()) == []
    host.dir.mkdir()


def test_a_missing_tool_is_named(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wrapper, "GUARD", texts.GUARD.replace("for tool in flock", "for tool in flock-no"))
    code, _, err = host.command("a", "true")
    assert code == "127"
    assert b"flock-no is missing" in err


def test_a_directory_that_cannot_be_written_starts_nothing(host: Host) -> None:
    (host.dir / "commands").mkdir()
    (host.dir / "commands" / "a.intent").mkdir()  # stands for a disk that takes no more
    (host.dir / "commands" / "a.intent").rmdir()
    (host.dir / "lock").mkdir()
    code, _, err = host.command("a", "touch", str(host.root / "ran"))
    assert code == "1"
    assert b"nothing was started" in err
    assert not (host.root / "ran").exists()
    (host.dir / "lock").rmdir()


# --- settling -------------------------------------------------------------------------------------------------------


def test_settling_waits_and_claims(host: Host) -> None:
    nonce = "ef" * 16
    running = host.start(host.guarded().run(nonce, "k.0", "{}", Command(("sleep", "2"))))
    host.wait_for("commands/k.0.out")
    assert host.settle(wait=0)[0] == "96"
    assert (host.dir / "epoch").read_text() == "1\n"
    assert host.settle(epoch=3, wait=20)[0] == "0"
    assert (host.dir / "epoch").read_text() == "3\n"
    assert end(pieces(nonce, *running.communicate(timeout=30)))[0] == "0"
    assert host.settle(epoch=2)[0] == "97"


def test_a_start_given_up_on_cannot_begin_any_more(host: Host) -> None:
    assert host.settle(void=("late.0", "k.0"))[0] == "0"
    assert host.command("late.0", "touch", str(host.root / "ran"))[0] == "lost"
    assert not (host.root / "ran").exists()


def test_settling_tells_what_was_ever_begun_there_but_nothing_that_was_barred(host: Host) -> None:
    assert host.settle() == ("0", b"", b"")
    host.command("StopEtcd.do.1.7.0", "true")
    host.command("SwapData.do.1.9.0", "false")
    assert host.settle(epoch=2, void=("late.0",)) == ("0", b"StopEtcd.do.1.7.0\nSwapData.do.1.9.0\n", b"")


def test_giving_up_does_not_hide_what_did_run(host: Host) -> None:
    assert host.command("k.0", "sh", "-c", "exit 5")[0] == "5"
    assert host.settle(void=("k.0",))[0] == "0"
    assert host.command("k.0", "true")[0] == "5"


# --- receiving ------------------------------------------------------------------------------------------------------

CONTENT = os.urandom(3_000_000)
SHA = hashlib.sha256(CONTENT).hexdigest()


class Upload:
    """One upload into a host, the data given by hand."""

    def __init__(
        self,
        host: Host,
        key: str = "u.0",
        *,
        sha: str = SHA,
        size: int = len(CONTENT),
        origin: str = "",
        epoch: int = 1,
        env: dict[str, str] | None = None,
    ) -> None:
        self.nonce = secrets.token_hex(16)
        self.dest = host.dir / "the file"
        script = host.guarded(epoch).receive(
            self.nonce, key, "{}", str(self.dest), size, sha, 0o640, origin, timeout=30
        )
        line = wrapper.streaming_shell(False, len(script)).removeprefix("exec env LC_ALL=C /bin/sh ")
        self.process = subprocess.Popen(
            [*host.shell, *shlex.split(line)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
            env=env,
        )
        assert self.process.stdin
        self.process.stdin.write(script)
        self.process.stdin.flush()

    def finish(self, data: bytes) -> tuple[str, bytes, bytes]:
        out, err = self.process.communicate(data, timeout=60)
        return end(pieces(self.nonce, out, err))


def parts(host: Host) -> list[str]:
    return [p.name for p in host.dir.iterdir() if ".part" in p.name]


def test_a_file_is_received_proven_and_put_in_its_place(host: Host) -> None:
    (host.dir / "the file.dead.part").write_text("of an earlier attempt")
    upload = Upload(host)
    code, _, err = upload.finish(CONTENT)
    assert code == "0", err
    assert b"proven" in err
    assert upload.dest.read_bytes() == CONTENT
    assert stat.S_IMODE(upload.dest.stat().st_mode) == 0o640
    assert parts(host) == []
    assert host.files("u.0")["rc"] == "0\n"


@pytest.mark.parametrize("lacks", [(), ("perl",), ("perl", "python3")], ids=" and ".join)
def test_a_large_file_comes_through_a_large_pipe_where_the_host_can(
    host: Host, tmp_path: Path, lacks: Sequence[str]
) -> None:
    for tool in lacks:
        (tmp_path / tool).write_text("#!/bin/sh\necho no such program >&2\nexit 127\n")
        (tmp_path / tool).chmod(0o755)
    content = bytes(1 << 25)
    env = {**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}"}
    upload = Upload(host, size=len(content), sha=hashlib.sha256(content).hexdigest(), env=env)
    assert upload.process.stdin
    upload.process.stdin.write(content[:-1])
    holds = fcntl.fcntl(upload.process.stdin, fcntl.F_GETPIPE_SZ)
    code, _, err = upload.finish(content[-1:])
    assert (code, err.count(b"no such")) == ("0", 0), err
    assert holds == (1 << 16 if len(lacks) == 2 else 1 << 20)


@pytest.mark.parametrize("content", [b"", b"it's $(a) 'plan'\n\n", bytes(range(1, 256))])
def test_a_small_file_travels_in_the_script_itself(host: Host, content: bytes) -> None:
    text, dest, nonce = content.decode("utf-8", "surrogateescape"), host.dir / "the file", secrets.token_hex(16)
    for key, sha in (("u.0", "f" * 64), ("u.1", hashlib.sha256(content).hexdigest())):
        words = (nonce, key, "{}", str(dest), len(content), sha, 0o640, "", 30, text)
        code, _, err = end(host.run(nonce, host.guarded().receive(*words)))
        assert (code, dest.exists()) == (("1", False) if key == "u.0" else ("0", True)), err
    assert dest.read_bytes() == content
    assert stat.S_IMODE(dest.stat().st_mode) == 0o640
    assert parts(host) == []


def test_a_file_that_was_proven_is_read_again_only_when_somebody_touched_it(host: Host, tmp_path: Path) -> None:
    upload = Upload(host)
    upload.finish(CONTENT)
    hashed = tmp_path / "hashed"
    for tool in ("openssl", "sha256sum"):
        (tmp_path / tool).write_text(f'#!/bin/sh\necho "$*" >>{hashed}\nPATH={os.environ["PATH"]} exec {tool} "$@"\n')
        (tmp_path / tool).chmod(0o755)
    env = {**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}"}

    def seen() -> str:
        argv = ["sh", "-c", scripts.PROVEN, "runbook", str(upload.dest), SHA]
        return subprocess.run(argv, env=env, text=True, capture_output=True, check=False).stdout.split()[0]

    assert seen() == SHA
    assert not hashed.exists(), "it was proven as it came, and nobody has touched it since"
    file = upload.dest
    times = file.stat()
    with file.open("r+b") as out:
        out.write(b"X")
    os.utime(file, ns=(times.st_atime_ns, times.st_mtime_ns))  # as a copy with its times kept, of the same length
    assert seen() == hashlib.sha256(b"X" + CONTENT[1:]).hexdigest()
    assert hashed.exists()
    other = host.dir / "other"
    other.write_bytes(b"Y" + CONTENT[1:])
    other.replace(file)
    assert seen() == hashlib.sha256(b"Y" + CONTENT[1:]).hexdigest()
    Path(f"{file}.proven").unlink()
    file.write_bytes(CONTENT)
    assert seen() == SHA, "without the note it is hashed"


def test_a_file_that_is_there_is_not_sent_again(host: Host) -> None:
    (host.dir / "the file").write_bytes(CONTENT)
    upload = Upload(host)
    code, _, err = upload.finish(b"")
    assert code == "0"
    assert b"nothing was sent" in err
    assert stat.S_IMODE(upload.dest.stat().st_mode) == 0o640


def test_a_wrong_file_of_the_same_size_is_replaced(host: Host) -> None:
    (host.dir / "the file").write_bytes(bytes(len(CONTENT)))
    upload = Upload(host)
    assert upload.finish(CONTENT)[0] == "0"
    assert upload.dest.read_bytes() == CONTENT


@pytest.mark.parametrize("data", [CONTENT[:-1] + b"x", CONTENT + b"x"])
def test_a_damaged_file_is_refused_and_removed(host: Host, data: bytes) -> None:
    (host.dir / "the file").write_text("old")
    upload = Upload(host, size=len(data))
    code, _, err = upload.finish(data)
    assert code == "1"
    assert b"sha256 mismatch" in err
    assert upload.dest.read_text() == "old"
    assert parts(host) == []
    assert Upload(host, size=len(data)).finish(b"")[0] == "1", "the result is found again by its key"


@pytest.mark.parametrize("share", [0, 0.5])
def test_a_file_cut_off_leaves_nothing_and_may_be_tried_again(host: Host, share: float) -> None:
    upload = Upload(host)
    code, _, err = upload.finish(CONTENT[: int(share * len(CONTENT))])
    assert code == "cut", err
    assert not upload.dest.exists()
    assert parts(host) == []
    assert "rc" not in host.files("u.0")
    assert Upload(host).finish(CONTENT)[0] == "0"


def test_a_sender_that_falls_silent_is_given_up(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wrapper, "STALL", 1)
    upload = Upload(host)
    assert upload.process.stdin
    upload.process.stdin.write(CONTENT[:1_000_000])
    upload.process.stdin.flush()
    begun = time.monotonic()
    assert upload.process.wait(timeout=20) == 0
    assert 0.9 < time.monotonic() - begun < 8
    upload.process.stdin.close()
    assert upload.process.stdout
    assert upload.process.stderr
    out, err = upload.process.stdout.read(), upload.process.stderr.read()
    upload.process.stdout.close()
    upload.process.stderr.close()
    assert end(pieces(upload.nonce, out, err))[0] == "cut"
    assert parts(host) == []


def test_a_file_of_the_host_itself_is_copied(host: Host) -> None:
    source = host.root / "the source"
    source.write_bytes(CONTENT)
    upload = Upload(host, origin=str(source))
    assert upload.finish(b"")[0] == "0"
    assert upload.dest.read_bytes() == CONTENT
    code, _, err = Upload(host, "u.1", origin=str(host.root / "none")).finish(b"")
    assert (code, b"cannot read" in err) == ("1", True)


def test_a_directory_that_is_not_there(host: Host) -> None:
    nonce = secrets.token_hex(16)
    script = host.guarded().receive(nonce, "u.0", "{}", str(host.root / "no" / "f"), 3, SHA, 0o600, "", timeout=5)
    line = wrapper.streaming_shell(False, len(script)).removeprefix("exec env LC_ALL=C /bin/sh ")
    done = subprocess.run([*host.shell, *shlex.split(line)], input=script + b"abc", capture_output=True, check=False)
    code, _, err = end(pieces(nonce, done.stdout, done.stderr))
    assert code == "1"
    assert b"cannot write" in err


def test_uploads_respect_epoch_lock_and_flock(host: Host) -> None:
    assert host.settle(epoch=5)[0] == "0"
    assert Upload(host, epoch=4).finish(b"")[0] == "97"
    host.lock.write_text('{"run": "prod-2"}\n')
    assert Upload(host, epoch=5).finish(b"")[0] == "98"
    host.lock.unlink()
    upload = Upload(host, epoch=5)
    host.wait_for("commands/u.0.intent")
    assert host.command("k.0", "true", epoch=5)[0] == "96", "while a file is received, nothing else starts"
    assert upload.finish(CONTENT)[0] == "0"


def test_without_openssl_sha256sum_serves(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wrapper, "RECEIVE", texts.RECEIVE.replace("command -v openssl", "command -v no-openssl"))
    assert Upload(host).finish(CONTENT)[0] == "0"


@pytest.mark.parametrize("elevates", [True, False])
def test_the_login_shell_sees_constant_words_only(elevates: bool) -> None:
    for line in (wrapper.shell(elevates), wrapper.streaming_shell(elevates, 4711)):
        assert "\n" not in line
        assert "!" not in line  # csh would replace it
        assert ("sudo -n " in line) is elevates
