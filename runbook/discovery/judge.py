"""Is there a plan in what was seen? Refusals first, each with what was seen and what to do; then the draft."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from runbook.checks.words import listed, on
from runbook.discovery import draft as drafting
from runbook.discovery import settings
from runbook.discovery.asks import SIGNS
from runbook.discovery.draft import UNLISTED, Draft, Source, no_control_plane
from runbook.discovery.seen import NO_TOOL, Seen
from runbook.errors import NOTE, Held, Refused
from runbook.held import MEANS, adoption, described
from runbook.shown import grouped

TRUE = "no host is changed, and no plan was written"
SERVICES = {"etcd": "etcd as a service of the host", "k3s": "k3s", "rke2-server": "RKE2"}
MANAGED = {"EKS": "AWS", "GKE": "Google", "AKS": "Azure"}


def judge(
    seen: Sequence[Seen],
    source: Source,
    resolved: Mapping[str, Iterable[str]] | None = None,
    known: Mapping[str, bool] | None = None,
) -> Draft:
    """The draft of a plan. Raises Refused where none can be made, Held where another run is why.

    ``resolved``: the addresses of silent hosts, by their word; ``known``: which names and addresses known_hosts has.
    """
    made = Draft(source=source)
    seen = drafting.one_each(seen, made)
    _refuse(seen)
    given = [s for s in seen if not s.silent and not s.pod]
    for s in seen:
        if s.holder:
            made.warn("top", f"another run holds {s.word}: {described(s.holder)}; {MEANS}")
    drafting.add_nodes(made, seen, resolved or {})
    drafting.common(made, seen)
    drafting.add_workers(made, seen, given, known or {})
    settings.owner(made, seen)
    settings.bump(made, seen)
    settings.tools(made, seen)
    settings.verify(made, seen)
    _clusters(made, seen)
    _lists(made, seen)
    _name(made, seen)
    return made


def _refuse(seen: Sequence[Seen]) -> None:
    heard = [s for s in seen if not s.silent]
    if not heard:
        told = [f"{listed(words)}: {why}" for words, why in grouped((s.word, s.silent) for s in seen)]
        raise Refused(
            "no host could be asked:\n  " + "\n  ".join(told),
            true=TRUE,
            means="without an answer from at least one control plane nothing is known of the cluster",
            next=tuple(on(s.place, "true") for s in seen[:1]),
        )
    external = [s for s in heard if s.api and not s.pod and s.foreign and len(s.foreign) == len(s.etcd_servers)]
    if external:
        told = [f"{s.word}: kube-apiserver has --etcd-servers={','.join(s.etcd_servers)}" for s in external]
        raise Refused(
            f"the etcd is external, not a static pod of the control planes: {'; '.join(told)}",
            true=TRUE,
            means="runbook restores etcd where it runs as a static pod beside the API server, as kubeadm sets it up",
            next=("etcdutl snapshot restore --help   # restore it on its own hosts, with all API servers stopped",),
        )
    headless = [s for s in heard if s.api and not s.pod]
    if headless or not any(s.pod for s in heard):
        _nothing(heard, headless)
    names: dict[str, str] = {}
    for s in heard:
        if s.pod and (other := names.setdefault(s.name, s.word)) != s.word:
            raise Refused(
                f"{other} and {s.word} are two machines, and both etcd.yaml say --name={s.name}",
                true=TRUE,
                means="one of them is a copy of the other, or stands in for it; both cannot be restored as one member",
                next=(f"runbook init --host {other}   # with the hosts that belong to the cluster",),
            )


def _nothing(heard: Sequence[Seen], headless: Sequence[Seen]) -> None:
    """No etcd.yaml, or not on every control plane: what is there instead."""
    held = [s for s in heard if s.holder and not s.pod]
    if held:
        who = "; ".join(f"another run holds {s.word}: {described(s.holder)}" for s in held if s.holder)
        one = next((s for s in held if s.holder and s.holder.run), held[0])
        run, workspace = (one.holder.run, one.holder.workspace) if one.holder else ("", "")
        adopt = adoption(one.place, run, workspace)
        next_ = (f"runbook status {run}".strip(), f"{adopt}{NOTE}only where its machine is lost")
        raise Held(f"{who}; and its manifests are not in place", true=TRUE, means=MEANS, next=next_)
    kinds = dict.fromkeys(kind for s in heard for kind in _others(s))
    told = [f"{s.word}: {_instead(s)}" for s in (headless or heard)]
    if kinds and not headless:
        names = listed(kinds)
        managed = next((k for k in kinds if k in MANAGED), "")
        means = f"{managed}'s control plane, etcd included, is {MANAGED[managed]}'s" if managed else ""
        raise Refused(
            f"this is no kubeadm control plane but {names}: {'; '.join(told)}",
            true=TRUE,
            means=means or "its etcd does not run as a static pod of kubeadm's, which is all that runbook restores",
            next=("restore it with that distribution's own means",),
        )
    raise Refused(
        f"no etcd.yaml: {'; '.join(told)}",
        true=TRUE,
        means="member names, URLs and directories are read from each control plane's own etcd.yaml",
        next=("put the manifests back where the kubelet looks for them, or name the control planes with --host",),
    )


def _others(s: Seen) -> list[str]:
    signs = [SIGNS[sign] for sign in s.looked.many.get("sign", ()) if sign in SIGNS]
    services = [kind for name, kind in SERVICES.items() if s.looked.pairs.get(f"service {name}") == "active"]
    return list(dict.fromkeys([*signs, *services]))


def _instead(s: Seen) -> str:
    """What a host without a usable etcd.yaml has."""
    file = s.looked.files.get("etcd.yaml")
    if s.looked.unread:
        return f"{s.paths.manifests} cannot be read: {s.looked.unread}"
    if file and file.pod:
        return f"{s.paths.manifests}/etcd.yaml runs {file.pod.main.program or 'its image’s own entry point'}, not etcd"
    if file:
        return f"{s.paths.manifests}/etcd.yaml: {file.why}"
    if s.api:
        return f"kube-apiserver.yaml is there, etcd.yaml is not in {s.paths.manifests}"
    odd = [f.name for f in s.looked.files.values() if f.pod and f.pod.runs("etcd")]
    if odd:
        return f"etcd runs from {listed(odd)}, which is not kubeadm's etcd.yaml"
    signs = listed(s.looked.many.get("sign", ()))
    return f"{no_control_plane(s)}{f', but {signs}' if signs else ''}: a worker?"


def _clusters(made: Draft, seen: Sequence[Seen]) -> None:
    """Members that are in different clusters already: a restore of a part, or a member that began anew."""
    by_id: dict[int, list[str]] = {}
    for s in seen:
        for e in s.statuses:
            by_id.setdefault(e.cluster_id, []).append(s.name)
    if len(by_id) > 1:
        told = "; ".join(f"{listed(names)} in {cluster:x}" for cluster, names in by_id.items())
        made.warn("nodes", f"the members are in different clusters already: {told}: find out why before you go on")


def _lists(made: Draft, seen: Sequence[Seen]) -> None:
    """What could not be asked, and URLs that the cluster knows otherwise than etcd.yaml does."""
    asked = [s for s in seen if s.pod]
    if not any(s.members for s in asked):
        reasons = grouped((s.name, s.members_said or s.etcd_said or "not asked") for s in asked)
        why = "; ".join(f"{listed(names)}: {reason}" for names, reason in reasons)
        say = made.warn if any(s.etcd_said == NO_TOOL for s in asked) else made.note
        say("nodes", f"no member listed the cluster ({why}): whether others live could not be asked, compare by hand")
    listed_ = {m.name: set(m.peer_urls) for s in asked if s.members for m in s.members.members}
    for s in asked:
        if s.foreign:
            text = f"kube-apiserver has --etcd-servers={','.join(s.etcd_servers)}, not its own member alone"
            made.warn(f"node {s.name}", f"{text}: `run` refuses that", s.name)
        if listed_ and s.name not in listed_ and not any(set(s.peer_urls) & urls for urls in listed_.values()):
            made.warn(f"node {s.name}", UNLISTED.removeprefix("; "), s.name)
        if s.name in listed_ and listed_[s.name] != set(s.peer_urls):
            other = listed(sorted(listed_[s.name]))
            text = f"the cluster lists it at {other}, its etcd.yaml at {listed(s.peer_urls)}"
            made.warn(f"node {s.name}", text, s.name)


def _name(made: Draft, seen: Sequence[Seen]) -> None:
    """The cluster's name, where it can name a run."""
    from runbook.planfile.words import plan_name

    told = [(s.kubeadm.get("clusterName", ""), "kubeadm's clusterName") for s in seen]
    told += [(s.looked.words.get("cluster", ""), f"the cluster's name in {s.paths.kubeconfig}") for s in seen]
    for name, where in told:
        if name and not plan_name(name):
            made.name = name
            made.note("name", f"{where}; names the run, its directories and its token")
            return
    made.note("name", "the cluster's own name is not known, or no DNS label")
