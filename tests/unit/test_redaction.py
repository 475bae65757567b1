"""What may never leave a host: planted secrets of every kind, in whatever stands around them; and what must stay."""

from __future__ import annotations

import base64
import json
import re
import time

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from runbook.lab.layout import Host
from runbook.lab.manifests import manifests
from runbook.redaction import MASK, masked, redact

B64 = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
WORD = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"
PEM = "-----BEGIN {0}PRIVATE KEY-----\n{1}\n{2}\n-----END {0}PRIVATE KEY-----"


def b64(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


# By kind: a text with {} for the secret. Each is tried with many secrets, in many surroundings.
NAMED = {
    "yaml": "password: {}",
    "yaml quoted": 'db-password: "{}"',
    "yaml in a list": "  - adminPassword: '{}'",
    "yaml below": "token:\n    {}",
    "yaml folded": "clientSecret: >-\n  {}\n",
    "yaml literal": "    token: |\n      {}\n      more\n",
    "yaml with blanks": "password: {} and more",
    "ini": "secret_key = {}",
    "shell": "export API_KEY={}",
    "environment of etcd": "ETCDCTL_PASSWORD={}",
    "json": '{{"user": "root", "password": "{}", "x": 1}}',
    "json list": '{{"tokens": 1, "token": ["{}"]}}',
    "json escaped": '{{"msg": "said {{\\"apiKey\\":\\"{}\\"}}"}}',
    "json pretty": '{{\n  "secret": "{}",\n  "x": 1\n}}',
    "logfmt": 'level=info msg="login" password={} user=x',
    "query": "GET /x?access_token={}&page=2",
    "header": "X-Auth-Token: {}",
    "odd scheme": "curl -H 'Authorization: Token {}' https://x",
    "cookie": "Set-Cookie: session={}; HttpOnly",
    "option": "kubectl --token {} get nodes",
    "option with =": "mysql --password={} -h x",
    "option in an array": '["x", "--client-secret", "{}"]',
    "option in a list": "  - --oidc-client-secret\n  - {}\n",
    "curl": "curl -u admin:{} https://x",
    "user of etcdctl": "etcdctl --user root:{} get /",
    "netrc": "machine x login me password {}",
    "url": "https://ops:{}@10.0.1.10:2379/health",
    "url without user": "redis://:{}@cache:6379/0",
    "bearer": "Authorization: Bearer {}",
    "environment": "env:\n  - name: SOMETHING\n    value: {}\n",
    "environment turned": "env:\n- value: '{}'\n  name: SOMETHING\n",
    "environment in flow": "env: [{{name: SOMETHING, value: {}}}]",
    "environment in JSON": '{{"env":[{{"name":"SOMETHING","value":"{}"}}]}}',
    "environment in JSON, pretty": '"env": [\n  {{\n    "name": "SOMETHING",\n    "value": "{}"\n  }}\n]',
    "environment over lines": "- name: SOMETHING\n  value: |\n    {}\n    x: {}\n- name: NODE_NAME\n  value: m1\n",
    "Secret": "kind: Secret\ndata:\n  anything.txt: {}\ntype: Opaque",
    "Secret, kind last": "apiVersion: v1\nstringData:\n  a: |\n    first\n    {}\nkind: Secret",
    "Secret in a list": "items:\n- data:\n    anything: {}\n  kind: Secret",
    "Secret in flow": "data: {{anything: {}}}",
    "Secret in JSON": '{{"apiVersion":"v1","data":{{"anything":"{}"}},"kind":"Secret"}}',
    "Secret in JSON, pretty": '{{\n  "data": {{\n    "anything": "{}"\n  }},\n  "kind": "Secret"\n}}',
    "Secret in an annotation": '  last-applied: "{{\\"data\\":{{\\"anything\\":\\"{}\\"}},\\"kind\\":\\"Secret\\"}}"',
    "kubeconfig": "users:\n- name: admin\n  user:\n    client-key-data: {}\n    token: {}\n",
    "encryption": "providers:\n- aescbc:\n    keys:\n    - name: key1\n      secret: {}\n",
    "connection string": "connectionString: Server=x;Password={};",
    "kubeadm": "kubeadm init --certificate-key {}",
    "dsn": "user:{}@tcp(h:3306)/db",
    "xml": "<dbPassword>{}</dbPassword>",
    "user add": "etcdctl user add root:{}",
    "sshpass": "sshpass -p {} ssh m1",
    "encoded": "client_secret%3D{}",
    "anchored": "data: &x\n  any: {}\n",
    "tagged": "data:\n  any: !!binary |\n    {}\n  other: x\n",
    "registry": ".dockerconfigjson: {}",
    "coloured": "\x1b[36mpassword\x1b[0m=\x1b[1m{}\x1b[0m x=y",
    "with DOS' line ends": "token: |\r\n  first: {}\r\n  {}\r\nother: x\r\n",
    "an option with them": "  - --token\r\n  - {}\r\n",
    "aws": "aws_secret_access_key = {}",
}
FORMED = {
    "cloud key": (st.text("ABCDEFGHIJ0123456789", min_size=16, max_size=16).map("AKIA".__add__), "key {} used"),
    "bootstrap": (st.from_regex(r"[a-z0-9]{6}\.[a-z0-9]{16}", fullmatch=True), "joined with {} there"),
    "jwt": (st.text(WORD, min_size=20, max_size=80).map(lambda t: f"eyJ{t}.eyJ{t}.{t}"), "it said {} and left"),
    "github": (st.text(WORD, min_size=36, max_size=36).map("ghp_".__add__), "cloned with {}"),
    "gitlab": (st.text(WORD, min_size=20, max_size=20).map("glpat-".__add__), "cloned with {}"),
    "slack": (st.text(WORD, min_size=20, max_size=40).map("xoxb-".__add__), "told {} it"),
    "vault": (st.text(WORD, min_size=24, max_size=40).map("hvs.".__add__), "unsealed: {}"),
    "crypt": (st.text(WORD, min_size=40, max_size=86).map("$6$salt$".__add__), "root:{}:19000:0"),
    "token as user": (st.text(WORD, min_size=30, max_size=40), "https://{}@git.example/x.git"),
    "signature": (st.text(WORD, min_size=30, max_size=40), "https://x.blob/y?sv=2&sig={}&se=3"),
}
SECRETS = st.one_of(
    st.text(WORD, min_size=8, max_size=40),
    st.text(B64, min_size=8, max_size=60).map(lambda t: t + "="),
    st.text(WORD, min_size=4, max_size=12).map(lambda t: f"{t}!,{t}.x"),
).filter(lambda s: not s.startswith("-") and len(set(s)) > 3)
LINES = st.lists(
    st.one_of(
        st.text(st.characters(codec="ascii", categories=["L", "N", "Z"]), max_size=60),
        st.sampled_from(
            [
                '{"level":"info","ts":"2026-11-23T09:13:58Z","caller":"etcdmain/etcd.go:73","msg":"Running: "}',
                "I1123 09:13:59.000000       1 server.go:140] Version: v1.30.14",
                "- --data-dir=/var/lib/etcd",
                "    name: etcd",
                "  labels:",
                "",
            ]
        ),
    ),
    max_size=5,
).map("\n".join)


@pytest.mark.parametrize("template", NAMED.values(), ids=NAMED.keys())
def test_a_named_secret_never_survives(template: str) -> None:
    @settings(max_examples=40, deadline=None)
    @given(secret=SECRETS, before=LINES, after=LINES)
    def tried(secret: str, before: str, after: str) -> None:
        tail = secret.rstrip("=")[-6:]
        assume(tail not in before + after + template)
        # `https://HOST:2379/v1@2` has a port there and no password: one that begins so must be written as %2F in a URL
        assume("://" not in template or not re.match(r"\d{1,5}[/,?#]", secret))
        text = f"{before}\n{template.replace('{}', secret).replace('{{', '{').replace('}}', '}')}\n{after}"
        hidden, found = masked(text)
        assert secret not in hidden, hidden
        assert tail not in hidden, hidden
        assert MASK in hidden
        assert found.total() > 0
        assert redact(hidden) == hidden, "what is masked stays as it is"

    tried()


@pytest.mark.parametrize(("secrets", "template"), FORMED.values(), ids=FORMED.keys())
def test_a_secret_is_known_by_its_form(secrets: st.SearchStrategy[str], template: str) -> None:
    @settings(max_examples=40, deadline=None)
    @given(secret=secrets, before=LINES, after=LINES)
    def tried(secret: str, before: str, after: str) -> None:
        assume(secret not in before + after)
        hidden, found = masked(f"{before}\n{template.format(secret)}\n{after}")
        assert secret not in hidden, hidden
        assert found.total() > 0
        assert redact(hidden) == hidden

    tried()


@settings(deadline=None)
@given(
    body=st.text(B64, min_size=64, max_size=64),
    last=st.text(B64, min_size=20, max_size=60),
    kind=st.sampled_from(["", "RSA ", "EC ", "OPENSSH ", "ENCRYPTED "]),
    shape=st.sampled_from(["plain", "indented", "json", "cut before", "cut behind", "base64", "journald"]),
    before=LINES,
    after=LINES,
)
def test_a_private_key_never_survives(body: str, last: str, kind: str, shape: str, before: str, after: str) -> None:
    assume(last not in before + after)
    pem = PEM.format(kind, body, last)
    text = {
        "plain": pem,
        "indented": "key: |\n  " + pem.replace("\n", "\n  "),
        "json": json.dumps({"x": pem}),
        "cut before": pem.partition("\n")[2],
        "cut behind": pem.rpartition("\n")[0],
        "base64": f"x: {b64(pem)}",
        "journald": "Nov 23 m1 kubelet[1]: " + pem.replace("\n", "\nNov 23 m1 kubelet[1]: "),
    }[shape]
    text = f"{text}\n{after}" if shape == "cut before" else f"{before}\n{text}\n{after}"
    hidden, found = masked(text)
    assert body not in hidden
    assert last not in hidden
    assert b64(pem)[20:80] not in hidden
    assert found["private key"] >= 1


def test_a_certificate_stays_and_the_key_behind_it_goes() -> None:
    cert = "-----BEGIN CERTIFICATE-----\nMIIBCERT\n-----END CERTIFICATE-----\n"
    pem = PEM.format("", "k" * 64, "last==")
    assert redact(f"certificate-authority-data: {b64(cert)}") == f"certificate-authority-data: {b64(cert)}"
    assert "k" * 64 not in redact(cert + pem)
    assert redact(cert + pem).startswith(cert)
    assert b64(pem)[4:40] not in redact(f"client-certificate-data: {b64(cert + pem)}")


def test_json_stays_json() -> None:
    line = {"token": "hunter22", "say": 'he said {"password": "hunter22"}', "data": {"a": "aHVudGVyMjI="}, "n": 1}
    hidden = redact(json.dumps(line))
    assert json.loads(hidden)["n"] == 1
    assert "hunter22" not in hidden
    assert "aHVudGVyMjI" not in hidden


def test_what_is_no_text_is_left_out() -> None:
    """A piece of a snapshot, or any other file that is no text."""
    hidden, found = masked("before\nk8s\x00\n\x0c\x00\x01\x02\x03\x04\x05\x06\x07\x08hunter22\x00\ufffd\ufffd\nbehind")
    assert "hunter22" not in hidden
    assert hidden.startswith("before\n")
    assert hidden.endswith("\nbehind")
    assert found["not text"] >= 1


@pytest.mark.parametrize("name", ["etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler"])
def test_kubeadms_manifests_stay_as_they_are(name: str) -> None:
    host = Host("m1", "cp1", "10.0.1.10")
    text = manifests(host, [host])[f"{name}.yaml"]
    assert masked(text) == (text, {})


ORDINARY = [
    '{"level":"info","ts":"2026-11-23T09:13:58.1Z","caller":"embed/etcd.go:311","msg":"starting an etcd server",'
    '"initial-cluster-token":"prod-20260409t140000z-0001","auth-token":"simple","data-dir":"/var/lib/etcd",'
    '"initial-cluster":"m1=https://10.0.1.10:2380,m2=https://10.0.1.11:2380"}',
    '{"level":"warn","msg":"apply request took too long","request":"header:<ID:7587 > txn:<compare:<target:MOD '
    'key:\\"/registry/secrets/default/known\\" mod_revision:5 > success:<request_put:<key:\\"/registry/x\\" '
    'value_size:433 >>"}',
    "sha256 " + "ab" * 32,
    "3f1c9ab0" * 8 + "  /var/lib/etcd-runbook/x/snapshot.db",
    "etcdutl snapshot restore /x.db --initial-cluster-token prod-1 --bump-revision 1000000000 --mark-compacted",
    "etcdctl --cacert=/etc/kubernetes/pki/etcd/ca.crt --key=/etc/kubernetes/pki/etcd/server.key member list",
    "https://10.0.1.10:2379,https://10.0.1.11:2379 are healthy",
    "  - --service-account-signing-key-file=/etc/kubernetes/pki/sa.key",
    "  - --enable-bootstrap-token-auth=true\n  - --authorization-mode=Node,RBAC",
    "  automountServiceAccountToken: false\n  imagePullSecrets:\n  - name: regcred",
    "volumes:\n- name: x\n  secret:\n    secretName: known\n    defaultMode: 420",
    "authorization:\n  mode: Webhook\n  webhook:\n    cacheAuthorizedTTL: 0s",
    "- name: ETCD_NAME\n  value: m1\n- name: HTTPS_PROXY\n  value: http://proxy:3128",
    "valueFrom:\n  secretKeyRef:\n    key: x\n    name: y",
    'E1123 09:14:00.1 1 controller.go:1] error syncing "kube-system/known": secrets "known" not found',
    "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----",
    "drwx------ 3 root root 4096 Nov 23 09:13 /var/lib/etcd/member",
    "LISTEN 0 4096 10.0.1.10:2379 0.0.0.0:* users:((\"etcd\",pid=5,fd=7))",
    "c05d6d0776168   registry.k8s.io/etcd:3.5.15-0   11 seconds ago   Running   etcd   0   b48a029f21adc   etcd-m1",
    "Secret default/known can be read; basic authentication is off, the bearer token was not asked for",
    "journalctl -u kubelet -n 100",
    "aescbc:\n  keys:\n  - name: key1",
]  # fmt: skip


@pytest.mark.parametrize("text", ORDINARY)
def test_ordinary_text_stays_as_it_is(text: str) -> None:
    assert masked(text) == (text, {})


@settings(deadline=None)
@given(st.text(max_size=300))
def test_any_text_is_taken_and_masked_but_once(text: str) -> None:
    hidden = redact(text)
    assert redact(hidden) == redact(redact(hidden))


@pytest.mark.parametrize(
    "piece",
    ["a.", "://a:", "-----END PRIVATE KEY-----\n", '"data":{', "token=", "- value:\n", "x: |\n ", "eyJ.", "'", "\\"],
)
def test_a_long_text_takes_a_short_time(piece: str) -> None:
    """Nothing here is quadratic: a host's log may hold anything."""
    text = piece * (400_000 // len(piece))
    began = time.perf_counter()
    redact(text)
    redact(re.sub(r"\n", " ", text))
    assert time.perf_counter() - began < 20
