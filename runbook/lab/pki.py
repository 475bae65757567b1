"""The certificates of a kubeadm cluster, laid out as kubeadm does it; elliptic keys, because they are made quickly.

Source of the layout, names and subject alternative names: "PKI certificates and requirements" in Kubernetes'
documentation.
"""

from __future__ import annotations

import base64
import datetime
import ipaddress
from collections.abc import Sequence

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from runbook.lab.layout import Host

CLIENT, SERVER = ExtendedKeyUsageOID.CLIENT_AUTH, ExtendedKeyUsageOID.SERVER_AUTH
SERVICE_IP = "10.96.0.1"
ADMINS = "kubeadm:cluster-admins"
DAY = datetime.timedelta(days=1)
Files = dict[str, bytes]  # path below /etc/kubernetes (or another root) → content


class Authority:
    """A certificate authority that is its own root."""

    def __init__(self, name: str) -> None:
        self.key = ec.generate_private_key(ec.SECP256R1())
        self.name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        builder = _builder(self.name, self.name, self.key.public_key(), 3650)
        builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        usage = x509.KeyUsage(True, False, True, False, False, True, False, False, False)
        builder = builder.add_extension(usage, critical=True)
        builder = builder.add_extension(
            x509.SubjectKeyIdentifier.from_public_key(self.key.public_key()), critical=False
        )
        self.certificate = builder.sign(self.key, hashes.SHA256())

    @property
    def crt(self) -> bytes:
        """The certificate, as PEM."""
        return self.certificate.public_bytes(serialization.Encoding.PEM)

    def files(self, stem: str) -> Files:
        """Certificate and key."""
        return {f"{stem}.crt": self.crt, f"{stem}.key": key_pem(self.key)}

    def issue(
        self,
        name: str,
        usages: Sequence[x509.ObjectIdentifier],
        *,
        sans: Sequence[str] = (),
        group: str = "",
        days: int = 365,
    ) -> tuple[bytes, bytes]:
        """A certificate and its key, as PEM; negative `days` make one that has expired."""
        key = ec.generate_private_key(ec.SECP256R1())
        parts = [x509.NameAttribute(NameOID.COMMON_NAME, name)]
        if group:
            parts.insert(0, x509.NameAttribute(NameOID.ORGANIZATION_NAME, group))
        builder = _builder(x509.Name(parts), self.name, key.public_key(), days)
        builder = builder.add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        builder = builder.add_extension(x509.ExtendedKeyUsage(usages), critical=False)
        identifier = x509.AuthorityKeyIdentifier.from_issuer_public_key(self.key.public_key())
        builder = builder.add_extension(identifier, critical=False)
        if sans:
            builder = builder.add_extension(x509.SubjectAlternativeName([_san(s) for s in sans]), critical=False)
        signed = builder.sign(self.key, hashes.SHA256())
        return signed.public_bytes(serialization.Encoding.PEM), key_pem(key)


def _builder(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey, days: int
) -> x509.CertificateBuilder:
    now = datetime.datetime.now(datetime.UTC)
    builder = x509.CertificateBuilder().subject_name(subject).issuer_name(issuer).public_key(key)
    builder = builder.serial_number(x509.random_serial_number())
    return builder.not_valid_before(now + min(days, 0) * DAY - DAY).not_valid_after(now + days * DAY)


def _san(text: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(text))
    except ValueError:
        return x509.DNSName(text)


def key_pem(key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey) -> bytes:
    """A private key, unencrypted."""
    form = serialization.PrivateFormat.TraditionalOpenSSL
    return key.private_bytes(serialization.Encoding.PEM, form, serialization.NoEncryption())


def ssh_key(comment: str) -> tuple[bytes, bytes]:
    """An ed25519 key pair in OpenSSH's form: private, and public as one line."""
    key = ed25519.Ed25519PrivateKey.generate()
    form = serialization.PrivateFormat.OpenSSH
    private = key.private_bytes(serialization.Encoding.PEM, form, serialization.NoEncryption())
    public = key.public_key().public_bytes(serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH)
    return private, public + b" " + comment.encode() + b"\n"


class ClusterPki:
    """The authorities and the service-account key that all control-plane hosts share, and each host's certificates."""

    client_usage = (CLIENT,)

    def __init__(self) -> None:
        self.ca, self.etcd_ca = Authority("kubernetes"), Authority("etcd-ca")
        self.front_ca = Authority("front-proxy-ca")
        account = ec.generate_private_key(ec.SECP256R1())
        public = account.public_key().public_bytes(
            serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
        )
        self.shared: Files = {
            **self.ca.files("pki/ca"),
            **self.etcd_ca.files("pki/etcd/ca"),
            **self.front_ca.files("pki/front-proxy-ca"),
            "pki/sa.key": key_pem(account),
            "pki/sa.pub": public,
        }

    def control_plane(self, host: Host) -> Files:
        """What is below /etc/kubernetes on a control-plane host, manifests apart."""
        names = ["kubernetes", "kubernetes.default", "kubernetes.default.svc", "kubernetes.default.svc.cluster.local"]
        etcd_sans = [host.name, "localhost", host.ip, "127.0.0.1", "::1"]
        issued = {
            "pki/apiserver": self.ca.issue("kube-apiserver", [SERVER], sans=[host.name, *names, SERVICE_IP, host.ip]),
            "pki/apiserver-kubelet-client": self.ca.issue("kube-apiserver-kubelet-client", [CLIENT], group=ADMINS),
            "pki/front-proxy-client": self.front_ca.issue("front-proxy-client", [CLIENT]),
            "pki/apiserver-etcd-client": self.etcd_ca.issue("kube-apiserver-etcd-client", [CLIENT]),
            "pki/etcd/server": self.etcd_ca.issue(host.name, [SERVER, CLIENT], sans=etcd_sans),
            "pki/etcd/peer": self.etcd_ca.issue(host.name, [SERVER, CLIENT], sans=etcd_sans),
            "pki/etcd/healthcheck-client": self.etcd_ca.issue("kube-etcd-healthcheck-client", [CLIENT]),
        }
        files = dict(self.shared)
        for stem, (crt, key) in issued.items():
            files |= {f"{stem}.crt": crt, f"{stem}.key": key}
        servers = [f"https://{host.ip}:6443"]
        files["admin.conf"] = self.kubeconfig(servers, "kubernetes-admin", ADMINS)
        files["controller-manager.conf"] = self.kubeconfig(servers, "system:kube-controller-manager")
        files["scheduler.conf"] = self.kubeconfig(servers, "system:kube-scheduler")
        return files

    def kubelet(self, host: Host, servers: Sequence[str]) -> tuple[bytes, bytes]:
        """The kubelet's kubeconfig, and the file with its certificate and key."""
        crt, key = self.ca.issue(f"system:node:{host.name}", [CLIENT], group="system:nodes")
        pem = "/var/lib/kubelet/pki/kubelet-client-current.pem"
        user = f"    client-certificate: {pem}\n    client-key: {pem}\n"
        return self._kubeconfig(servers, f"system:node:{host.name}", user), crt + key

    def kubeconfig(self, servers: Sequence[str], user: str, group: str = "") -> bytes:
        """A kubeconfig with everything in it."""
        crt, key = self.ca.issue(user, [CLIENT], group=group)
        data = f"    client-certificate-data: {_b64(crt)}\n    client-key-data: {_b64(key)}\n"
        return self._kubeconfig(servers, user, data)

    def _kubeconfig(self, servers: Sequence[str], user: str, user_data: str) -> bytes:
        clusters = ""
        for index, server in enumerate(servers):
            name = "kubernetes" if index == 0 else f"kubernetes-{index + 1}"
            ca = f"    certificate-authority-data: {_b64(self.ca.crt)}\n"
            clusters += f"- cluster:\n{ca}    server: {server}\n  name: {name}\n"
        context = f"{user}@kubernetes"
        return (
            f"apiVersion: v1\nclusters:\n{clusters}contexts:\n- context:\n    cluster: kubernetes\n    user: {user}\n"
            f"  name: {context}\ncurrent-context: {context}\nkind: Config\npreferences: {{}}\n"
            f"users:\n- name: {user}\n  user:\n{user_data}"
        ).encode()


def _b64(data: bytes) -> str:
    return base64.b64encode(data).decode()
