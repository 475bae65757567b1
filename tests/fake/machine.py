"""One host in memory: files, a kubelet with its pods, and the programs that the steps call.

The kubelet is as hasty as it may be (a manifest that appears is started at once) and as slow as it may be (a manifest
that goes is acted on only when somebody waits). What etcd holds is told by the text of its files.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable
from typing import TYPE_CHECKING

from runbook.checks import locks
from runbook.plan import Node
from runbook.procedures import scripts
from runbook.procedures.words import STATIC_PODS
from tests.fake.files import TORN, Files, Program
from tests.fake.shell import Shell, Step

if TYPE_CHECKING:
    from tests.fake.world import World

OWNER = "etcd-user"
MANIFEST = "kind: Pod # {name}, whole"
SNAPSHOT_REVISION = 100
BOOT_ID = "/proc/sys/kernel/random/boot_id"
PORTS = {"etcd": (2379, 2380, 2381), "kube-apiserver": (6443,)}


class FakeHost(Files):
    """One control-plane host."""

    def __init__(self, world: World, node: Node) -> None:
        paths = node.paths
        super().__init__(place for place in (paths.data_dir, paths.wal_dir) if place)
        self.world, self.node, self.name = world, node, node.name
        self.boots = 0
        self.containers: set[str] = set()
        self.pods: set[str] = set()
        """What the kubelet wants: a container that crashes is not there, and may be again at any moment."""
        self.reachable = True
        self.kubelet_restarts = 0
        self.ran: set[str] = set()
        self.checked = -1
        self._lineage = (-1, "")
        self.own_programs: dict[str, Program] = {
            name.removeprefix("_run_"): getattr(self, name) for name in dir(self) if name.startswith("_run_")
        }
        self.member = f"{paths.data_dir}/member"
        self.make_dirs("/var/lib")
        for name in STATIC_PODS:
            self.put(f"{paths.manifests}/{name}", MANIFEST.format(name=name))
        for place in self.mounts:
            self.make_dirs(place)
        self.make_dirs(f"{self.member}/snap", OWNER)
        self.make_dirs(self.wal(), OWNER)
        self.put(f"{self.member}/snap/db", f"old {node.name}", OWNER)
        for number in (0, 1):
            self.put(f"{self.wal()}/{number}.wal", f"old {node.name}", OWNER)
        for path in (self.member, self.wal()):
            self.own(path, OWNER)
        self.settled()
        self.reconcile()

    def wal(self) -> str:
        """Where the living WAL is."""
        return self.node.paths.wal_dir or f"{self.member}/wal"

    # Kubelet and etcd.

    def manifests(self) -> list[str]:
        """What the kubelet reads: every file that is not a dot-file."""
        found = self.children(self.node.paths.manifests)
        return [p for p in found if "/." not in p]

    def reconcile(self) -> None:
        """Start what has a manifest and does not run."""
        for path in self.manifests():
            name = path.rpartition("/")[2]
            if self.read(path) not in (MANIFEST.format(name=name), self.world.edited.get((self.name, name))):
                self.world.violation(f"{self.name}: the kubelet read half a manifest, {name}")
            container = name.removesuffix(".yaml")
            self.pods.add(container)
            if container not in self.containers and not self.world.crashes(self, container):
                self.containers.add(container)
                self.version += 1
                if container == "etcd":
                    self.world.etcd_starts(self)

    def stop_unwanted(self) -> None:
        """Stop what has no manifest any more."""
        wanted = {p.rpartition("/")[2].removesuffix(".yaml") for p in self.manifests()}
        if not self.pods <= wanted:
            self.pods &= wanted
            self.containers &= wanted
            self.version += 1

    def reboot(self, forgets: Callable[[str], bool] = lambda _: False) -> None:
        """A power cut, and up again."""
        self.power_cut(forgets)
        self.boots += 1
        self.containers, self.pods = set(), set()
        self.reconcile()

    def read(self, path: str) -> str | None:
        """The content of a file, or of the one that says which life of the host this is."""
        return f"boot-{self.boots}\n" if path == BOOT_ID else super().read(path)

    def lineage(self) -> str:
        """What data is in place: its text, or what is wrong with it."""
        if self._lineage[0] != self.version:
            self._lineage = (self.version, self._look_at_data())
        return self._lineage[1]

    def _look_at_data(self) -> str:
        db = f"{self.member}/snap/db"
        text = self.read(db)
        wals = [p for p in self.children(self.wal()) if p.endswith(".wal")]
        if text is None or not wals:
            return "nothing"
        contents = {self.read(p) for p in wals}
        if contents != {text} or TORN in text:
            return f"broken: db {text!r}, wal {sorted(map(str, contents))}"
        owners = {self.nodes[p].owner for p in (self.member, f"{self.member}/snap", db, *wals)}
        return text if owners == {OWNER} else f"wrong owner: {owners}"

    # What the data's moves must never meet.

    def will_move(self, source: str, dest: str) -> None:
        """Living data moves only while nobody runs on any host."""
        if self._living(source) or self._living(dest):
            self._nobody_runs(f"{source} moved to {dest}")

    def will_drop(self, path: str) -> None:
        """The same for its removal, which nothing of a run ever does."""
        if self._living(path):
            self.world.violation(f"{self.name}: living data removed: {path}")

    def _living(self, path: str) -> bool:
        wal = self.node.paths.wal_dir
        in_wal = bool(wal) and path.startswith(wal + "/") and path[len(wal) + 1] != "."
        return in_wal or path == self.member or path.startswith(self.member + "/")

    def _nobody_runs(self, what: str) -> None:
        for host in self.world.hosts.values():
            if host is not self and {self.name, host.name} & self.world.absent:
                continue  # an absent node is no part of the others' cluster, neither before nor when it joins
            wanted = sorted({"etcd", "kube-apiserver"} & host.pods)
            if wanted:
                runs = "running" if host.containers.issuperset(wanted) else "wanted"
                self.world.violation(f"{self.name}: data moved under a {runs} {wanted} of {host.name}: {what}")

    # Programs.

    def program(self, argv: list[str], out: list[str], err: list[str]) -> Step:
        """Interpret one command's real argv; a generator."""
        if argv[0] == "nice":
            argv = argv[3:]
        if argv[0] == "ionice":
            argv = argv[5:]
        run = self.programs.get(argv[0]) or self.own_programs.get(argv[0])
        if run is None:
            raise AssertionError(f"the fake does not know {argv}")
        return run(argv, out, err)

    def _run_sh(self, argv: list[str], out: list[str], err: list[str]) -> Step:
        text, args = argv[2], argv[4:]
        native = {
            scripts.AWAIT: self._await,
            scripts.LEADER_LAST: self._pace,
            scripts.SNAPSHOT_REVISION: self._at_revision,
            scripts.REVISION_NOW: self._now,
            scripts.COMPACTED: self._compacted,
            locks.READ: self._who_holds_it,
            scripts.LAST_WORDS: self._last_words,
        }
        if text in native:
            return (yield from native[text](args, out, err))
        shell = Shell(text, list(args), self)
        code = yield from shell.run()
        out += shell.out
        err += shell.err
        return code

    def _who_holds_it(self, args: list[str], out: list[str], err: list[str]) -> Step:
        yield from ()
        lock = self.read(args[0])
        if lock is not None:
            out.append(f"now 1775743260\nlife 1775743200.5\nlock {lock}")
        return 0

    def _last_words(self, args: list[str], out: list[str], err: list[str]) -> Step:
        yield from ()
        out.append(self.world.last_words.get((self.name, args[0]), ""))
        return 0

    def _pace(self, args: list[str], out: list[str], err: list[str]) -> Step:
        yield
        run_dir = args[0]
        if not run_dir:
            return 0
        if self.world.answers(self):
            return (yield from self.program(["touch", "--", f"{run_dir}/etcd-answered"], out, err))
        return 4 if self.exists(f"{run_dir}/living.json") else 0

    def _await(self, args: list[str], out: list[str], err: list[str]) -> Step:
        for _ in range(40):
            yield
            up = "etcd" if "kubectl" not in args else "kube-apiserver"
            if not self.exists(args[0]) or (up in self.containers and self.world.answers(self)):
                return 0
        return 1

    def _at_revision(self, args: list[str], out: list[str], err: list[str]) -> Step:
        figures = json.loads(self.read(args[0]) or "{}")
        revision = figures["revision"] + int(args[1])
        out.append(f"{revision}\n")
        return (yield from self.program([*args[2:], "--rev", str(revision)], out, err))

    def _now(self, args: list[str], out: list[str], err: list[str]) -> Step:
        figures = json.loads(self.read(args[0]) or "{}")
        out.append(f"{figures['revision'] + int(args[1])}\n")
        return (yield from self.program([*args[2:], "endpoint", "hashkv", "-w", "json"], out, err))

    def _compacted(self, args: list[str], out: list[str], err: list[str]) -> Step:
        yield from ()
        err.append("Error: etcdserver: mvcc: required revision has been compacted\n")
        return 1

    def _run_echo(self, argv: list[str], out: list[str], err: list[str]) -> Step:
        yield from ()
        out.append(" ".join(argv[1:]) + "\n")
        return 0

    def _run_printf(self, argv: list[str], out: list[str], err: list[str]) -> Step:
        yield from ()
        out.append(argv[1].replace("\\n", "\n") % tuple(argv[2:]))
        return 0

    def _run_date(self, argv: list[str], out: list[str], err: list[str]) -> Step:
        yield from ()
        out.append(f"{int(self.world.now)}\n" if argv[1] == "+%s" else "2026-04-09T14:00:00Z\n")
        return 0

    def _run_sleep(self, argv: list[str], out: list[str], err: list[str]) -> Step:
        yield
        self.world.now += float(argv[1])
        self.stop_unwanted()
        return 0

    def _run_chmod(self, argv: list[str], out: list[str], err: list[str]) -> Step:
        yield
        return 0 if self.exists(argv[-1]) else 1

    def _run_command(self, argv: list[str], out: list[str], err: list[str]) -> Step:
        yield from ()
        return 1  # no SELinux here

    def _run_openssl(self, argv: list[str], out: list[str], err: list[str]) -> Step:
        yield from ()
        text = self.read(argv[-1])
        if text is None:
            return 1
        out.append(f"{self.world.sha(text)} *{argv[-1]}\n")
        return 0

    def _run_sha256sum(self, argv: list[str], out: list[str], err: list[str]) -> Step:
        yield from ()
        err.append(f"sha256sum: {argv[-1]}: No such file or directory\n")
        return 1

    def _run_systemctl(self, argv: list[str], out: list[str], err: list[str]) -> Step:
        yield
        self.kubelet_restarts += argv[1] == "restart"
        out.append("active\n")
        return 0

    def _run_ss(self, argv: list[str], out: list[str], err: list[str]) -> Step:
        """``ss -Hltn [sport = :PORT]``."""
        yield from ()
        wanted = argv[-1] if ":" in argv[-1] else ""
        for container in self.containers:
            ports = (port for port in PORTS.get(container, ()) if wanted in ("", f":{port}"))
            out += [f"LISTEN 0 4096 *:{port} *:*\n" for port in ports]
        return 0

    def _run_crictl(self, argv: list[str], out: list[str], err: list[str]) -> Step:
        """``ps`` and ``pods``, as ids or JSON; ``stop`` and ``stopp``, where the kubelet does not."""
        yield from ()
        if "exited" in argv or argv[1] == "rm":
            return 0  # containers leave nothing here
        if argv[1] in ("stop", "stopp"):
            yield
            self.containers.discard(argv[-1].partition("-")[2])
            if argv[1] == "stopp":
                self.pods.discard(argv[-1].partition("-")[2])
            return 0
        found = self.containers if argv[1] == "ps" else self.pods
        labels = dict(word.partition("=")[::2] for before, word in itertools.pairwise(argv) if before == "--label")
        name = labels.get("component") or labels.get("io.kubernetes.container.name")
        shown = sorted(c for c in found if name in (None, c))
        if "-q" in argv:
            out += [f"id-{name}\n" for name in shown]
        elif argv[1] == "ps":
            out.append(json.dumps({"containers": [_container(name) for name in shown]}) + "\n")
        else:
            out.append(json.dumps({"items": [_sandbox(name) for name in shown]}) + "\n")
        return 0

    def _run_kubectl(self, argv: list[str], out: list[str], err: list[str]) -> Step:
        yield from ()
        if "kube-apiserver" in self.containers and self.world.answers(self):
            out.append("ok\n")
            return 0
        err.append("The connection to the server was refused\n")
        return 1

    def _run_etcdutl(self, argv: list[str], out: list[str], err: list[str]) -> Step:
        if argv[1:3] == ["snapshot", "status"]:
            yield
            text = self.read(argv[3])
            if text is None or not text.startswith("snapshot"):
                return 1
            out.append(json.dumps({"hash": 1, "revision": SNAPSHOT_REVISION, "totalKey": 7, "totalSize": 20480}))
            return 0
        if self.world.etcdutl_fails == self.name:
            err.append("Error: no space left on device\n")
            return 1
        options = dict(zip(argv[4::2], argv[5::2], strict=False))
        data, token = options["--data-dir"], options["--initial-cluster-token"]
        wal = options.get("--wal-dir", f"{data}/member/wal")
        if self.below(data) or ("--wal-dir" in options and self.below(wal)):
            err.append("Error: data-dir not empty or could not be read\n")
            return 1
        for text in ("half", f"restored {token}"):
            for path in (f"{data}/member/snap/db", f"{wal}/0.wal"):
                yield
                self.put(path, text, synced=False)
        return 0

    def _run_etcdctl(self, argv: list[str], out: list[str], err: list[str]) -> Step:
        yield from ()
        words = " ".join(argv)
        if not self.world.answers(self):
            err.append("Error: context deadline exceeded\n")
            return 1
        answer = next(make for key, make in self.world.etcdctl.items() if key in words)
        out.append(answer(self, argv))
        return 0


def _container(name: str) -> dict[str, object]:
    labels = {
        "io.kubernetes.container.name": name,
        "io.kubernetes.pod.name": f"{name}-m",
        "io.kubernetes.pod.namespace": "kube-system",
        "io.kubernetes.pod.uid": "u",
    }
    return {
        "id": f"id-{name}",
        "podSandboxId": "sandbox",
        "metadata": {"name": name, "attempt": 0},
        "image": {"image": "image"},
        "imageRef": "image",
        "state": "CONTAINER_RUNNING",
        "createdAt": "1",
        "labels": labels,
        "annotations": {},
    }


def _sandbox(name: str) -> dict[str, object]:
    return {
        "id": f"box-{name}",
        "metadata": {"name": f"{name}-m", "uid": "u", "namespace": "kube-system", "attempt": 0},
        "state": "SANDBOX_READY",
        "createdAt": "1",
        "labels": {"component": name, "tier": "control-plane"},
        "annotations": {},
        "runtimeHandler": "",
    }
