"""The plan's other settings, from what the hosts said: owner, bump, tools, what is asked of the restored cluster."""

from __future__ import annotations

from collections.abc import Sequence

from runbook.checks.bump import enough
from runbook.checks.words import listed
from runbook.discovery.draft import Draft
from runbook.discovery.seen import Seen

MARGIN = 500_000_000
"""What a default bump must be above the last revision known, at least: days of writes between plan and outage."""
FADING = ("bootstrap-token-", "sh.helm.release.", "default-token-")
"""How names of Secrets begin that come and go by themselves."""


def owner(draft: Draft, seen: Sequence[Seen]) -> None:
    """Whom the restored data belongs to: as the old data, or, where there is none, as the manifests say."""
    asked = {s.name: (s.pod.user, s.pod.group) for s in seen if s.pod}
    disk = {s.name: s.disk.get(s.paths.data_dir) for s in seen if s.pod}
    for name, (user, group) in asked.items():
        on = disk[name]
        if on and user is not None and (user, group if group is not None else on.gid) != (on.uid, on.gid):
            says = f"runAsUser {user}" + (f", runAsGroup {group}" if group is not None else "")
            text = f"etcd.yaml says {says}, the data directory belongs to {on.owner} ({on.uid}:{on.gid})"
            draft.warn("owner", f"{text}: keep gives the restored data what the old data has", name)
    told = {pair for pair in asked.values() if pair[0] is not None}
    if len(told) == 1 and len(asked) == sum(u is not None for u, _ in asked.values()) and None in disk.values():
        user, group = told.pop()
        draft.owner = f"{user}:{group if group is not None else user}"
        draft.note("owner", "a data directory is missing, so there is none to keep: as the manifests say")
        return
    owners = listed(dict.fromkeys(f"{d.owner} {d.mode}" for d in disk.values() if d))
    draft.note("owner", f"as the old data has it: {owners or 'not known, no host shows its data directory'}")


def bump(draft: Draft, seen: Sequence[Seen]) -> None:
    """The default, or more where the last revision that anybody saw demands it."""
    told = [e.revision for s in seen for e in (*s.statuses, *s.everyone)] + [s.api_revision for s in seen if s.nodes]
    living = max(told, default=None)
    dead = max((s.dead for s in seen if s.dead is not None), default=None)
    last = max((r for r in (living, dead) if r is not None), default=None)
    snapshot = draft.source.revision
    if last is None:
        draft.warn("bump", "no etcd tells its revision: make sure that the cluster was never above snapshot + bump")
        return
    if (snapshot or 0) + draft.bump <= last + MARGIN:
        draft.bump = enough(last, snapshot or 0)
    seen_as = "the living cluster is at" if living is not None else "the dead members' data shows at least"
    what = f"{draft.bump} alone" if snapshot is None else f"snapshot {snapshot} + bump = {snapshot + draft.bump}"
    draft.note("bump", f"{seen_as} revision {last}; {what} is above it")


def tools(draft: Draft, seen: Sequence[Seen]) -> None:
    """Etcdctl and etcdutl on the hosts: the same path everywhere, or a note on bringing them along."""
    heard = [s for s in seen if s.pod]
    for tool in ("etcdctl", "etcdutl"):
        paths = dict.fromkeys(path for s in heard if (path := s.tool(tool)))
        if len(paths) == 1 and all(s.tool(tool) for s in heard):
            draft.tools[tool] = next(iter(paths))
        elif len(paths) > 1:
            draft.warn("tools", f"{tool} lies elsewhere on each host ({listed(paths)}): link it into PATH")
    for s in heard:
        lacks = [tool for tool in ("etcdctl", "etcdutl") if not s.tool(tool)]
        if lacks:
            version = etcd_version(s) or "of the cluster's version"
            text = f"no {' and no '.join(lacks)} there: put both, {version}, into a directory here, and name that"
            draft.warn("upload", f"{text} in spec.tools.upload", s.name)
    for s in heard:
        if s.version("etcdutl"):
            draft.note("tools", f"etcdutl {s.version('etcdutl')}", s.name)
        mine, etcd = s.version("etcdutl"), etcd_version(s)
        if mine and etcd and mine.split(".")[:2] != etcd.split(".")[:2]:
            draft.warn("tools", f"etcdutl is {mine}, etcd is {etcd}: bring others along (upload)", s.name)


def etcd_version(s: Seen) -> str:
    """By the member, else by the image's tag."""
    living = next((e.version for e in s.statuses if e.version), "")
    return living or (s.pod.version.partition("-")[0] if s.pod else "")


def verify(draft: Draft, seen: Sequence[Seen]) -> None:
    """What can be asked of the restored cluster: only what must be in the snapshot too, for a missing Secret halts."""
    modes = [s.api.flag("authorization-mode") for s in seen if s.api]
    if any("RBAC" in mode.split(",") for mode in modes):
        draft.rbac = ["clusterrole/cluster-admin"]
    else:
        draft.note("rbac", "no API server's --authorization-mode with RBAC was seen")
    found = {n: r for s in seen for n, r in s.secrets.items() if n.count("/") == 1 and not _fades(n)}
    if not found:
        draft.note("secrets", "namespace/name of one that is in the snapshot; no etcd could be asked for their names")
        return
    oldest = min(found, key=lambda name: (found[name], name))
    if draft.source.revision is not None and found[oldest] <= draft.source.revision:
        draft.secrets = [oldest]
        draft.note("secrets", f"made at revision {found[oldest]}, before the snapshot, and still there")
    else:
        when = "the snapshot's revision is not known" if draft.source.revision is None else "none of them is as old"
        draft.note("secrets", f"namespace/name of one that is in the snapshot: perhaps {oldest}; {when}")


def _fades(name: str) -> bool:
    return name.partition("/")[2].startswith(FADING)
