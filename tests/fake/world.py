"""Three hosts in memory: files, a kubelet, etcd, and what must never be true of them.

The kubelet is as hasty as it may be (a manifest that appears is started at once) and as slow as it may be (a manifest
that goes is acted on only when somebody waits). What etcd holds is told by the text of its files.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

from runbook import parse
from runbook.checks import locks
from runbook.plan import Node, Plan
from runbook.procedures import scripts
from runbook.procedures.words import STATIC_PODS
from tests.fake.files import TORN, Files, Program
from tests.fake.shell import Shell, Step

Answer = Callable[["FakeHost", list[str]], str]

OWNER = "etcd-user"
MANIFEST = "kind: Pod # {name}, whole"
MANIFESTS = {MANIFEST.format(name=name) for name in STATIC_PODS}
SNAPSHOT_REVISION = 100
PORTS = {"etcd": (2379, 2380, 2381), "kube-apiserver": (6443,)}


class FakeHost(Files):
    """One control-plane host."""

    def __init__(self, world: World, node: Node) -> None:
        paths = node.paths
        super().__init__(place for place in (paths.data_dir, paths.wal_dir) if place)
        self.world, self.node, self.name = world, node, node.name
        self.containers: set[str] = set()
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
            if container not in self.containers:
                self.containers.add(container)
                self.version += 1
                if container == "etcd":
                    self.world.etcd_starts(self)

    def stop_unwanted(self) -> None:
        """Stop what has no manifest any more."""
        wanted = {p.rpartition("/")[2].removesuffix(".yaml") for p in self.manifests()}
        if not self.containers <= wanted:
            self.containers &= wanted
            self.version += 1

    def reboot(self, forgets: Callable[[str], bool] = lambda _: False) -> None:
        """A power cut, and up again."""
        self.power_cut(forgets)
        self.containers = set()
        self.reconcile()

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
            serving = sorted({"etcd", "kube-apiserver"} & host.containers)
            if serving:
                self.world.violation(f"{self.name}: data moved under a running {serving} of {host.name}: {what}")

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
            scripts.GONE: self._gone,
            scripts.AWAIT_ETCD: self._await_etcd,
            scripts.LEADER_LAST: self._pace,
            scripts.SNAPSHOT_REVISION: self._at_revision,
            scripts.COMPACTED: self._compacted,
            locks.READ: self._who_holds_it,
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

    def _gone(self, args: list[str], out: list[str], err: list[str]) -> Step:
        yield
        self.stop_unwanted()
        yield
        return int(args[0] in self.containers)

    def _pace(self, args: list[str], out: list[str], err: list[str]) -> Step:
        yield
        return 0

    def _await_etcd(self, args: list[str], out: list[str], err: list[str]) -> Step:
        for _ in range(40):
            yield
            if not self.exists(args[0]) or self.world.answers(self):
                return 0
        return 1

    def _at_revision(self, args: list[str], out: list[str], err: list[str]) -> Step:
        figures = json.loads(self.read(args[0]) or "{}")
        revision = figures["revision"] + int(args[1])
        out.append(f"{revision}\n")
        return (yield from self.program([*args[2:], "--rev", str(revision)], out, err))

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
        out.append("2026-04-09T14:00:00Z\n")
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
        yield from ()
        for container in self.containers:
            out += [f"LISTEN 0 4096 *:{port} *:*\n" for port in PORTS.get(container, ())]
        return 0

    def _run_crictl(self, argv: list[str], out: list[str], err: list[str]) -> Step:
        yield from ()
        name = argv[-1].partition("=")[2]
        found = [_container(c) for c in sorted(self.containers) if c == name]
        out.append(json.dumps({"containers": found}))
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


class World:
    """The hosts together."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.violations: list[str] = []
        self.sums: dict[str, str] = {}
        self.hosts: dict[str, FakeHost] = {}
        self.now = 0.0
        self.finishing = False
        self.edited: dict[tuple[str, str], str] = {}
        self.etcdutl_fails = ""
        self.jobs: dict[str, Any] = {}
        self.living_revision = 150
        self.etcdctl: dict[str, Answer] = {
            "member list": self._member_list,
            "endpoint health": lambda host, argv: "healthy",
            "endpoint status": self._endpoint_status,
            "endpoint hashkv": self._hashkv,
            "alarm list": lambda host, argv: json.dumps({"header": self._header(host, host.name)}),
        }
        for node in plan.nodes:
            self.hosts[node.name] = FakeHost(self, node)

    def sha(self, text: str) -> str:
        """A stand-in for the SHA-256 of a text."""
        return self.sums.get(text) or f"{abs(hash(text)):064x}"[-64:]

    def violation(self, what: str) -> None:
        """Something that must never be true."""
        self.violations.append(what)

    # A clock, for the engine's waiting.

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds
        for host in self.hosts.values():
            host.stop_unwanted()

    # etcd.

    def etcd_starts(self, host: FakeHost) -> None:
        """On whole data of the right owner, and only where every host has data of that kind in its place."""
        lineage = host.lineage()
        kind = lineage.split()[0]
        if kind not in ("old", "restored"):
            self.violation(f"{host.name}: etcd started on {lineage}")
        host.ran.add(lineage)
        for other in self.hosts.values():
            if other.lineage().split()[0] != kind:
                self.violation(f"{host.name} starts {lineage}, in place on {other.name} is {other.lineage()}")

    def answers(self, host: FakeHost) -> bool:
        """Its etcd runs, and a majority with it."""
        if "etcd" not in host.containers:
            return False
        kind = host.lineage().split()[0]
        peers = [h for h in self.hosts.values() if "etcd" in h.containers and h.lineage().split()[0] == kind]
        return len(peers) > len(self.hosts) // 2

    def _ids(self, host: FakeHost) -> tuple[int, dict[str, int]]:
        lineage = host.lineage()
        members = {n.name: n.peer_urls for n in self.plan.nodes}
        token = lineage.split()[1] if lineage.startswith("restored") else "the old token"
        ids = parse.member_ids(members, token)
        return parse.cluster_id(ids.values()), ids

    def _header(self, host: FakeHost, name: str) -> dict[str, int]:
        cluster, ids = self._ids(host)
        old = host.lineage().startswith("old")
        revision = self.living_revision if old else SNAPSHOT_REVISION + self.plan.cluster.bump_revision
        return {"cluster_id": cluster, "member_id": ids[name], "revision": revision, "raft_term": 2}

    def _serving(self, host: FakeHost) -> Iterator[Node]:
        return (n for n in self.plan.nodes if "etcd" in self.hosts[n.name].containers)

    def _member_list(self, host: FakeHost, argv: list[str]) -> str:
        _, ids = self._ids(host)
        members = [
            {"ID": ids[n.name], "name": n.name, "peerURLs": list(n.peer_urls), "clientURLs": list(n.client_urls)}
            for n in self.plan.nodes
        ]
        return json.dumps({"header": self._header(host, host.name), "members": members})

    def _endpoint_status(self, host: FakeHost, argv: list[str]) -> str:
        _, ids = self._ids(host)
        found = []
        for node in self._serving(host) if "--cluster" in argv else [host.node]:
            status = {
                "header": self._header(self.hosts[node.name], node.name),
                "version": "3.5.16",
                "dbSize": 20480,
                "leader": min(ids.values()),
                "raftIndex": 8,
                "raftTerm": 2,
            }
            found.append({"Endpoint": node.client_urls[0], "Status": status})
        return json.dumps(found)

    def _hashkv(self, host: FakeHost, argv: list[str]) -> str:
        found = []
        for node in self._serving(host):
            there = self.hosts[node.name]
            text = there.lineage() if there.lineage().startswith("restored") else "old"
            header = self._header(there, node.name)
            hashed = {"header": header, "hash": sum(text.encode()), "compact_revision": header["revision"]}
            found.append({"Endpoint": node.client_urls[0], "HashKV": hashed})
        return json.dumps(found)

    # What must be true at every moment.

    def check(self, host: FakeHost) -> None:
        """Of a host: its old data exists, complete, exactly once; so does all that etcd ran on, and every manifest."""
        if host.checked == host.version:
            return
        host.reconcile()
        host.checked = host.version
        if self.finishing:
            return
        contents = [(p, n.content) for p, n in host.nodes.items() if n.content is not None]
        kept = [p for p, content in contents if content == f"old {host.name}"]
        if len(kept) != 3 or sum(p.endswith("/db") for p in kept) != 1:
            self.violation(f"{host.name}: the old data is {kept}")
        for lineage in host.ran:
            if not any(content == lineage and p.endswith("/db") for p, content in contents):
                self.violation(f"{host.name}: gone is {lineage}, on which etcd ran")
        whole = {content for p, content in contents if p.endswith(".yaml")}
        wanted = MANIFESTS | {text for (name, _), text in self.edited.items() if name == host.name}
        if not whole >= wanted:
            self.violation(f"{host.name}: gone is {wanted - whole}")
