"""Static pod manifests as kubeadm writes them: what etcd.yaml and kube-apiserver.yaml say, as typed data."""

from __future__ import annotations

import posixpath
from dataclasses import dataclass
from functools import lru_cache

from runbook.shape import ParseError, Shape, brief, from_yaml

__all__ = ["Container", "StaticPod", "manifest"]


@dataclass(frozen=True)
class Container:
    """One container of the pod. ``mounts`` is (mount path, volume name, sub path), as written."""

    name: str
    image: str
    command: tuple[str, ...]
    mounts: tuple[tuple[str, str, str], ...]
    run_as_user: int | None
    run_as_group: int | None = None

    @property
    def program(self) -> str:
        """The base name of what it runs; "" where the image's own entry point decides."""
        return posixpath.basename(self.command[0]) if self.command else ""

    @property
    def flags(self) -> dict[str, str]:
        """The command's flags without their dashes, ``--a=b`` and ``--a b`` alike; a bare flag is "true".

        Where one is given twice the last counts, as in Go's flag packages.
        """
        found: dict[str, str] = {}
        words = self.command[1:]
        for i, word in enumerate(words):
            if not word.startswith("-") or word.strip("-") == "":
                continue
            name, equals, value = word.lstrip("-").partition("=")
            if not equals:
                following = words[i + 1] if i + 1 < len(words) else "-"
                value = "true" if following.startswith("-") else following
            found[name] = value
        return found

    def runs(self, program: str) -> bool:
        """It is an etcd, or a kube-apiserver: by its name, its command or its image."""
        image = posixpath.basename(self.image).partition("@")[0].partition(":")[0]
        return program in (self.name, self.program, image)


@dataclass(frozen=True)
class StaticPod:
    """A static pod. ``volumes`` is volume name → (path on the host, hostPath's type), host paths only."""

    name: str
    namespace: str
    containers: tuple[Container, ...]
    volumes: dict[str, tuple[str, str]]
    run_as_user: int | None
    run_as_group: int | None = None

    @property
    def main(self) -> Container:
        """The first container: kubeadm's control-plane pods have no other."""
        return self.containers[0]

    @property
    def container(self) -> str:
        """The first container's name."""
        return self.main.name

    @property
    def command(self) -> tuple[str, ...]:
        """The first container's command and arguments."""
        return self.main.command

    @property
    def flags(self) -> dict[str, str]:
        """The first container's flags."""
        return self.main.flags

    @property
    def image(self) -> str:
        """The first container's image."""
        return self.main.image

    def flag(self, name: str, default: str = "") -> str:
        """One flag of the first container."""
        return self.main.flags.get(name, default)

    def urls(self, name: str) -> tuple[str, ...]:
        """A flag that is a list of URLs."""
        return tuple(url for url in self.flag(name).split(",") if url)

    def runs(self, program: str) -> bool:
        """One of its containers is an etcd, or a kube-apiserver."""
        return any(c.runs(program) for c in self.containers)

    def on_host(self, path: str) -> str | None:
        """Where a path of the first container lies on the host; None where no host path is mounted there.

        The longest mount path that holds it wins, as in the container.
        """
        path = posixpath.normpath(path)
        for mount, volume, sub in sorted(self.main.mounts, key=lambda m: -len(posixpath.normpath(m[0]))):
            mount = posixpath.normpath(mount)
            if path == mount or path.startswith(mount.rstrip("/") + "/"):
                if volume not in self.volumes:
                    return None
                return posixpath.normpath(posixpath.join(self.volumes[volume][0], sub, posixpath.relpath(path, mount)))
        return None

    @property
    def data_dir(self) -> str | None:
        """The host's directory behind etcd's ``--data-dir``; None where the flag or its mount is missing."""
        path = self.flag("data-dir")
        return self.on_host(path) if path else None

    @property
    def wal_dir(self) -> str | None:
        """The host's directory behind ``--wal-dir``; "" where the flag is missing, None where its mount is."""
        path = self.flag("wal-dir")
        return self.on_host(path) if path else ""

    @property
    def user(self) -> int | None:
        """The numeric user that it runs as, where the manifest says one; kubeadm's own says none, which is root."""
        return self.main.run_as_user if self.main.run_as_user is not None else self.run_as_user

    @property
    def group(self) -> int | None:
        """The numeric group, likewise."""
        return self.main.run_as_group if self.main.run_as_group is not None else self.run_as_group

    @property
    def version(self) -> str:
        """The image's tag without a leading v, ``3.5.16-0``; "" where the image has none."""
        base = posixpath.basename(self.image).partition("@")[0]
        return base.partition(":")[2].removeprefix("v")


@lru_cache(maxsize=64)
def manifest(text: str) -> StaticPod:
    """One static pod manifest, YAML or JSON. ParseError where the kubelet would not find a pod in it.

    Several checks ask for the same few texts, and reading YAML is slow: hence the cache.
    """
    top = Shape(from_yaml(text), "manifest")
    if top.text("kind", "") != "Pod":
        raise ParseError(f"kind is {brief(repr(top.text('kind', '')))}, not Pod")
    meta, spec = top.child("metadata"), top.child("spec")
    inside = tuple(_container(c) for c in spec.children("containers"))
    if not inside:
        raise ParseError("manifest.spec.containers: a pod without containers")
    return StaticPod(
        name=meta.text("name"),
        namespace=meta.text("namespace", "default"),
        containers=inside,
        volumes=_volumes(spec),
        run_as_user=_security(spec, "runAsUser"),
        run_as_group=_security(spec, "runAsGroup"),
    )


def _container(c: Shape) -> Container:
    return Container(
        name=c.text("name"),
        image=c.text("image", ""),
        command=c.texts("command") + c.texts("args"),
        mounts=tuple((m.text("mountPath"), m.text("name"), m.text("subPath", "")) for m in c.children("volumeMounts")),
        run_as_user=_security(c, "runAsUser"),
        run_as_group=_security(c, "runAsGroup"),
    )


def _volumes(spec: Shape) -> dict[str, tuple[str, str]]:
    found = {}
    for v in spec.children("volumes"):
        if "hostPath" in v:
            host = v.child("hostPath")
            found[v.text("name")] = (host.text("path"), host.text("type", ""))
    return found


def _security(of: Shape, key: str) -> int | None:
    security = of.maybe("securityContext")
    return security.number(key) if key in security else None
