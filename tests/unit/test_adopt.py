"""What hosts and this machine hold of a run, and how it is taken over: by the real scripts, run by ``sh``."""

from __future__ import annotations

import base64
import hashlib
import json
import shlex
import shutil
import subprocess
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from unittest.mock import Mock

import click.testing
import pytest
from click.testing import CliRunner

from runbook import adopt, lineage, runs, takeover
from runbook.adopt import PLAN, SETTINGS, Held, Seen, Typed, held
from runbook.cli import cli
from runbook.copies import JOURNAL
from runbook.errors import Halted, UsageError
from runbook.hosts import login, wrapper
from runbook.hosts.address import Address
from runbook.hosts.keys import KnownKeys
from runbook.journal import Journal
from runbook.plan import Ssh
from runbook.procedures import kubeadm
from runbook.replay import replay
from runbook.step import Command, Result, Target
from runbook.transport import LOCK, Claim, Copy
from tests.unit.test_hosts_wrapper import end, pieces

TEXT = b"the plan"
RUN = "prod-20260409t140000z-0001"
STEPS = [s.id() for s in kubeadm.STEPS]


def journal(tmp_path: Path, lines: int, epoch: int = 1, name: str = "j") -> bytes:
    path = tmp_path / name
    made = Journal(path)
    made.epoch = epoch
    made.append("run", {"run": RUN, "plan_sha256": hashlib.sha256(TEXT).hexdigest()})
    for number in range(lines - 1):
        made.append("begin", {"n": number}, step="S", host="m1")
    made.close()
    return path.read_bytes()


def copy(raw: bytes, epoch: int = 1, owner: str = "") -> Held:
    return held({JOURNAL: raw, PLAN: TEXT}, epoch, owner)


def head(raw: bytes, lines: int) -> bytes:
    return b"".join(raw.splitlines(keepends=True)[:lines])


def choose(copies: Mapping[str, Held | str], run: str) -> lineage.Choice:
    return lineage.choose(copies, run, Typed())


def run_of(seen: Mapping[str, Seen | str], run: str = "", *words: str) -> str:
    return adopt.run_of(seen, Typed(words, run=run))


# One engine's journal, in several copies.


def test_the_longest_of_one_epoch(tmp_path: Path) -> None:
    whole = journal(tmp_path, 9)
    made = choose({"m1": copy(head(whole, 6)), "m2": copy(whole), "m3": "no answer within 10s"}, RUN)
    assert made.source == "m2"
    assert made.journal == whole
    assert made.plan == TEXT
    assert made.differs == (f"m1: 3 lines behind{lineage.NORMAL}", "m3: no answer within 10s")


def test_copies_that_are_only_behind_are_told_as_normal_and_together(tmp_path: Path) -> None:
    """After a SIGKILL the hosts' copies end where something was last begun: nobody has forked anything."""
    whole = journal(tmp_path, 20)
    own = held({JOURNAL: whole, PLAN: TEXT}, here=True)
    copies = {"m1": copy(head(whole, 5)), "m2": copy(head(whole, 5)), "m3": copy(head(whole, 19))}
    made = choose({"this machine": own, **copies}, RUN)
    assert made.source == "this machine"
    assert made.differs == (f"m1, m2: 15 lines behind{lineage.NORMAL}", f"m3: 1 line behind{lineage.NORMAL}")
    assert "which is normal" in lineage.NORMAL


def test_a_fork_is_never_told_as_normal(tmp_path: Path) -> None:
    """However short the other copy is, and however much of it is the same."""
    whole, other = journal(tmp_path, 20), tmp_path / "other"
    other.write_bytes(head(whole, 4))
    fork = Journal(other)
    fork.append("begin", {"n": 99}, step="S", host="m1")
    fork.close()
    made = choose({"m1": copy(other.read_bytes()), "m2": copy(whole), "m3": copy(whole)}, RUN)
    assert made.differs == ("m1: its journal differs from line 5 on (5 lines, epoch 1)",)


def test_a_machine_that_was_taken_over_is_behind_and_not_as_a_host_is(tmp_path: Path) -> None:
    whole = journal(tmp_path, 20)
    own = held({JOURNAL: head(whole, 5), PLAN: TEXT}, here=True)
    made = choose({"this machine": own, "m1": copy(whole)}, RUN)
    assert made.differs == ("this machine: 15 lines behind, the same up to there",)


def test_a_higher_epoch_wins_over_a_longer_journal(tmp_path: Path) -> None:
    longer, newer = journal(tmp_path, 20), journal(tmp_path, 5, epoch=3, name="k")
    made = choose({"m1": copy(longer), "m2": copy(newer, 3)}, RUN)
    assert (made.source, made.epoch) == ("m2", 3)
    assert made.differs == ("m1: its journal differs from line 1 on (20 lines, epoch 1)",)


def test_an_engine_that_only_claimed_a_host_counts_for_the_epoch(tmp_path: Path) -> None:
    made = choose({"m1": copy(journal(tmp_path, 5), 7)}, RUN)
    assert made.epoch == 7
    lost = (
        "m1: claimed by an engine of epoch 7, whose journal is nowhere: what it did there is told by its commands alone"
    )
    assert made.differs == (lost,)


def test_a_torn_last_line_is_dropped(tmp_path: Path) -> None:
    whole = journal(tmp_path, 8)
    torn = choose({"m1": copy(whole[:-10])}, RUN)
    assert torn.journal == head(whole, 7)
    assert torn.differs == ()


def forged(raw: bytes, at: int, **change: object) -> bytes:
    lines = raw.splitlines(keepends=True)
    return b"".join([*lines[:at], json.dumps({**json.loads(lines[at]), **change}).encode() + b"\n", *lines[at + 1 :]])


def test_a_forged_line_is_never_gone_on_with(tmp_path: Path) -> None:
    """It is the line after that shows it, so neither is used."""
    whole = journal(tmp_path, 8)
    bad = forged(whole, 4, n=99)
    alone = choose({"m1": copy(bad)}, RUN)
    assert alone.journal == head(whole, 4)
    assert alone.differs[0].startswith("m1: line 5 or 6 is damaged (it does not follow")
    made = choose({"m1": copy(bad), "m2": copy(head(whole, 3))}, RUN)
    assert made.source == "m2", "a whole chain comes before a longer one"
    assert made.differs == ("m1: its journal differs from line 4 on (4 lines, epoch 1)",)


def test_a_forged_epoch_wins_nothing(tmp_path: Path) -> None:
    """Four lines, of which the last claims a higher epoch, against three whole copies of eighteen."""
    whole = journal(tmp_path, 18)
    bad = forged(whole, 3, epoch=9)
    copies = {name: copy(whole) for name in ("m1", "m2", "m3")}
    made = choose({"this machine": held({JOURNAL: bad, PLAN: TEXT}, here=True), **copies}, RUN)
    assert made.journal == whole
    last = forged(whole, 17, epoch=9)
    made = choose({"this machine": held({JOURNAL: last, PLAN: TEXT}, here=True), **copies}, RUN)
    assert made.journal == whole, "of equals, the one that most others have"


def test_the_settings_come_with_the_journal(tmp_path: Path) -> None:
    raw = journal(tmp_path, 3)
    assert choose({"m1": held({JOURNAL: raw, PLAN: TEXT, SETTINGS: b"newer"})}, RUN).settings == b"newer"


def test_a_plan_that_was_not_approved_is_not_taken(tmp_path: Path) -> None:
    raw = journal(tmp_path, 3)
    other = held({JOURNAL: raw, PLAN: b"edited"}, 1)
    assert choose({"m1": other, "m2": copy(raw)}, RUN).plan == TEXT
    with pytest.raises(Halted, match="no host holds the plan"):
        choose({"m1": other}, RUN)


@pytest.mark.parametrize(
    "copies",
    [
        {},
        {"m1": held({}), "m2": "no answer"},
        {"m1": held({PLAN: TEXT})},
        {"m1": held({}, commands=("Stop.do.1.1.0",))},
    ],
)
def test_no_journal_and_yet_something_may_be_under_way(copies: Mapping[str, Held | str]) -> None:
    """Nobody is told to remove a lock in the middle of an outage."""
    with pytest.raises(Halted, match="no host holds a journal") as caught:
        choose(copies, RUN)
    assert not any("rm " in command for command in caught.value.next)
    assert any("--workspace" in command for command in caught.value.next)


def test_a_run_that_locked_and_did_nothing_else() -> None:
    with pytest.raises(Halted, match="no host holds a journal") as caught:
        choose({"m1": held({}, commands=("LockHosts.do.1.5.1",)), "m2": held({})}, RUN)
    assert caught.value.next[0].startswith(f"runbook adopt --run {RUN} --host HOST   # ")
    assert caught.value.next[1].endswith(f"rm {LOCK}")


def test_which_run() -> None:
    one, two = Seen(RUN, "eve@x", (f"/w/{RUN}", "/w/old-1")), Seen("", "", ("/w/old-1",))
    assert run_of({"m1": one, "m2": two}) == RUN
    assert run_of({"m2": two}) == "old-1"
    assert run_of({"m1": one}, "old-1") == "old-1"
    assert run_of({"m1": Seen("elsewhere-1")}, "elsewhere-1") == "elsewhere-1"
    with pytest.raises(UsageError, match="several runs: old-1, old-2"):
        run_of({"m1": Seen(dirs=("/w/old-1", "/w/old-2"))})
    with pytest.raises(UsageError, match="no host that was asked holds a run"):
        run_of({"m1": Seen()})
    with pytest.raises(UsageError, match="--run nope"):
        run_of({"m1": one}, "nope")
    with pytest.raises(Halted, match="no host could be asked:\n  m1: timed out") as caught:
        run_of({"m1": "timed out"})
    assert caught.value.means
    assert [command.partition("   # ")[2] for command in caught.value.next] == ["once one of them answers"]


def test_a_host_that_answers_and_lets_nobody_in_is_not_called_silent() -> None:
    """What can be mended on this machine is said, each command on a line of its own."""
    known = KnownKeys(Path("/k"), "10.0.1.10", (), frozenset())
    address = Address.to("10.0.1.10", "10.0.1.10", Ssh(known_hosts_file=Path("/k")))
    key = Mock(asbytes=lambda: b"x", get_name=lambda: "ssh-ed25519")
    with pytest.raises(Halted, match="the host key is not known") as caught:
        run_of({"m1": login._bad_key(Mock(host="10.0.1.10", port=22), address, known, key)}, RUN, "root@10.0.1.10")
    again = "runbook adopt --host root@10.0.1.10"
    assert [command.partition("   # ")[0] for command in caught.value.next] == [
        "ssh-keyscan -p 22 10.0.1.10 | ssh-keygen -lf -",
        "ssh-keyscan -p 22 10.0.1.10 >> /k",
        f"{again} --known-hosts-file FILE --run {RUN}",
        f"{again} --run {RUN}",
    ]
    assert "ssh-keyscan" not in caught.value.message
    with pytest.raises(Halted) as caught:
        run_of({"m1": "m1 (10.0.1.10:22): the login as root was refused with the agent's keys"}, RUN, "root@10.0.1.10")
    assert caught.value.next[0].startswith(f"{again} --identity-file FILE --run {RUN}   # ")
    assert "once that is mended" in caught.value.next[-1]


# Hosts whose scripts are run by sh, each with a root of its own.

YAML = """\
apiVersion: runbook/v1
kind: EtcdRestore
metadata: {name: prod}
spec:
  snapshot: {from: "file:///s.db"}
  nodes:
    - {name: m1, host: 10.0.1.10, peerURLs: ["https://10.0.1.10:2380"]}
    - {name: m2, host: 10.0.1.11, peerURLs: ["https://10.0.1.11:2380"]}
    - {name: m3, host: 10.0.1.12, peerURLs: ["https://10.0.1.12:2380"]}
  ssh: {user: ops, port: 2222, jump: bastion}
"""
HOSTS = {"m1": "10.0.1.10", "m2": "10.0.1.11", "m3": "10.0.1.12"}
NONCE = "ab" * 16


@dataclass
class Sh:
    """Connections to hosts that are directories here: ``WORKSPACE`` and the lock lie below each one's own root."""

    root: Path
    targets: Mapping[str, Target]
    claim: Claim
    silent: set[str]

    def _root(self, name: str) -> Path:
        place = self.targets[name].place.host
        return self.root / next(m for m, host in HOSTS.items() if host == place)

    def _there(self, name: str, words: Sequence[str]) -> list[str]:
        moved = ("/var/", "/srv/")
        return [f"{self._root(name)}{word}" if word.startswith(moved) else word for word in words]

    def ask(self, asks: Mapping[str, Sequence[Command]]) -> dict[str, tuple[Result, ...]]:
        return {name: tuple(self._ask(name, command) for command in commands) for name, commands in asks.items()}

    def _ask(self, name: str, command: Command) -> Result:
        if self._root(name).name in self.silent:
            return Result(None, err="no answer")
        done = subprocess.run(self._there(name, command.words()), capture_output=True, text=True, check=False)
        out = done.stdout.replace(f"{self._root(name)}/", "/")
        return Result(done.returncode, out, done.stderr)

    def keep(self, copies: Mapping[str, Sequence[Copy]]) -> dict[str, Result]:
        return {name: self._keep(name, pieces_) for name, pieces_ in copies.items()}

    def _keep(self, name: str, copies: Sequence[Copy]) -> Result:
        if self._root(name).name in self.silent:
            return Result(None, err="no answer")
        target = self.targets[name]
        guarded = wrapper.Guarded(self._there(name, [target.run_dir])[0], target.bound.run, self.claim)
        script = guarded.keep(NONCE, copies)
        done = subprocess.run(["/bin/sh", "-s"], input=script, capture_output=True, check=False)
        if b" end " not in done.stdout:
            return Result(done.returncode, err=done.stderr.decode().splitlines()[-1])
        code, out, err = end(pieces(NONCE, done.stdout, done.stderr))
        return Result(int(code), out.decode(), err.decode())

    def close(self) -> None:
        """Nothing to drop."""


@dataclass
class Place:
    """Three hosts and the machines that work on a run of theirs; ``machine`` switches to another one."""

    root: Path
    patch: pytest.MonkeyPatch
    silent: set[str] = field(default_factory=set)
    workspace: str = takeover.WORKSPACE
    contacts: list[Target] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.text = YAML.encode()
        for name in HOSTS:
            self.dir(name).mkdir(parents=True)
        self.machine("a")

    def machine(self, name: str) -> None:
        self.patch.setenv("RUNBOOK_STATE_DIR", str(self.root / f"machine-{name}"))

    def dir(self, name: str) -> Path:
        return self.root / f"{name}{self.workspace}/{RUN}"

    def connect(self, there: Sequence[Target], claim: Claim) -> Sh:
        self.contacts = list(there)
        return Sh(self.root, {t.name: t for t in there}, claim, self.silent)

    def adopt(self, *names: str, wanted: str = "", workspace: str = "") -> takeover.Adopted:
        words = [f"root@{HOSTS[name]}" for name in names or HOSTS]
        given = workspace or takeover.WORKSPACE
        typed = Typed(tuple(words), {}, given, wanted)
        return takeover.take_over(typed, Ssh(), self.connect, kubeadm.STEPS)  # type: ignore[arg-type]

    def begin(self) -> runs.Run:
        header = {
            "plan_sha256": hashlib.sha256(self.text).hexdigest(),
            "plan_base": str(self.root),
            "snapshot_sha256": "ab" * 32,
            "nodes": list(HOSTS),
        }
        return runs.create(RUN, self.text, header)

    def engine(
        self, run: runs.Run, owner: str, work: Callable[[Journal], object] = lambda _: None, *, knows: bool = True
    ) -> list[int | None]:
        """One engine: its line, its work on the journal, its claim of all hosts with the journal; their answers.

        Where it is refused, it ``knows`` it, or was killed before it could write that down.
        """
        with run.locked() as book:
            book.epoch += 1
            known = replay(book.lines).owners
            book.append("engine", {"owner": owner, "command": "resume"})
            work(book)
            hosts = self.connect(self.everyone(run), Claim(book.epoch, owner, known))
            copies = [Copy(file, 0, data) for file, data in run.files().items()]
            answers = hosts.keep({name: [*copies, Copy(JOURNAL, 0, book.tail(0))] for name in HOSTS})
            if knows and any(result.code == 97 for result in answers.values()):
                book.append("superseded", {"said": "", "adopt": "runbook adopt"})
        return [result.code for result in answers.values()]

    def everyone(self, run: runs.Run) -> list[Target]:
        from runbook import planfile
        from runbook.step import Binding

        plan, _ = planfile.read(self.text, run.plan_path, base=self.root)
        return [Target(plan, Binding(run=RUN), node) for node in plan.nodes]

    def command(self, key: str, *names: str) -> None:
        """A changing command was begun there."""
        for name in names or HOSTS:
            (self.dir(name) / "commands").mkdir(exist_ok=True)
            (self.dir(name) / f"commands/{key}.intent").write_text('{"key": ""}\n')


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Place:
    return Place(tmp_path, monkeypatch)


def reaches(step: str, to: str = "DONE", back: str = "") -> Callable[[Journal], object]:
    """The journal's lines of a run that has reached that step; ``back``: and has then begun to go back."""

    def write(book: Journal) -> None:
        past = replay(book.lines)
        if past.state == "planned":
            book.append("state", {"from": "planned", "to": "outage", "why": ""})
        for name in STEPS[: STEPS.index(step)]:
            if past.steps.get(name) != "DONE":
                book.append("step", {"from": "PENDING", "to": "DONE", "trigger": "proceed", "saw": {}}, step=name)
        book.append("step", {"from": "PENDING", "to": to, "trigger": "proceed", "saw": {}}, step=step)
        if back:
            book.append("state", {"from": "outage", "to": "rolling-back", "why": back})

    return write


@pytest.mark.parametrize("knows", [True, False])
def test_a_forgotten_machine_that_counts_higher_has_no_say(place: Place, knows: bool) -> None:
    """Finding 1: A sleeps in the outage, B goes on past the API servers, A is refused thrice, B's machine dies."""
    a = place.begin()
    assert place.engine(a, "a1", reaches("StopEtcd")) == [0, 0, 0]
    place.machine("b")
    b = place.adopt().run
    assert place.engine(b, "b1", reaches("StartApiServers")) == [0, 0, 0]
    place.machine("a")
    for word in ("a2", "a3", "a4", "a5"):
        assert place.engine(a, word, reaches("StopEtcd", back="asked for"), knows=knows) == [97, 97, 97]
    done = place.adopt()
    assert done.choice.source == "m1"
    assert done.past.steps["StartApiServers"] == "DONE"
    assert not done.past.superseded
    assert done.informed == ("m1", "m2", "m3")
    seen = "lines behind" if knows else "its journal differs from line"
    assert any(text.startswith("this machine: ") and seen in text for text in done.choice.differs)
    assert list(a.path.glob("journal.jsonl.before-*"))
    lines = [json.loads(line) for line in (place.dir("m1") / JOURNAL).read_text().splitlines()]
    assert lines[-1]["event"] == "adopted"
    assert max(line["epoch"] for line in lines) == lines[-1]["epoch"]


def test_the_newest_engines_journal_is_nowhere(place: Place) -> None:
    """Its claim alone is on the hosts, and its commands: what they tell counts, and this machine's refusals do not."""
    a = place.begin()
    place.engine(a, "a1", reaches("StopEtcd"))
    for name in HOSTS:
        (place.dir(name) / "epoch").write_text("3 bb\n")
    place.command("StartApiServers.do.3.90.0", "m1", "m2")
    assert place.engine(a, "a2", reaches("StopEtcd", back="asked for")) == [97, 97, 97]
    done = place.adopt()
    assert done.past.state == "outage", "a rollback that was refused was never begun"
    assert done.past.steps["SwapData"] == "DONE"
    assert done.past.steps["StartApiServers"] == "UNKNOWN"
    assert done.past.begun("StartApiServers"), "so that a rollback asks for consent"
    assert done.past.served
    assert any("claimed by an engine of epoch 3, whose journal is nowhere" in text for text in done.choice.differs)
    assert any(text.startswith("m1, m2: StartApiServers was begun there") for text in done.choice.differs)


def test_a_rollback_that_no_journal_knows_goes_on_as_one(place: Place) -> None:
    a = place.begin()
    place.engine(a, "a1", reaches("StartEtcd"))
    (place.dir("m1") / "epoch").write_text("2 bb\n")
    place.command("StartEtcd.undo.2.99.0", "m1")
    done = place.adopt()
    assert done.past.state == "rolling-back"
    assert any(text.startswith("m1: StartEtcd was begun to be taken back there") for text in done.choice.differs)


def test_a_run_that_was_taken_back_by_a_stale_machine_asks_again(place: Place) -> None:
    """Its journal says rolled back, and knows nothing of the API servers that were started."""
    a = place.begin()

    def over(book: Journal) -> None:
        reaches("StopEtcd", to="UNDONE")(book)
        book.append("state", {"from": "rolling-back", "to": "rolled-back", "why": ""})

    place.engine(a, "a1", over)
    place.command("StartApiServers.do.3.90.0", "m2")
    done = place.adopt()
    assert done.past.state == "stuck"
    assert {done.past.steps[s] for s in ("SwapData", "StartEtcd", "StartApiServers")} == {"UNKNOWN"}
    assert done.past.steps["StopEtcd"] == "UNDONE"


def test_a_barred_command_and_an_absent_node_tell_nothing(place: Place) -> None:
    a = place.begin()

    def absent(book: Journal) -> None:
        reaches("StopEtcd")(book)
        book.append("absent", {"hosts": ["m3"]})

    place.engine(a, "a1", absent)
    place.command("StartApiServers.do.1.90.0", "m3")
    place.command("SwapData.do.1.80.0", "m1")
    (place.dir("m1") / "commands/SwapData.do.1.80.0.intent").write_text('{"void": true}\n')
    done = place.adopt()
    assert done.choice.differs == ()
    assert done.past.steps["StopEtcd"] == "DONE"
    assert "SwapData" not in done.past.steps


def test_whom_most_hosts_accepted_comes_before_whom_one_host_did(place: Place) -> None:
    """B took over while only m3 answered, from its old copy; A went on without m3, on the two others."""
    a = place.begin()
    place.engine(a, "a1", reaches("StopEtcd"))
    place.machine("b")
    place.silent = {"m1", "m2"}
    b = place.adopt("m3")
    assert b.informed == ("m3",)
    assert set(b.silent) == {"m1", "m2"}
    place.engine(b.run, "b1")
    place.machine("a")
    place.silent = {"m3"}
    assert place.engine(a, "a2", reaches("StartApiServers")) == [0, 0, None]
    place.silent = set()
    place.machine("c")
    done = place.adopt()
    assert done.past.steps["StartApiServers"] == "DONE"
    assert any(t.startswith("m3: claimed by an engine of epoch") and "never accepted" in t for t in done.choice.differs)


def test_this_machines_own_journal_goes_on_where_the_copies_are_behind(place: Place) -> None:
    a = place.begin()
    place.engine(a, "a1", reaches("StopEtcd"))
    with a.locked() as book:
        reaches("SwapData")(book)
    done = place.adopt("m2")
    assert done.choice.source == "this machine"
    assert done.past.steps["SwapData"] == "DONE"
    assert done.choice.differs == (f"m1, m2, m3: 1 line behind{lineage.NORMAL}",)


# Who knows of it.


def test_a_host_that_could_be_read_and_not_written_is_named(place: Place) -> None:
    a = place.begin()
    place.engine(a, "a1")
    (place.dir("m2") / "copies.lock").unlink()
    (place.dir("m2") / "copies.lock").mkdir()  # what a full disk does to root, too
    done = place.adopt("m1")
    assert done.informed == ("m1", "m3")
    assert list(done.silent) == ["m2"]
    assert done.silent["m2"]
    said = takeover.claims(done)
    assert said[0].endswith("can change nothing more on m1, m3")
    assert said[1].startswith("on m2 it still can")


def test_where_no_host_took_the_epoch_nothing_is_claimed(place: Place) -> None:
    a = place.begin()
    place.engine(a, "a1")
    done = place.adopt("m1")
    with pytest.raises(Halted, match=f"no host knows that {RUN} was taken over: m1: no space; m2: no answer") as caught:
        takeover.claims(replace(done, informed=(), silent={"m1": "no space", "m2": "no answer"}))
    assert caught.value.next[0].startswith("runbook adopt --host ops@10.0.1.10:2222 ")


# How much, where, and by what login.


def test_a_long_journal_comes_in_pieces(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(adopt, "STRIDE", 1000)
    a = place.begin()
    place.engine(a, "a1", lambda book: [book.append("end", {"said": "é" * 400}, host="m1") for _ in range(9)])
    shutil.rmtree(a.path)
    done = place.adopt("m1")
    assert len([line for line in done.run.lines() if line["event"] == "end"]) == 9
    assert done.choice.differs == ()


def test_an_answer_that_was_cut_is_no_copy(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    a = place.begin()
    place.engine(a, "a1")
    ask = Sh._ask

    def cut(self: Sh, name: str, command: Command) -> Result:
        result = ask(self, name, command)
        long = command.words()[2] == adopt.PIECE and self._root(name).name == "m1"
        return replace(result, out=result.out[:50] + "\n[cut here: 9 bytes more]") if long else result

    monkeypatch.setattr(Sh, "_ask", cut)
    hosts = place.connect(place.everyone(a), Claim(0))
    found = adopt.fetch(hosts, dict.fromkeys(HOSTS, f"{place.workspace}/{RUN}"))  # type: ignore[arg-type]
    assert found["m1"] == "plan.yaml could not be read whole: its answer was too long, and cut"
    assert isinstance(found["m2"], Held)


def test_a_run_in_a_workspace_of_its_own_is_found_by_the_lock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = Place(tmp_path, monkeypatch, workspace="/srv/work")
    place.text = YAML.encode() + b"  paths: {workspace: /srv/work}\n"
    a = place.begin()
    place.engine(a, "a1")
    lock = {"run": RUN, "holder": "eve@laptop", "since": "", "dir": f"/srv/work/{RUN}"}
    for name in HOSTS:
        path = place.root / f"{name}{LOCK}"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(lock) + "\n")
    place.machine("b")
    assert place.adopt("m2").informed == ("m1", "m2", "m3")
    for name in HOSTS:
        (place.root / f"{name}{LOCK}").write_text(json.dumps({k: v for k, v in lock.items() if k != "dir"}) + "\n")
    place.machine("c")
    with pytest.raises(Halted, match=f"no host holds a journal of {RUN}: no directory of it was found") as caught:
        place.adopt("m2")
    assert not any("rm " in command for command in caught.value.next)
    assert place.adopt("m2", workspace="/srv/work").informed == ("m1", "m2", "m3")


def test_a_lock_that_points_elsewhere_names_no_directory() -> None:
    shown = base64.b64encode(json.dumps({"run": RUN, "dir": "/etc"}).encode()).decode()
    assert adopt._seen(Result(0, f"lock {shown}\n")) == Seen(RUN)


@pytest.mark.parametrize(
    ("word", "user", "host", "port"),
    [
        ("cp1", "root", "cp1", 0),
        ("ops@cp1.internal", "ops", "cp1.internal", 0),
        ("ops@cp1:2222", "ops", "cp1", 2222),
        ("fd00::1", "root", "fd00::1", 0),
        ("ops@[fd00::1]:2222", "ops", "fd00::1", 2222),
    ],
)
def test_a_host_of_the_command_line(word: str, user: str, host: str, port: int) -> None:
    from runbook.hosts.address import Address

    (target,) = takeover.targets_of([word], Ssh())
    assert (target.place.host, target.place.ssh.user, target.place.ssh.port) == (host, user, port)
    assert Address.of(target).port == (port or None), "left to ~/.ssh/config"


@pytest.mark.parametrize("word", ["", "-oProxyCommand=x", "@cp1", "ops@", "cp1:0", "cp1:ssh", "ops@-x", "[fd00::1"])
def test_what_is_no_host(word: str) -> None:
    with pytest.raises(UsageError, match="it should be HOST, USER@HOST or USER@HOST:PORT"):
        takeover.targets_of([word], Ssh())


def test_the_tie_message_logs_in_as_the_plan_does(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    a = place.begin()
    place.engine(a, "a1")
    monkeypatch.setattr(Sh, "keep", lambda self, copies: {name: Result(97, err="taken") for name in copies})
    with pytest.raises(Halted, match=f"another machine has taken {RUN} over: m1, m2, m3 would not") as caught:
        place.adopt()
    assert caught.value.next[0].startswith(f"runbook adopt --host ops@10.0.1.10:2222 --run {RUN} --known-hosts-file ")
    assert caught.value.next[0].endswith(" --jump bastion")


# As it is typed.


@pytest.fixture
def typed(place: Place, monkeypatch: pytest.MonkeyPatch) -> Callable[..., click.testing.Result]:
    def type_(*words: str) -> click.testing.Result:
        return CliRunner().invoke(cli, ["adopt", *words], prog_name="runbook")

    monkeypatch.setattr("runbook.hosts.connect", place.connect)
    return type_


def test_what_adopt_says(place: Place, typed: Callable[..., click.testing.Result]) -> None:
    a = place.begin()
    place.engine(a, "a1", reaches("StopEtcd"))
    place.machine("b")
    place.silent = {"m3"}
    done = typed("--host", "10.0.1.10", "--host", "10.0.1.11", "--output", "json")
    assert done.exit_code == 0
    document = json.loads(done.stdout)
    assert (document["informed"], document["not_informed"]) == (["m1", "m2"], {"m3": "no answer"})
    place.machine("c")
    done = typed("--host", "ops@10.0.1.10:2222", "--jump", "other")
    assert done.exit_code == 0
    assert "does not know yet: m3 (no answer)" in done.stdout
    assert "can change nothing more on m1, m2\non m3 it still can" in done.stdout
    assert place.contacts[0].place.ssh.jump == "other", "from now on"
    assert "jump: other" in (runs.state_dir() / "runs" / RUN / SETTINGS).read_text()


def test_adopt_that_reaches_no_host_in_the_end_is_no_success(
    place: Place, typed: Callable[..., click.testing.Result], monkeypatch: pytest.MonkeyPatch
) -> None:
    a = place.begin()
    place.engine(a, "a1")
    monkeypatch.setattr(Sh, "keep", lambda self, copies: {name: Result(1, err="disk full") for name in copies})
    done = typed("--host", "10.0.1.10")
    assert done.exit_code == 4
    assert f"no host knows that {RUN} was taken over: m1: disk full; m2: disk full; m3: disk full" in done.stderr
    assert "can change nothing more" not in done.stdout + done.stderr


def test_what_to_type_next_has_all_that_was_typed(
    place: Place, typed: Callable[..., click.testing.Result], tmp_path: Path
) -> None:
    """At three in the morning nobody looks up the key's place again."""
    hosts = ("--host", "ops@10.0.1.10:2222", "--host", "10.0.1.11", "--identity-file", str(tmp_path / "my key"))
    given = (*hosts, "--known-hosts-file", str(tmp_path / "known"), "--jump", "bastion", "--workspace", "/srv/w")
    again = shlex.join(("runbook", "adopt", *given))

    def next_(*more: str, code: int = 2) -> list[str]:
        done = typed(*given, *more)
        assert done.exit_code == code, done.output
        return [" ".join(line.split()) for line in done.stderr.partition("Type next:")[2].splitlines()]

    place.silent = set(HOSTS)
    assert next_(code=4) == [f"{again} # once one of them answers"]
    place.silent = set()
    for run in (one := RUN, two := RUN.replace("0001", "0002")):
        (tmp_path / f"m1/srv/w/{run}").mkdir(parents=True)
        (tmp_path / f"m1/srv/w/{run}/journal.jsonl").touch()
    assert next_() == [f"{again} --run {one}", f"{again} --run {two}"]
    elsewhere = again.replace("/srv/w", f"DIR --run {RUN}9")
    assert next_("--run", f"{RUN}9")[0] == f"{elsewhere} # DIR: its plan's spec.paths.workspace"
    lost = next_("--run", RUN, code=4)
    assert lost[0].startswith(f"{again} --run {RUN} --host HOST # ")
    assert lost[1].startswith(f"{again.replace('/srv/w', 'DIR')} --run {RUN} # ")
    assert "…" not in "".join(lost)


@pytest.mark.parametrize("name", ["..", ".", "../../etc", "x", "prod-20260409t140000z-0001/..", "$(id)"])
def test_a_host_names_no_directory_of_this_machine(name: str) -> None:
    """A run's id becomes a directory here; what is none is not taken over."""

    def b64(text: str) -> str:
        return base64.b64encode(text.encode()).decode()

    lock = json.dumps({"run": name, "dir": f"/w/{name}"})
    seen = adopt._seen(Result(0, f"lock {b64(lock)}\nrun {b64(f'/w/{name}')}\nrun {b64(f'/w/{RUN}')}\n"))
    assert isinstance(seen, adopt.Seen)
    assert (seen.lock, seen.dirs) == ("", (f"/w/{RUN}",))
