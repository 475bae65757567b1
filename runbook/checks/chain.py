"""Was each certificate signed by the CA that the others will check it against?"""

from __future__ import annotations

from collections.abc import Iterator

from runbook import parse, x509
from runbook.checks import Answers, Finding, Severity
from runbook.checks.certificates import OnFiles, all_seen, pki
from runbook.checks.words import listed, on
from runbook.plan import Node, Plan
from runbook.step import Binding


def _pairs(node: Node) -> dict[str, tuple[str, bool]]:
    """Each certificate, the CA that must have signed it, and whether it is sure to be in use.

    Those that the plan names are compared with etcd's own flags; the others lie where kubeadm puts them.
    """
    paths, there = node.paths, pki(node)
    beside = paths.etcd_cert.rpartition("/")[0]
    return {
        paths.etcd_cert: (paths.etcd_ca, True),
        f"{beside}/peer.crt": (paths.etcd_ca, False),
        f"{there}/apiserver-etcd-client.crt": (paths.etcd_ca, False),
        f"{there}/apiserver.crt": (f"{there}/ca.crt", False),
        paths.kubeconfig: (f"{there}/ca.crt", False),
    }


class SnapshotsCluster(OnFiles):
    """The snapshot was taken of a cluster with these hosts' CAs."""

    at_first = True
    severity, order = Severity.WARNS, 58

    def applies(self, plan: Plan) -> bool:
        """To a snapshot whose sidecar tells of them."""
        return bool(plan.snapshot.fingerprints)

    def judge(self, plan: Plan, bound: Binding, answers: Answers) -> Iterator[Finding]:
        """By the fingerprints in its sidecar, where it is from a store: in one place several clusters may keep theirs.

        A warning: a drill restores into another cluster, and a CA may have been replaced since.
        """
        other: dict[str, list[str]] = {}
        same = 0
        for node, seen in all_seen(plan, answers):
            for name, fingerprint in plan.snapshot.fingerprints:
                path = f"{pki(node)}/{name}"
                try:
                    here = x509.certificate(seen.pem(path)).fingerprint if seen.pem(path) else ""
                except parse.ParseError:
                    continue  # the check of the certificates themselves says so
                if here and here != fingerprint:
                    other.setdefault(path, []).append(node.name)
                same += here == fingerprint
        if other:
            paths = listed(f"{path} ({listed(names)})" for path, names in other.items())
            saw = f"{plan.snapshot.shown} was taken of a cluster with another {paths}"
            do = "is it this cluster's? With the CA replaced since, its tokens and kubelets' certificates are old"
            yield self.warns("", saw, do)
        elif same:
            yield self.ok("", "its sidecar has the fingerprints of these hosts' CAs")


class Chain(OnFiles):
    """Each certificate was signed by the CA that it is checked against."""

    order = 57

    def judge(self, plan: Plan, bound: Binding, answers: Answers) -> Iterator[Finding]:
        """A renewed CA with old certificates, or files of another cluster; what is missing is told elsewhere."""
        for node, seen in all_seen(plan, answers):
            wrong: dict[bool, list[str]] = {True: [], False: []}
            checked = 0
            for path, (ca, vital) in _pairs(node).items():
                leaf, issuer = seen.pem(path), seen.pem(ca)
                if not leaf or not issuer:
                    continue
                try:
                    checked += 1
                    if not x509.issued(leaf, issuer):
                        wrong[vital].append(f"{path} was not signed by {ca}")
                except parse.ParseError:
                    continue  # the check of the certificates themselves says so
            do = f"look which CA it is from: {on(node, 'openssl', 'x509', '-noout', '-issuer', '-in', 'FILE')}"
            if wrong[True]:
                yield self.blocks(node.name, listed(wrong[True]), do)
            if wrong[False]:
                yield self.warns(node.name, listed(wrong[False]), do)
            if checked and not any(wrong.values()):
                yield self.ok(node.name, f"{checked} certificates are of this cluster's CAs")
