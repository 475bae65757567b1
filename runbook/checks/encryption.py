"""Can every host's API server decrypt what the snapshot holds?

The EncryptionConfiguration holds the keys themselves, so it stays where it is: the host takes it apart and prints the
kinds of providers, the names of keys, and the names and sockets of KMS plugins. None of these is secret: etcd has them
in clear before each value.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from runbook.checks import Answers, Finding, heard
from runbook.checks.content import OfContent
from runbook.checks.manifests import files, read_all
from runbook.checks.words import is_node, listed, on, script
from runbook.parse import ParseError, StaticPod
from runbook.plan import Node, Plan
from runbook.snapshots.content import Content, Encrypted
from runbook.step import Command, Target

FLAG = "encryption-provider-config"

NAMES = r"""
set -u
cd -- "$1" || exit 3
[ -f kube-apiserver.yaml ] || exit 0
split() { tr '{},[]' '\n\n\n\n\n' < "$1"; }
words() { split kube-apiserver.yaml | sed -n "s/.*$1[\"']\{0,1\} *: *[\"']\{0,1\}\(\/[^\"' ]*\).*/\1/p" | sort -u; }
inside=$(split kube-apiserver.yaml | sed -n "
  /--encryption-provider-config[ =\"',]*\$/{n;s/^[-\"' ]*\(\/[^\"', ]*\).*/\1/p;}
  s/.*--encryption-provider-config=[\"']\{0,1\}\([^\"', ]*\).*/\1/p" | tail -n 1)
[ -n "$inside" ] || exit 0
outside() {
  printf '%s\n' "$1"
  words mountPath | while IFS= read -r mount; do
    mount=${mount%/}
    case $1 in "$mount" | "$mount"/*) words path | while IFS= read -r path; do
      printf '%s\n' "${path%/}${1#"$mount"}"
    done ;; esac
  done
}
take() {
  split "$1" | sed 's/^[[:space:]]*#.*//; s/[[:space:]]#.*//; s/[[:space:]]*$//' | awk -v q="'" '
    { line = $0; gsub("[\"" q "]", "", line); sub(/^[- \t]*/, "", line) }
    $0 ~ /(^|[ :-])[&*][A-Za-z]/ || $0 ~ /[|>][-+0-9]*$/ { print "unknown"; next }
    line ~ /^kind *: *Encryption(Configuration|Config)$/ { print "form" }
    line ~ /^(aescbc|aesgcm|secretbox|kms|identity) *:/ { sub(/ *:.*/, "", line); print "provider", line; next }
    line ~ /^apiVersion *: *v[12]$/ { sub(/^apiVersion *: */, "", line); print "version", line; next }
    line ~ /^name *:.*=$/ { print "unknown"; next }
    line ~ /^name *: *[^ ]+$/ { sub(/^name *: */, "", line); print "name", line; next }
    line ~ /^endpoint *: *unix:[^ ]+$/ { sub(/^endpoint *: *unix:\/*/, "/", line); print "socket", line }'
}
outside "$inside" | sort -u | while IFS= read -r file; do
  [ -f "$file" ] || continue
  printf 'file %s\n' "$file"
  take "$file" | while IFS= read -r line; do
    printf '%s\n' "$line"
    case $line in socket\ *) outside "${line#socket }" | sort -u | while IFS= read -r at; do
      [ ! -S "$at" ] || printf 'there %s\n' "$at"
    done ;; esac
  done
done
"""
"""The manifests directory. Prints the names in each file that may be the configuration: the paths in the container with
each mount and each path of the host tried in turn, for which of them belong together is read from the manifest."""

_SOCKET = re.compile(r"/[^\x00-\x1f]{1,200}")


@dataclass
class Provider:
    """One provider of a configuration: its kind, its version (of a KMS), its keys' names or its own, and its socket."""

    kind: str
    version: str = ""
    names: list[str] = field(default_factory=list)
    socket: str = ""


@dataclass
class Names:
    """What one file on a host names; ``sockets`` are those that are there. ``known``: it could be taken apart."""

    known: bool = False
    odd: bool = False
    providers: list[Provider] = field(default_factory=list)
    sockets: set[str] = field(default_factory=set)

    def reads(self, found: Encrypted) -> bool:
        """Whether such values can be decrypted, as far as names tell."""
        kind, _, version = found.provider.partition(" ")
        return any(
            p.kind == kind and found.key in p.names and version in ("", p.version or "v1") for p in self.providers
        )


def configurations(text: str) -> Mapping[str, Names]:
    """What :data:`NAMES` printed, by file on the host."""
    found: dict[str, Names] = {}
    here = Names()
    for line in text.splitlines():
        what, _, word = line.partition(" ")
        provider = here.providers[-1] if here.providers else Provider("")
        match what:
            case "file":
                here = found.setdefault(word, Names())
            case "form":
                here.known = True
            case "unknown":
                here.odd = True
            case "provider":
                here.providers.append(Provider(word))
            case "version":
                provider.version = word
            case "name":
                provider.names.append(word)
            case "socket" if _SOCKET.fullmatch(word):
                provider.socket = word
            case "there":
                here.sockets.add(word)
    return found


class Encryption(OfContent):
    """Every host's API server has the keys that the snapshot's values are encrypted with."""

    order = 43

    def asks(self, n: Target) -> Sequence[Command]:
        """The manifests, and the names in the configuration that they name."""
        return [read_all(n), script(NAMES, n.node.paths.manifests)] if is_node(n) else ()

    def of(self, plan: Plan, content: Content, answers: Answers, now: float) -> Iterator[Finding]:
        """Each host by itself: one of three without a key fails every third request."""
        for node, (read, told) in heard(answers, plan.nodes):
            try:
                file = files(read.out).get("kube-apiserver.yaml") if read.ok else None
            except ParseError:
                file = None
            if file is None or file.pod is None:
                continue  # the checks of the manifests say so
            if not told.ok:
                used = _told(content.encrypted) or "nothing encrypted"
                said = told.tail() or "no answer"
                saw = f"its encryption configuration could not be looked at: {said}; the snapshot has {used}"
                yield self.warns(node.name, saw, "look yourself whether it has these keys")
                continue
            yield self._one(node, file.pod, content, configurations(told.out))

    def _one(self, node: Node, pod: StaticPod, content: Content, found: Mapping[str, Names]) -> Finding:
        inside = pod.flag(FLAG)
        path = pod.on_host(inside) if inside else ""
        used = _told(content.encrypted)
        if not inside:
            if content.encrypted:
                saw = f"its API server has no --{FLAG}, and the snapshot has {used}"
                return self.blocks(node.name, saw, "give it the configuration of that time, with these keys")
            return self.ok(node.name, "nothing in the snapshot is encrypted, and no configuration is set")
        if path not in found and any(sub for _, _, sub in pod.main.mounts):
            do = f"look yourself whether {inside} has these keys"
            return self.warns(
                node.name, f"its API server's mounts have sub paths; the snapshot has {used or 'none'}", do
            )
        if path is None or path not in found:
            saw = f"--{FLAG} is {inside}, and there is no such file ({path or 'no host path is mounted there'})"
            return self.blocks(node.name, saw, f"put it there: {on(node, 'ls', '-l', path or inside)}")
        names = found[path]
        if not names.known or names.odd or not names.providers:
            saw = f"{path} is written in a form that cannot be taken apart safely; the snapshot has {used or 'nothing'}"
            do = f"look yourself whether it has these keys: {on(node, 'less', path)}"
            if not content.encrypted:
                return self.ok(node.name, f"nothing in the snapshot is encrypted; {path} was not taken apart")
            return self.warns(node.name, saw, do)
        return self._compared(node, pod, content, path, names)

    def _compared(self, node: Node, pod: StaticPod, content: Content, path: str, names: Names) -> Finding:
        missing = [found for found in content.encrypted if not names.reads(found)]
        if missing:
            has = listed(f"{p.kind} {listed(p.names)}".strip() for p in names.providers)
            do = f"add these keys, as they were then, to {path}; else those objects cannot be read after the restore"
            return self.blocks(node.name, f"the snapshot has {_told(missing)}; {path} has {has}", do)
        if content.encrypted and not any(p.kind == "identity" for p in names.providers):
            secrets = sum(e.count for e in content.encrypted if e.kind == "secrets")
            plain = content.kinds.get("secrets", 0) - secrets
            if plain > 0:
                saw = f"{plain} Secrets of the snapshot are not encrypted, and {path} has no provider identity"
                do = f"add `identity: {{}}` as the last provider, where {path} covers Secrets"
                return self.warns(node.name, saw, do)
        plugins = [p for p in names.providers if p.kind == "kms" and _needed(p, content.encrypted)]
        if plugins:
            where = listed(f"{p.names[0]} at {p.socket or 'an unknown place'}{_there(p, pod, names)}" for p in plugins)
            do = "see to it that it answers while the control plane is down: nothing can be decrypted without it"
            return self.warns(node.name, f"the snapshot needs the KMS plugin {where}", do)
        return self.ok(node.name, f"{path} has the keys of {_told(content.encrypted) or 'nothing'}")


def _needed(plugin: Provider, encrypted: Sequence[Encrypted]) -> bool:
    return bool(plugin.names) and any(e.provider.startswith("kms ") and e.key in plugin.names for e in encrypted)


def _there(plugin: Provider, pod: StaticPod, names: Names) -> str:
    if not plugin.socket or plugin.socket.startswith("/@"):
        return ""
    outside = pod.on_host(plugin.socket)
    if outside is None:
        return " (which the API server's manifest mounts nothing at)"
    return "" if outside in names.sockets else f" (no socket is there on the host: {outside})"


def _told(encrypted: Sequence[Encrypted]) -> str:
    """Which keys were used, and for what."""
    keys: dict[tuple[str, str], list[str]] = {}
    for e in encrypted:
        keys.setdefault((e.provider, e.key), []).append(f"{e.count} {e.kind}")
    return listed(f"{provider} {key} ({listed(what)})" for (provider, key), what in keys.items())
