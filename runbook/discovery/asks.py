"""What ``init`` asks of a host: constant read-only scripts and commands, and what they print as typed data.

Nothing here trusts an answer: whatever is not understood is missing from the data, and never raises.
"""

from __future__ import annotations

import base64
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

from runbook import kube, parse
from runbook.checks import locks, manifests
from runbook.checks.words import script
from runbook.plan import Paths
from runbook.shape import ParseError, Shape, from_json
from runbook.step import Command, Result, Target
from runbook.tables import printable
from runbook.transport import LOCK

QUICK = 5.0
"""Seconds for one question: a living member or API server answers at once, and a dead one must not hold it up."""
LIMIT = 100
"""So many names of Secrets are looked at."""
DIRECTORIES = ("/opt/backup", "/opt/backups", "/var/backups", "/var/lib/etcd-backup", "/backup", "/srv/backup")
"""Where snapshots usually lie on a host."""
SIGNS = {
    "/etc/rancher/k3s": "k3s",
    "/var/lib/rancher/k3s": "k3s",
    "/etc/rancher/rke2": "RKE2",
    "/var/lib/rancher/rke2": "RKE2",
    "/opt/rke/etc": "RKE",
    "/etc/k0s": "k0s",
    "/var/lib/k0s": "k0s",
    "/var/snap/microk8s": "MicroK8s",
    "/etc/machine-config-daemon": "OpenShift",
    "/etc/eks": "EKS",
    "/etc/kubernetes/azure.json": "AKS",
    "/opt/azure/containers": "AKS",
    "/home/kubernetes/kube-env": "GKE",
    "/home/kubernetes/bin/kubelet": "GKE",
}
"""Paths that other distributions leave on a host; they count where no kubeadm control plane is found."""

LOOK = r"""
set -u
export LC_ALL=C
say() { printf '%s %s\n' "$1" "$(printf %s "$2" | head -c 1000 | tr '\n\t' '  ')"; }
signs=$1 dir=$2
say uid "$(id -u)"
say machine "$(cat /etc/machine-id 2> /dev/null)/$(cat /proc/sys/kernel/random/boot_id 2> /dev/null)"
say hostname "$(uname -n)"
conf=/var/lib/kubelet/config.yaml path=
for p in /proc/[0-9]*; do
  { read -r comm < "$p/comm"; } 2> /dev/null || continue
  [ "$comm" = kubelet ] || continue
  args=$(tr '\0' '\n' < "$p/cmdline" 2> /dev/null)
  given=$(printf '%s\n' "$args" | sed -n 's/^--config=//p' | tail -n 1)
  conf=${given:-$conf}
  path=$(printf '%s\n' "$args" | sed -n 's/^--pod-manifest-path=//p' | tail -n 1)
done
if [ -r "$conf" ]; then
  say config "$conf"
  path=${path:-$(sed -n "s/^staticPodPath:[ \"']*\([^ \"'#]*\).*/\1/p" "$conf" | tail -n 1)}
  [ -n "$path" ] || say no-static-pods "$conf"
fi
case $path in /*) dir=${path%/} ;; esac
say manifests "$dir"
for f in /etc/kubernetes/admin.conf /etc/kubernetes/super-admin.conf /root/.kube/config; do
  [ -r "$f" ] || continue
  say kubeconfig "$f"
  say cluster "$(sed -n '/^clusters:/,/^[a-z]/s/^[ -]*name: *//p' "$f" | head -n 1)"
  break
done
for tool in etcdctl etcdutl kubectl; do
  at=$(command -v "$tool" 2> /dev/null)
  if [ -n "$at" ]; then
    at=$tool
  else
    for d in /usr/local/bin /opt/bin /opt/etcd /opt/etcd/bin; do
      if [ -z "$at" ] && [ -x "$d/$tool" ]; then at=$d/$tool; fi
    done
  fi
  [ -n "$at" ] || continue
  say tool "$tool $at"
  case $tool in etcd*) say version "$tool $(timeout 3 "$at" version 2> /dev/null | head -n 1)" ;; esac
done
if [ ! -e "$dir/etcd.yaml" ]; then
  IFS='|'
  for sign in $signs; do if [ -e "$sign" ]; then say sign "$sign"; fi; done
  unset IFS
  for service in etcd k3s rke2-server; do
    say service "$service $(timeout 3 systemctl is-active "$service" 2>&1 | head -n 1)"
  done
  for f in /etc/kubernetes/etcd.yaml /etc/kubernetes/*/etcd.yaml /tmp/etcd.yaml /tmp/*/etcd.yaml /root/etcd.yaml \
    /root/*/etcd.yaml; do
    [ -f "$f" ] && [ ! -L "$f" ] || continue
    # not what just anybody may have put there
    case $(stat -c '%u %A' -- "$f") in "0 -"????[!w]??[!w]*) ;; *) continue ;; esac
    say stray "$f"
    printf 'stray-text %s\n' "$(head -c 1048576 -- "$f" | base64 -w 0)"
    break
  done
fi
echo '== manifests'
set -- "$dir"
"""
"""Signs, joined by |, and the default manifests directory; the manifests themselves follow, by ``manifests.READ``."""

STAT = r"""
export LC_ALL=C
for p in "$@"; do stat -L -c '%u %g %a %U %G %s %F' -- "$p" 2> /dev/null || echo -; done
:
"""
"""Paths; one line each: user and group by number, mode, their names, bytes, kind; ``-`` where there is none."""

BACKUPS = r"""
export LC_ALL=C
find -L "$@" -maxdepth 2 -type f \( -name '*.db' -o -name '*.snap' -o -name '*.snapshot' \) -size +15k \
  -exec stat -L -c '%Y %s %n' {} + 2> /dev/null | sort -rn | head -n 3
:
"""
"""Directories; the three newest files that may be snapshots: seconds since the epoch, bytes, path."""

NAMED = r"""
export LC_ALL=C
timeout 4 grep -a -o -E \
  '\{"id":[0-9]+,"peerURLs":\[[^]{}]*\](,"isLearner":(true|false))?(,"name":"[^"{}]*")?(,"clientURLs":\[[^]{}]*\])?\}' \
  -- "$1" | sort -u | head -n 50
:
"""
"""A member's database; the members that it names, as etcd writes them there (JSON), and perhaps some of earlier times.

For a cluster that lists its members no more: the file is only read, and pages that are free now are read with it.
"""


def first() -> list[Command]:
    """The first question to every host: what it is, and what its manifests say; who holds it."""
    paths = Paths()
    text = LOOK + manifests.READ
    return [
        script(text, "|".join(SIGNS), paths.manifests, timeout=20),
        script(locks.READ, LOCK, paths.workspace, timeout=QUICK),
    ]


@dataclass(frozen=True)
class Looked:
    """What :data:`LOOK` printed. ``words`` has the first value of each word, ``many`` all of them."""

    words: Mapping[str, str]
    many: Mapping[str, tuple[str, ...]]
    files: Mapping[str, manifests.File]
    unread: str = ""
    """Why the manifests directory could not be read."""

    @property
    def pairs(self) -> dict[str, str]:
        """``tool``, ``version`` and ``service``: ``tool etcdctl`` → its path."""
        rows = ((kind, v.partition(" ")) for kind in ("tool", "version", "service") for v in self.many.get(kind, ()))
        return {f"{kind} {name}": value for kind, (name, _, value) in rows}

    @property
    def stray(self) -> parse.StaticPod | None:
        """An etcd.yaml that lies elsewhere than the kubelet looks for it."""
        try:
            return parse.manifest(base64.b64decode(self.words.get("stray-text", ""), validate=True).decode())
        except ValueError:  # base64's, UTF-8's and our own
            return None


def looked(result: Result) -> Looked | None:
    """None where the answer is none that can be understood."""
    head, mark, tail = result.out.partition("== manifests\n")
    many: dict[str, list[str]] = {}
    for line in head.splitlines():
        word, _, value = line.partition(" ")
        many.setdefault(word, []).append(value.strip() if word == "stray-text" else printable(value))
    if not mark or "uid" not in many:
        return None
    unread = "" if result.ok else printable(result.tail(1)) or f"exit code {result.code}"
    try:
        files = manifests.files(tail) if result.ok else {}
    except ParseError as error:
        files, unread = {}, printable(error)
    return Looked({w: v[0] for w, v in many.items()}, {w: tuple(v) for w, v in many.items()}, files, unread)


@dataclass(frozen=True)
class Stat:
    """One path on a host: owner by number and by name, mode, size in bytes, kind."""

    uid: int
    gid: int
    mode: str
    user: str
    group: str
    size: int
    kind: str

    @property
    def owner(self) -> str:
        """As a person reads it."""
        return f"{self.user}:{self.group}"


def stats(paths: tuple[str, ...], result: Result) -> dict[str, Stat | None]:
    """By path; None where there is nothing. Paths whose line is not understood are missing."""
    found: dict[str, Stat | None] = {}
    for path, line in zip(paths, result.out.splitlines(), strict=False):
        words = line.split(" ", 6)
        if line == "-":
            found[path] = None
        elif len(words) == 7 and all(words[i].isdecimal() for i in (0, 1, 5)):
            found[path] = Stat(int(words[0]), int(words[1]), words[2], words[3], words[4], int(words[5]), words[6])
    return found


@dataclass(frozen=True)
class Backup:
    """A file on a host that may be a snapshot; ``at`` in seconds since the epoch."""

    path: str
    size: int
    at: int


def backups(result: Result) -> Iterator[Backup]:
    """What :data:`BACKUPS` printed, the newest first."""
    for line in result.out.splitlines():
        at, _, rest = line.partition(" ")
        size, _, path = rest.partition(" ")
        if at.isdecimal() and size.isdecimal() and path.startswith("/") and path.isprintable():
            yield Backup(path, int(size), int(at))


def etcdctl(n: Target, tool: str, *words: str, timeout: float = QUICK) -> Command:
    """A question to the host's member. Without a ``tool`` there, by that of the container, and with its own paths."""
    asked = kube.etcdctl(n, *words, "-w", "json", timeout=timeout)
    own = [tool or "etcdctl", *asked.words()[1:]]
    return replace(asked, argv=tuple(own)) if tool else script(kube.ANY_ETCDCTL, *own, timeout=timeout + 3)


def second(n: Target, tool: str, kubectl: bool) -> list[Command]:
    """Of a host whose etcd.yaml was read: its disk, its own member, its own API server."""
    status = etcdctl(n, tool, "endpoint", "status")
    nodes = replace(kube.kubectl(n, "get", "--raw", "/api/v1/nodes", timeout=QUICK), large=True)
    return [script(STAT, *disk_paths(n.node.paths), timeout=QUICK), status, *([nodes] if kubectl else [])]


def disk_paths(paths: Paths) -> tuple[str, ...]:
    """What is looked at on the disk."""
    data = (paths.data_dir, f"{paths.data_dir}/member", f"{paths.data_dir}/member/snap/db")
    return (*data, *([paths.wal_dir] if paths.wal_dir else []))


def members(n: Target, tool: str) -> dict[str, Command]:
    """Of a host whose member answers: the whole cluster as it sees it."""
    return {
        "members": etcdctl(n, tool, "member", "list"),
        "everyone": etcdctl(n, tool, "endpoint", "status", "--cluster", timeout=8),
    }


@dataclass(frozen=True)
class Written:
    """A member as a database names it."""

    name: str
    peer_urls: tuple[str, ...]
    client_urls: tuple[str, ...]


def written(text: str) -> Written | None:
    """One member's JSON in etcd's bucket ``members``; None where it has never started, or is not understood."""
    try:
        m = Shape(from_json(text, "member"), "member")
        found = Written(m.text("name", ""), m.texts("peerURLs"), m.texts("clientURLs"))
    except ParseError:
        return None
    return found if found.name and found.peer_urls else None


def secrets(n: Target, tool: str, prefix: str) -> Command:
    """The first names of Secrets, with the revision at which each was made; no value leaves etcd."""
    words = ("get", f"{prefix}/secrets/", "--prefix", "--keys-only", f"--limit={LIMIT}", "--consistency=s")
    return etcdctl(n, tool, *words)


def secret_names(result: Result, prefix: str) -> dict[str, int]:
    """``namespace/name`` → the revision at which it was made."""
    found: dict[str, int] = {}
    try:
        for kv in Shape(from_json(result.out, "etcdctl get"), "etcdctl get").children("kvs"):
            key = base64.b64decode(kv.text("key"), validate=True).decode()
            found[key.removeprefix(f"{prefix}/secrets/")] = kv.number("create_revision", 0)
    except ValueError:  # base64's, UTF-8's and our own
        return {}
    return found


def kubeadm_config(n: Target) -> Command:
    """The ConfigMap with kubeadm's ClusterConfiguration."""
    path = "/api/v1/namespaces/kube-system/configmaps/kubeadm-config"
    return kube.kubectl(n, "get", "--raw", path, timeout=QUICK)


def snapshot_status(etcdutl: str, path: str, timeout: float) -> Command:
    """The last revision of a database that nobody has open: etcdutl opens it read-only; a living one makes it wait."""
    return Command((etcdutl, "snapshot", "status", path, "-w", "json"), timeout, changes=False)


def revision(result: Result) -> int | None:
    """The revision in what :func:`snapshot_status` printed."""
    try:
        return parse.snapshot_status(result.out).revision if result.ok else None
    except ParseError:
        return None
