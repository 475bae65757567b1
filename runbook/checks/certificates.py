"""Certificates: expired, soon to expire, for other addresses, or not the same on all hosts.

No private key leaves its host: of the one that must be the same everywhere, its SHA-256 is compared.
"""

from __future__ import annotations

import base64
import hashlib
import ipaddress
import posixpath
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from urllib.parse import urlsplit

from runbook import parse, x509
from runbook.checks import Answers, Check, Finding, heard
from runbook.checks.manifests import etcd_pods, read_all
from runbook.checks.words import is_node, listed, on, script
from runbook.plan import Node, Plan
from runbook.step import Binding, Command, Target

SOON = timedelta(days=30)
ETCD_CA = "the etcd CA"

READ = r"""
export LC_ALL=C
echo "now $(date +%s)"
for f in "$@"; do
  echo "== $f"
  if [ ! -r "$f" ]; then echo missing; continue; fi
  case $f in
  *.key)
    sum=$(sed -n '/-----BEGIN/,/-----END/p' "$f" | tr -d '\r' | sha256sum)
    echo "sum ${sum%% *}" ;;
  *.conf) sed -n 's/^ *client-certificate-data: *//p' "$f" ;;
  *) sed -n -e '/-----BEGIN CERTIFICATE/,/-----END/p' -e '/-----BEGIN[A-Z ]* PUBLIC KEY/,/-----END/p' "$f" ;;
  esac
done
:
"""
"""The certificates and public keys as they are, of a kubeconfig the certificate in it, of a private key its SHA-256.

They are read here: to start openssl for each costs a host more than all other questions together.
"""


@dataclass(frozen=True)
class _File:
    """A file to look at: what ``kubeadm certs renew`` calls it, and which URLs it must be valid for."""

    path: str
    renew: str = ""
    urls: tuple[str, ...] = ()
    vital: bool = False


def pki(node: Node) -> str:
    """The directory above the etcd CA's, as kubeadm lays them out."""
    return posixpath.dirname(posixpath.dirname(node.paths.etcd_ca))


def _files(node: Node) -> tuple[_File, ...]:
    """The layout of kubeadm around the plan's paths."""
    paths, there = node.paths, pki(node)
    peer = posixpath.join(posixpath.dirname(paths.etcd_cert), "peer.crt")
    return (
        _File(paths.etcd_ca, vital=True),
        _File(paths.etcd_cert, "etcd-server", node.client_urls, vital=True),
        _File(peer, "etcd-peer", node.peer_urls),
        _File(f"{there}/ca.crt"),
        _File(f"{there}/apiserver.crt", "apiserver"),
        _File(f"{there}/apiserver-etcd-client.crt", "apiserver-etcd-client"),
        _File(f"{there}/front-proxy-ca.crt"),
        _File(f"{there}/sa.pub"),
        _File(f"{there}/sa.key"),
        _File(paths.kubeconfig, "admin.conf"),
    )


VITAL = (ETCD_CA, "ca.crt", "sa.pub", "sa.key")
"""With another etcd CA members never meet; with another CA or service account key on one host, the restored cluster is
one whose API servers do not believe each other's certificates and tokens, on every second request."""


def _same(node: Node) -> dict[str, str]:
    """Which of them must be the same on all hosts: what each is → where it is."""
    names = ("ca.crt", "sa.pub", "sa.key", "front-proxy-ca.crt")
    return {ETCD_CA: node.paths.etcd_ca, **{name: f"{pki(node)}/{name}" for name in names}}


@dataclass(frozen=True)
class Seen:
    """What one host told: its time, and by path what :data:`READ` printed of each file; None where it is not there."""

    now: datetime
    texts: dict[str, str | None]

    def pem(self, path: str) -> str:
        """A certificate or public key; "" where there is none."""
        text = self.texts.get(path) or ""
        if not path.endswith(".conf"):
            return text
        try:
            return base64.b64decode(text.splitlines()[0], validate=True).decode()
        except (IndexError, ValueError):
            return ""

    def sum(self, path: str) -> str:
        """The SHA-256 of what the file holds, "" where it is missing; comments and line ends make no difference."""
        lines = [line.strip() for line in (self.texts.get(path) or "").splitlines()]
        if lines and lines[0].startswith("sum "):
            return lines[0].removeprefix("sum ")
        return hashlib.sha256("\n".join(lines).encode()).hexdigest() if lines else ""


def seen(text: str) -> Seen:
    """What :data:`READ` printed. Raises ParseError."""
    head, *parts = ("\n" + text).split("\n== ")
    try:
        now = datetime.fromtimestamp(int(head.split()[1]), UTC)
    except (ValueError, IndexError, OverflowError, OSError):
        raise parse.ParseError(f"no time in {head.strip()[:80]!r}") from None
    texts: dict[str, str | None] = {}
    for part in parts:
        path, _, body = part.partition("\n")
        texts[path] = None if body.strip() == "missing" else body
    return Seen(now, texts)


def all_seen(plan: Plan, answers: Answers) -> Iterator[tuple[Node, Seen]]:
    """What each host told that could be read."""
    for node, (result, *_) in heard(answers, plan.nodes):
        try:
            yield node, seen(result.out)
        except parse.ParseError:
            continue


class OnFiles(Check):
    """A check of the files that :data:`READ` reads; put once, whoever asks."""

    def asks(self, n: Target) -> Sequence[Command]:
        """The files' facts, and the manifests for where the peer certificate is."""
        if not is_node(n):
            return ()
        return [script(READ, *(f.path for f in _files(n.node))), read_all(n)]


class Certificates(OnFiles):
    """The certificates are valid, for longer than 30 days, and for the hosts' addresses."""

    order = 55

    def judge(self, plan: Plan, bound: Binding, answers: Answers) -> Iterator[Finding]:
        """By the host's own clock, which is the one that decides there."""
        read = {node.name: seen for node, seen in all_seen(plan, answers)}
        pods = etcd_pods(plan, answers, 1)
        for node, (result, _) in heard(answers, plan.nodes):
            if node.name not in read:
                saw = f"the certificates could not be read: {result.tail()}"
                yield self.blocks(node.name, saw, f"look at them: {on(node, 'ls', '-laR', pki(node))}")
                continue
            findings = [f for file in _files(node) for f in self._file(node, file, read[node.name])]
            findings += self._peer(node, pods.get(node.name))
            yield from findings or [self.ok(node.name, "valid for 30 days and more, and for its addresses")]

    def _file(self, node: Node, file: _File, seen: Seen) -> Iterator[Finding]:
        if seen.texts.get(file.path) is None:
            say = self.blocks if file.vital else self.warns
            yield say(node.name, f"{file.path} is missing", "correct spec.paths, or put it there")
            return
        if file.path.endswith((".pub", ".key")):
            return
        try:
            certificate = x509.certificate(seen.pem(file.path))
        except parse.ParseError as error:
            if file.vital:
                yield self.blocks(node.name, f"{file.path}: {error}", "put kubeadm's certificate there")
            elif not file.path.endswith(".conf"):  # a kubeconfig may name files instead
                yield self.warns(node.name, f"{file.path}: {error}", "look at it")
            return
        yield from self._dates(node, file, certificate, seen.now)
        yield from self._names(node, file, certificate)

    def _dates(self, node: Node, file: _File, cert: x509.Certificate, now: datetime) -> Iterator[Finding]:
        renew = on(node, "kubeadm", "certs", "renew", file.renew) if file.renew else "kubeadm renews no CA: replace it"
        if cert.not_after <= now:
            yield self.blocks(node.name, f"{file.path} has expired on {cert.not_after:%F %T} UTC", renew)
        elif cert.not_before > now:
            saw = f"{file.path} is valid from {cert.not_before:%F %T} UTC on; the host's clock says {now:%F %T}"
            yield self.blocks(node.name, saw, f"check the clock: {on(node, 'timedatectl')}")
        elif cert.not_after - now < SOON:
            days = (cert.not_after - now).days
            yield self.warns(node.name, f"{file.path} expires in {days} days, on {cert.not_after:%F %T} UTC", renew)

    def _names(self, node: Node, file: _File, cert: x509.Certificate) -> Iterator[Finding]:
        hosts = dict.fromkeys(urlsplit(url).hostname or "" for url in file.urls if url.startswith("https:"))
        lacks = [h for h in hosts if not _covers(cert.names, h)]
        if lacks:
            saw = f"{file.path} is not valid for {listed(lacks)}, but for {listed(cert.names) or 'no name at all'}"
            do = f"correct the plan's URLs, or renew it: {on(node, 'kubeadm', 'certs', 'renew', file.renew)}"
            yield self.blocks(node.name, saw, do)

    def _peer(self, node: Node, pod: parse.StaticPod | None) -> Iterator[Finding]:
        """A peer certificate elsewhere than kubeadm has it was not looked at."""
        inside = pod.flag("peer-cert-file") if pod else ""
        outside = pod.on_host(inside) if pod and inside else None
        if outside and outside not in {f.path for f in _files(node)}:
            do = f"look yourself: {on(node, 'openssl', 'x509', '-noout', '-dates', '-in', outside)}"
            yield self.warns(node.name, f"etcd's peer certificate {outside} was not looked at", do)


def _covers(names: Sequence[str], host: str) -> bool:
    """Whether a certificate with these SANs is valid for the host; a star stands for one label."""
    wanted = _address(host)
    for name in names:
        if wanted is not None:
            if _address(name) == wanted:
                return True
        elif name.lower() == host.lower() or (
            name.startswith("*.") and host.lower().partition(".")[2] == name[2:].lower()
        ):
            return True
    return False


def _address(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(text)
    except ValueError:
        return None


class SameCertificates(OnFiles):
    """The CAs and the service account key are the same on all hosts."""

    order = 56

    def judge(self, plan: Plan, bound: Binding, answers: Answers) -> Iterator[Finding]:
        """A restore does not mend what differs, and much of it would break the restored cluster."""
        sums: dict[str, dict[str, list[str]]] = defaultdict(lambda: defaultdict(list))
        for node, seen in all_seen(plan, answers):
            for name, path in _same(node).items():
                if seen.sum(path):
                    sums[name][seen.sum(path)].append(node.name)
        if not sums:
            return  # the check of the certificates themselves says so
        differ = {name: hosts for name, hosts in sums.items() if len(hosts) > 1}
        for name, hosts in differ.items():
            groups = " | ".join(f"{listed(who)}: {what[:12]}…" for what, who in hosts.items())
            say = self.blocks if name in VITAL else self.warns
            do = "copy the right one, with its key, to all hosts (those of the snapshot's time)"
            yield say("", f"{name} differs between the hosts: {groups}", do)
        if not differ:
            yield self.ok("", f"the same on all hosts: {listed(sums)}")
