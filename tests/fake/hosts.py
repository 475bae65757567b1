"""The transport's fake: detached commands that outlive their engine, flock, epochs, and hosts that fall silent."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence

from runbook.step import Action, Command, Result, Target, Upload
from runbook.transport import LOCK, Copy, Witness
from tests.fake.machine import BOOT_ID
from tests.fake.shell import Step
from tests.fake.world import FakeHost, World


class EngineKilled(BaseException):
    """SIGKILL: no handler of the engine may catch it."""


class Fuse:
    """Counts the moments at which something may go wrong, and makes it go wrong at one of them.

    ``kind``: ``engine`` kills the engine (its detached commands go on), ``laptop`` takes its machine with it,
    ``silent`` makes the host that is about to act
    or to answer unreachable (its command goes on). Three cut that host's power: ``power`` tears what was not synced,
    ``blackout`` also takes back every change of names that was not made durable, ``brownout`` does so on some of its
    file systems only. ``sleep`` lets ``meanwhile`` happen and the engine go on afterwards.
    ``seed``: the hosts go on at uneven paces; without it, in step.
    """

    def __init__(
        self, at: int = -1, kind: str = "engine", *, seed: int = -1, meanwhile: Callable[[], object] = lambda: None
    ) -> None:
        self.at, self.kind, self.count, self.meanwhile = at, kind, 0, meanwhile
        self.chance = random.Random(seed) if seed >= 0 else None  # noqa: S311 - a schedule, nothing secret

    def burn(self, host: FakeHost | None = None) -> bool:
        """One moment; true where the host is lost now."""
        self.count += 1
        if self.count - 1 != self.at:
            return False
        if self.kind in ("engine", "laptop"):
            raise EngineKilled
        if self.kind == "sleep":
            self.meanwhile()
            return False
        return host is not None

    def lags(self) -> bool:
        """Whether a host does nothing in this turn."""
        return self.chance is not None and self.chance.random() < 0.6

    def forgets(self, mount: str) -> bool:
        """Whether that file system loses, at a power cut, the changes of names that were not made durable."""
        return self.kind == "blackout" or (self.kind == "brownout" and bool((self.at + len(mount)) % 2))


class Job:
    """One detached command on a host."""

    def __init__(self, host: FakeHost, action: Action, key: str) -> None:
        self.host, self.action, self.key = host, action, key
        self.out: list[str] = []
        self.err: list[str] = []
        self.code: int | None = None
        self.over = False
        self.steps = self._steps()

    def _steps(self) -> Step:
        if isinstance(self.action, Upload):
            return (yield from self._receive(self.action))
        return (yield from self.host.program(list(self.action.words()), self.out, self.err))

    def _receive(self, upload: Upload) -> Step:
        text = upload.content.decode() if upload.content is not None else f"snapshot {upload.source}"
        self.host.world.sums[text] = upload.sha256
        part = f"{upload.dest}.part"
        self.host.put(part, text[:3], synced=False)
        yield
        self.host.put(part, text, synced=True)
        yield
        self.host.rename(part, upload.dest)
        self.host.sync(upload.dest)
        yield
        noted: list[str] = []
        yield from self.host.program(["cat", "--", BOOT_ID], noted, self.err)
        yield from self.host.program(["stat", "-c", "%i %s %y %z", "--", upload.dest], noted, self.err)
        said = " ".join(text.strip() for text in noted)
        self.host.put(f"{upload.dest}.proven", f"{upload.sha256} {said}\n", synced=False)
        return 0

    def step(self) -> None:
        """One moment of its life."""
        if self.over:
            return
        try:
            next(self.steps)
        except StopIteration as end:
            self.code, self.over = end.value, True
        if self.key:
            self.host.world.check(self.host)

    def result(self) -> Result:
        return Result(self.code, "".join(self.out), "".join(self.err))


LOST = Result(None, err="no answer: the connection was lost")


class FakeHosts:
    """One engine's connections. The jobs live in ``world.jobs``: they outlive it."""

    def __init__(self, world: World, targets: Sequence[Target], epoch: int, fuse: Fuse) -> None:
        self.world, self.epoch, self.fuse = world, epoch, fuse
        self.targets = {n.name: n for n in targets}
        self.jobs: dict[str, Job] = world.jobs

    def ask(self, asks: Mapping[str, Sequence[Command]]) -> dict[str, tuple[Result, ...]]:
        """Read-only: what is asked may change no file."""
        answers = {}
        for name, commands in asks.items():
            host = self.world.hosts[name]
            self._others_go_on(name)
            if host.reachable and self.fuse.burn(host):
                self._lose(host)
                answers[name] = (LOST,) * len(commands)
                continue
            answers[name] = tuple(self._ask(host, c) if host.reachable else LOST for c in commands)
        return answers

    def _ask(self, host: FakeHost, command: Command) -> Result:
        before = host.version
        job = Job(host, command, "")
        while not job.over:
            job.step()
        if before != host.version:
            self.world.violation(f"{host.name}: a question changed files: {command.argv}")
        return job.result()

    def _others_go_on(self, name: str) -> None:
        """What an earlier engine left running goes on, a moment for each thing that happens."""
        job = self.jobs.get(name)
        if job:
            job.step()
            if job.over:
                del self.jobs[name]

    def settle(self, hosts: Sequence[str], wait: float) -> dict[str, Result]:
        """Wait for what still runs, then claim the run for this epoch."""
        results = {}
        for name in hosts:
            host = self.world.hosts[name]
            if host.reachable and self.fuse.burn(host):
                self._lose(host)
                results[name] = LOST
                continue
            if not host.reachable:
                results[name] = LOST
                continue
            while name in self.jobs:
                self._others_go_on(name)
            there = host.is_dir(self.targets[name].run_dir)
            begun = "\n".join(self.world.begun.get(self.targets[name].run_dir, {}).get(name, ()))
            claimed = Result(0, begun) if self._claim(host) else Result(97, err="a newer engine has the run")
            results[name] = claimed if there else Result(95, err="the run's directory is gone")
        return results

    def keep(self, copies: Mapping[str, Sequence[Copy]]) -> dict[str, Result]:
        """Write them, a moment each host; a crash leaves the last piece torn."""
        results = {}
        for name, pieces in copies.items():
            host = self.world.hosts[name]
            if host.reachable and self.fuse.burn(host):
                self._lose(host)
            results[name] = self._keep(host, pieces) if host.reachable else LOST
        return results

    def _keep(self, host: FakeHost, pieces: Sequence[Copy]) -> Result:
        run_dir = self.targets[host.name].run_dir
        if not host.is_dir(run_dir):
            return Result(95)
        if int(host.read(f"{run_dir}/epoch") or 0) > self.epoch:
            return Result(97)
        for piece in pieces:
            path = f"{run_dir}/{piece.name}"
            held = (host.read(path) or "") if piece.offset else ""
            if len(held.encode()) != piece.offset:
                return Result(94)
            host.put(path, held + piece.data.decode())
            host.sync(path)
        return Result(0)

    def _claim(self, host: FakeHost) -> bool:
        run_dir = self.targets[host.name].run_dir
        if not host.is_dir(run_dir):
            return True
        newest = int(host.read(f"{run_dir}/epoch") or 0)
        if newest > self.epoch:
            return False
        if newest < self.epoch:
            host.put(f"{run_dir}/epoch", str(self.epoch))
            host.sync(f"{run_dir}/epoch")
        return True

    def act(self, actions: Mapping[str, Sequence[Action]], key: str, witness: Witness) -> dict[str, Result]:
        """All hosts go on in turn, a moment each, so that a crash leaves each of them somewhere else."""
        todo = {name: list(enumerate(list_)) for name, list_ in actions.items()}
        results = {name: Result(0) for name in actions}
        current: dict[str, Job] = {}
        while todo or current:
            for name in list(actions):
                if self.fuse.lags():
                    continue
                if name in current:
                    self._moment(name, current, todo, results, witness)
                elif todo.get(name):
                    self._begin(name, f"{key}.{todo[name][0][0]}", current, todo, results, witness)
                else:
                    todo.pop(name, None)
        return results

    def _begin(
        self,
        name: str,
        key: str,
        current: dict[str, Job],
        todo: dict[str, list[tuple[int, Action]]],
        results: dict[str, Result],
        witness: Witness,
    ) -> None:
        host, action = self.world.hosts[name], todo[name].pop(0)[1]
        witness.begins(name, key, action)
        refusal = LOST if not host.reachable else self._refusal(host, action)
        if refusal:
            self._ended(Job(host, action, key), refusal, todo, results, witness)
            return
        current[name] = Job(host, action, key)
        if not (isinstance(action, Command) and action.bare):
            self.world.begun.setdefault(self.targets[name].run_dir, {}).setdefault(name, []).append(key)
            self.jobs[name] = current[name]

    def _refusal(self, host: FakeHost, action: Action) -> Result | None:
        if isinstance(action, Command) and action.bare:
            return None
        target = self.targets[host.name]
        lock = host.read(LOCK)
        if not host.is_dir(target.run_dir):
            return Result(95, err="the run's directory is gone")
        if host.name in self.jobs:
            return Result(96, err="another command still runs")
        if not self._claim(host):
            return Result(97, err="a newer engine has the run")
        if lock is not None and f'"run": "{target.bound.run}"' not in lock:
            return Result(98, err="another run holds the lock")
        return None

    def _moment(
        self,
        name: str,
        current: dict[str, Job],
        todo: dict[str, list[tuple[int, Action]]],
        results: dict[str, Result],
        witness: Witness,
    ) -> None:
        job = current[name]
        if self.fuse.burn(job.host):
            del current[name]
            self._lose(job.host)
            self._ended(job, LOST, todo, results, witness)
            return
        job.step()
        if not job.over:
            return
        del current[name]
        if self.jobs.get(name) is job:
            del self.jobs[name]
        self._ended(job, job.result(), todo, results, witness)

    def _ended(
        self,
        job: Job,
        result: Result,
        todo: dict[str, list[tuple[int, Action]]],
        results: dict[str, Result],
        witness: Witness,
    ) -> None:
        name = job.host.name
        witness.ended(name, job.key, job.action, result)
        optional = isinstance(job.action, Command) and job.action.optional
        if not result.ok and not optional:  # an optional one ends no sequence, not even where nobody saw its end
            results[name] = result
            todo.pop(name, None)

    def _lose(self, host: FakeHost) -> None:
        if self.fuse.kind == "silent":
            host.reachable = False
            return
        self.jobs.pop(host.name, None)
        host.reboot(self.fuse.forgets)
        self.world.check(host)

    def close(self) -> None:
        """Nothing to drop."""
