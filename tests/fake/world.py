"""Three hosts in memory: files, a kubelet, etcd, and what must never be true of them.

The kubelet is as hasty as it may be (a manifest that appears is started at once) and as slow as it may be (a manifest
that goes is acted on only when somebody waits). What etcd holds is told by the text of its files.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator

from runbook import parse
from runbook.plan import Node, Plan
from runbook.procedures import scripts
from runbook.procedures.words import STATIC_PODS
from tests.fake.files import TORN, Files
from tests.fake.shell import Shell, Step

Program = Callable[[list[str], list[str], list[str]], Step]
Answer = Callable[["FakeHost", list[str]], str]

OWNER = "etcd-user"
MANIFEST = "kind: Pod # {name}, whole"
MANIFESTS = {MANIFEST.format(name=name) for name in STATIC_PODS}
SNAPSHOT_REVISION = 100
PORTS = {"etcd": (2379, 2380), "kube-apiserver": (6443,)}


class FakeHost(Files):
    """One control-plane host."""

    def __init__(self, world: World, node: Node) -> None:
        super().__init__()
        self.world, self.node, self.name = world, node, node.name
        self.containers: set[str] = set()
        self.reachable = True
        self.kubelet_restarts = 0
        paths = node.paths
        self.make_dirs("/var/lib")
        for name in STATIC_PODS:
            self.put(f"{paths.manifests}/{name}", MANIFEST.format(name=name))
        for place in (paths.data_dir, *([paths.wal_dir] if paths.wal_dir else [])):
            self.make_dirs(place)
        member = f"{paths.data_dir}/member"
        self.make_dirs(f"{member}/snap", OWNER)
        self.dirs[member] = OWNER
        self.put(f"{member}/snap/db", f"old {node.name}", OWNER)
        for number in (0, 1):
            self.put(f"{self.wal(member)}/{number}.wal", f"old {node.name}", OWNER)
        if paths.wal_dir:
            self.dirs[paths.wal_dir] = OWNER
        self.reconcile()

    def wal(self, member: str) -> str:
        """Where the WAL of the member in that place is."""
        return self.node.paths.wal_dir or f"{member}/wal"

    # Kubelet and etcd.

    def reconcile(self) -> None:
        """Start what has a manifest and does not run."""
        for path in self.children(self.node.paths.manifests):
            name = path.rpartition("/")[2]
            if name.startswith("."):
                continue
            if self.read(path) != MANIFEST.format(name=name):
                self.world.violation(f"{self.name}: the kubelet read half a manifest, {name}")
            container = name.removesuffix(".yaml")
            if container not in self.containers:
                self.containers.add(container)
                if container == "etcd":
                    self.world.etcd_starts(self)

    def stop_unwanted(self) -> None:
        """Stop what has no manifest any more."""
        wanted = {p.rpartition("/")[2].removesuffix(".yaml") for p in self.children(self.node.paths.manifests)}
        self.containers &= wanted

    def reboot(self) -> None:
        """A power cut, and up again."""
        self.power_cut()
        self.containers = set()
        self.reconcile()

    def lineage(self) -> str:
        """What data is in place: its text, or what is wrong with it."""
        member = f"{self.node.paths.data_dir}/member"
        db = self.read(f"{member}/snap/db")
        wals = {self.read(p) for p in self.children(self.wal(member)) if p.endswith(".wal")}
        if db is None or not wals:
            return "nothing"
        if wals != {db} or TORN in db:
            return f"broken: db {db!r}, wal {sorted(map(str, wals))}"
        owners = {self.files[f"{member}/snap/db"].owner} | {
            self.files[p].owner for p in self.children(self.wal(member)) if p.endswith(".wal")
        }
        return db if owners == {OWNER} else f"wrong owner: {owners}"

    # Programs.

    def write(self, path: str, text: str) -> None:
        """A redirection."""
        self.put(path, text, synced=False)

    def program(self, argv: list[str], out: list[str], err: list[str]) -> Step:
        """Interpret one command's real argv."""
        argv = _plain(argv)
        moving = argv[0] == "mv" or (argv[0] == "find" and "mv" in argv)
        places = [p + "/" for p in (self.node.paths.data_dir, self.node.paths.wal_dir) if p]
        touched = any((word + "/").startswith(place) for word in argv for place in places)
        serving = {"etcd", "kube-apiserver"} & self.containers
        if moving and touched and serving and "restoring" not in " ".join(argv):
            self.world.violation(f"{self.name}: data moved under a running {sorted(serving)}: {argv}")
        known = self.programs().get(argv[0])
        if known:
            return (yield from known(argv, out, err))
        own: Program | None = getattr(self, "_run_" + {"[": "test"}.get(argv[0], argv[0]), None)
        if own is None:
            raise AssertionError(f"the fake does not know {argv}")
        return (yield from own(argv, out, err))

    def _run_sh(self, argv: list[str], out: list[str], err: list[str]) -> Step:
        text, args = argv[2], argv[4:]
        native = {
            scripts.GONE: self._gone,
            scripts.AWAIT_ETCD: self._await_etcd,
            scripts.SNAPSHOT_REVISION: self._at_revision,
            scripts.COMPACTED: self._compacted,
        }
        if text in native:
            return (yield from native[text](args, out, err))
        shell = Shell(text, list(args), self)
        code = yield from shell.run()
        out += shell.out
        err += shell.err
        return code

    def _gone(self, args: list[str], out: list[str], err: list[str]) -> Step:
        yield
        self.stop_unwanted()
        yield
        return int(args[0] in self.containers)

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
        yield
        err.append("Error: etcdserver: mvcc: required revision has been compacted\n")
        return 1

    def _run_test(self, argv: list[str], out: list[str], err: list[str]) -> Step:
        yield from ()
        words = [w for w in argv[1:] if w != "]"]
        negate = words[0] == "!"
        words = words[negate:]
        if len(words) == 3 and words[1] == "=":
            truth = words[0] == words[2]
        else:
            what, path = words
            truth = {"-e": self.exists(path), "-d": path in self.dirs, "-n": bool(path), "-z": not path}[what]
        return int(truth == negate)

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
        yield
        text = self.read(argv[-1])
        if text is None:
            return 1
        out.append(f"{self.world.sha(text)} *{argv[-1]}\n")
        return 0

    def _run_sha256sum(self, argv: list[str], out: list[str], err: list[str]) -> Step:
        yield
        err.append(f"sha256sum: {argv[-1]}: No such file or directory\n")
        return 1

    def _run_systemctl(self, argv: list[str], out: list[str], err: list[str]) -> Step:
        yield
        self.kubelet_restarts += argv[1] == "restart"
        out.append("active\n")
        return 0

    def _run_ss(self, argv: list[str], out: list[str], err: list[str]) -> Step:
        yield
        for container in self.containers:
            out += [f"LISTEN 0 4096 *:{port} *:*\n" for port in PORTS.get(container, ())]
        return 0

    def _run_crictl(self, argv: list[str], out: list[str], err: list[str]) -> Step:
        yield
        name = argv[-1].partition("=")[2]
        found = [_container(c) for c in sorted(self.containers) if c == name]
        out.append(json.dumps({"containers": found}))
        return 0

    def _run_kubectl(self, argv: list[str], out: list[str], err: list[str]) -> Step:
        yield
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
        options = dict(zip(argv[4::2], argv[5::2], strict=False))
        data, token = options["--data-dir"], options["--initial-cluster-token"]
        if self.below(data):
            err.append("Error: data-dir not empty or could not be read\n")
            return 1
        self.put(f"{data}/member/snap/db", "half", synced=False)
        yield
        wal = options.get("--wal-dir", f"{data}/member/wal")
        self.put(f"{wal}/0.wal", "half", synced=False)
        yield
        for path in (f"{wal}/0.wal", f"{data}/member/snap/db"):
            self.put(path, f"restored {token}", synced=False)
            yield
        return 0

    def _run_etcdctl(self, argv: list[str], out: list[str], err: list[str]) -> Step:
        yield
        words = " ".join(argv)
        if not self.world.answers(self):
            err.append("Error: context deadline exceeded\n")
            return 1
        answer = next(make for key, make in self.world.etcdctl.items() if key in words)
        out.append(answer(self, argv))
        return 0


def _plain(argv: list[str]) -> list[str]:
    """Without what only makes it gentle."""
    if argv[0] == "nice":
        argv = argv[3:]
    if argv[0] == "ionice":
        argv = argv[5:]
    return argv


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
        for node in plan.nodes:
            self.hosts[node.name] = FakeHost(self, node)
        self.now = 0.0
        self.etcdctl: dict[str, Answer] = {
            "member list": self._member_list,
            "endpoint health": lambda host, argv: "healthy",
            "endpoint status": self._endpoint_status,
            "endpoint hashkv": self._hashkv,
            "alarm list": lambda host, argv: json.dumps({"header": self._header(host, host.name)}),
        }

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
        lineage = host.lineage()
        if not lineage.startswith(("old ", "restored ")):
            self.violation(f"{host.name}: etcd started on {lineage}")
        for other in self.hosts.values():
            if "etcd" in other.containers and other.lineage().split()[0] != lineage.split()[0]:
                self.violation(f"{host.name} runs {lineage}, {other.name} runs {other.lineage()}")

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
        revision = 150 if old else SNAPSHOT_REVISION + self.plan.cluster.bump_revision
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
        """The host's old data exists, complete, exactly once; so does every manifest."""
        host.reconcile()
        old = f"old {host.name}"
        kept = [p for p, f in host.files.items() if f.content == old]
        if len(kept) != 3 or sum(p.endswith("/db") for p in kept) != 1:
            self.violation(f"{host.name}: the old data is {kept}")
        whole = {f.content for p, f in host.files.items() if p.endswith(".yaml")}
        if not whole >= MANIFESTS:
            self.violation(f"{host.name}: gone is {MANIFESTS - whole}")
