"""Certificates: expired, soon to expire, for other addresses, or not the same on all hosts. Keys are never read."""

from __future__ import annotations

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

READ = rf"""
export LC_ALL=C
echo "now $(date +%s)"
for f in "$@"; do
  echo "== $f"
  if [ ! -r "$f" ]; then echo missing; continue; fi
  sum=$(sed -n '/-----BEGIN/,/-----END/p' "$f" | tr -d '\r' | sha256sum)
  echo "sum=${{sum%% *}}"
  case $f in
  *.pub) ;;
  *.conf)
    sed -n 's/^ *client-certificate-data: *//p' "$f" | head -n 1 | base64 -d |
      openssl x509 -noout {" ".join(x509.ASK)} 2>&1 ;;
  *) openssl x509 -noout {" ".join(x509.ASK)} < "$f" 2>&1 ;;
  esac
done
:
"""
"""The public facts of each certificate file; of a kubeconfig, of the certificate in it.

The sum is that of the PEM blocks alone: comments and line ends make no difference between hosts, a second CA does.
"""


@dataclass(frozen=True)
class _File:
    """A file to look at: what ``kubeadm certs renew`` calls it, and which URLs it must be valid for."""

    path: str
    renew: str = ""
    urls: tuple[str, ...] = ()
    vital: bool = False


def _files(node: Node) -> tuple[_File, ...]:
    """The layout of kubeadm around the plan's paths: ``pki`` is the directory above the etcd CA's."""
    paths = node.paths
    pki = posixpath.dirname(posixpath.dirname(paths.etcd_ca))
    peer = posixpath.join(posixpath.dirname(paths.etcd_cert), "peer.crt")
    return (
        _File(paths.etcd_ca, vital=True),
        _File(paths.etcd_cert, "etcd-server", node.client_urls, vital=True),
        _File(peer, "etcd-peer", node.peer_urls),
        _File(f"{pki}/ca.crt"),
        _File(f"{pki}/apiserver.crt", "apiserver"),
        _File(f"{pki}/apiserver-etcd-client.crt", "apiserver-etcd-client"),
        _File(f"{pki}/front-proxy-ca.crt"),
        _File(f"{pki}/sa.pub"),
        _File(paths.kubeconfig, "admin.conf"),
    )


def _same(node: Node) -> dict[str, str]:
    """Which of them must be the same on all hosts: what each is → where it is."""
    pki = posixpath.dirname(posixpath.dirname(node.paths.etcd_ca))
    rest = {name: f"{pki}/{name}" for name in ("ca.crt", "front-proxy-ca.crt", "sa.pub")}
    return {ETCD_CA: node.paths.etcd_ca, **rest}


@dataclass(frozen=True)
class _Seen:
    """What one host told: its time, and by path the text about each file; None for one that is not there."""

    now: datetime
    texts: dict[str, str | None]

    def sum(self, path: str) -> str:
        """The SHA-256 of what the file holds, "" where it is missing."""
        lines = (self.texts.get(path) or "").splitlines()
        return next((line.removeprefix("sum=") for line in lines if line.startswith("sum=")), "")


def _seen(text: str) -> _Seen:
    head, *parts = ("\n" + text).split("\n== ")
    try:
        now = datetime.fromtimestamp(int(head.split()[1]), UTC)
    except (ValueError, IndexError, OverflowError, OSError):
        raise parse.ParseError(f"no time in {head.strip()[:80]!r}") from None
    texts: dict[str, str | None] = {}
    for part in parts:
        path, _, body = part.partition("\n")
        texts[path] = None if body.strip() == "missing" else body
    return _Seen(now, texts)


def _all_seen(plan: Plan, answers: Answers) -> Iterator[tuple[Node, _Seen]]:
    for node, (result, *_) in heard(answers, plan.nodes):
        try:
            yield node, _seen(result.out)
        except parse.ParseError:
            continue


class _OnFiles(Check):
    def asks(self, n: Target) -> Sequence[Command]:
        """The files' facts, and the manifests for where the peer certificate is."""
        if not is_node(n):
            return ()
        return [script(READ, *(f.path for f in _files(n.node))), read_all(n)]


class Certificates(_OnFiles):
    """The certificates are valid, for longer than 30 days, and for the hosts' addresses."""

    order = 55

    def judge(self, plan: Plan, bound: Binding, answers: Answers) -> Iterator[Finding]:
        """By the host's own clock, which is the one that decides there."""
        read = {node.name: seen for node, seen in _all_seen(plan, answers)}
        pods = etcd_pods(plan, answers, 1)
        for node, (result, _) in heard(answers, plan.nodes):
            if node.name not in read:
                saw = f"the certificates could not be read: {result.tail()}"
                yield self.blocks(node.name, saw, f"is openssl there? {on(node, 'openssl', 'version')}")
                continue
            findings = [f for file in _files(node) for f in self._file(node, file, read[node.name])]
            findings += self._peer(node, pods.get(node.name))
            yield from findings or [self.ok(node.name, "valid for 30 days and more, and for its addresses")]

    def _file(self, node: Node, file: _File, seen: _Seen) -> Iterator[Finding]:
        text = seen.texts.get(file.path)
        if text is None:
            say = self.blocks if file.vital else self.warns
            yield say(node.name, f"{file.path} is missing", "correct spec.paths, or put it there")
            return
        if file.path.endswith(".pub"):
            return
        try:
            certificate = x509.certificate(text)
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


class SameCertificates(_OnFiles):
    """The CAs and the service account key are the same on all hosts."""

    order = 56

    def judge(self, plan: Plan, bound: Binding, answers: Answers) -> Iterator[Finding]:
        """Members with another etcd CA never meet; the others break the API servers, which a restore does not mend."""
        sums: dict[str, dict[str, list[str]]] = defaultdict(lambda: defaultdict(list))
        for node, seen in _all_seen(plan, answers):
            for name, path in _same(node).items():
                if seen.sum(path):
                    sums[name][seen.sum(path)].append(node.name)
        if not sums:
            return  # the check of the certificates themselves says so
        differ = {name: hosts for name, hosts in sums.items() if len(hosts) > 1}
        for name, hosts in differ.items():
            groups = " | ".join(f"{listed(who)}: {what[:12]}…" for what, who in hosts.items())
            say = self.blocks if name == ETCD_CA else self.warns
            do = "copy the right one, with its key, to all hosts (those of the snapshot's time)"
            yield say("", f"{name} differs between the hosts: {groups}", do)
        if not differ:
            yield self.ok("", f"the same on all hosts: {listed(sums)}")
