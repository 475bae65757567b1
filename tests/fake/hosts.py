"""The transport's fake: detached commands that outlive their engine, flock, epochs, and hosts that fall silent."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from runbook.step import Action, Command, Result, Target, Upload
from runbook.transport import LOCK, Witness
from tests.fake.files import File
from tests.fake.shell import Step
from tests.fake.world import FakeHost, World


class EngineKilled(BaseException):
    """SIGKILL: no handler of the engine may catch it."""


class Fuse:
    """Counts the moments at which something may go wrong, and makes it go wrong at one of them.

    ``kind``: ``engine`` kills the engine (its detached commands go on), ``power`` cuts the power of the host that is
    about to act, ``silent`` makes that host unreachable (its command goes on).
    """

    def __init__(self, at: int = -1, kind: str = "engine") -> None:
        self.at, self.kind, self.count = at, kind, 0

    def burn(self, host: FakeHost | None = None) -> bool:
        """One moment; true where the host is lost now."""
        self.count += 1
        if self.count - 1 != self.at:
            return False
        if self.kind == "engine":
            raise EngineKilled
        return host is not None


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
        self.host.drop(upload.dest)
        self.host.rename(part, upload.dest)
        return 0

    def step(self) -> None:
        """One moment of its life."""
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
        self.jobs: dict[str, Job] = world.__dict__.setdefault("jobs", {})

    def ask(self, asks: Mapping[str, Sequence[Command]]) -> dict[str, tuple[Result, ...]]:
        """Read-only: what is asked may change no file."""
        answers = {}
        for name, commands in asks.items():
            host = self.world.hosts[name]
            self._others_go_on(name)
            answers[name] = tuple(self._ask(host, c) if host.reachable else LOST for c in commands)
        return answers

    def _ask(self, host: FakeHost, command: Command) -> Result:
        before = dict(host.files)
        job = Job(host, command, "")
        while not job.over:
            job.step()
        if before != host.files:
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
            if not host.reachable:
                results[name] = LOST
                continue
            while name in self.jobs:
                self._others_go_on(name)
            results[name] = Result(0 if self._claim(host) else 97)
        return results

    def _claim(self, host: FakeHost) -> bool:
        run_dir = self.targets[host.name].run_dir
        if run_dir not in host.dirs:
            return True
        newest = int(host.read(f"{run_dir}/epoch") or 0)
        if newest > self.epoch:
            return False
        host.files[f"{run_dir}/epoch"] = File(str(self.epoch), synced=True)
        return True

    def act(self, actions: Mapping[str, Sequence[Action]], key: str, witness: Witness) -> dict[str, Result]:
        """All hosts go on in turn, a moment each, so that a crash leaves each of them somewhere else."""
        todo = {name: list(enumerate(list_)) for name, list_ in actions.items()}
        results = {name: Result(0) for name in actions}
        current: dict[str, Job] = {}
        while todo or current:
            for name in list(actions):
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
        refusal = LOST if not host.reachable else self._refusal(host, action)
        if refusal:
            results[name] = refusal
            todo.pop(name, None)
            return
        witness.begins(name, key, action)
        current[name] = Job(host, action, key)
        if not (isinstance(action, Command) and action.bare):
            self.jobs[name] = current[name]

    def _refusal(self, host: FakeHost, action: Action) -> Result | None:
        if isinstance(action, Command) and action.bare:
            return None
        target = self.targets[host.name]
        lock = host.read(LOCK)
        if target.run_dir not in host.dirs:
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
            todo.pop(name, None)
            results[name] = LOST
            if self.fuse.kind == "power":
                self.jobs.pop(name, None)
                job.host.reboot()
                self.world.check(job.host)
            else:
                job.host.reachable = False
            return
        job.step()
        if not job.over:
            return
        del current[name]
        self.jobs.pop(name, None)
        result = job.result()
        witness.ended(name, job.key, job.action, result)
        optional = isinstance(job.action, Command) and job.action.optional
        if not result.ok and not optional:
            results[name] = result
            todo.pop(name, None)

    def close(self) -> None:
        """Nothing to drop."""
