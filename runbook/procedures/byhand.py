"""The manual card: what a person types on a host where a rollback cannot go on, which is what the undo steps do.

Each line may be typed again, and where there is nothing left for it to do it does nothing; once they have been, a
rollback sees what is true and goes on from there.
"""

from __future__ import annotations

import shlex
from collections.abc import Sequence

from runbook.step import Target


def by_hand(n: Target) -> Sequence[str]:
    """Data and manifests back, with this run's paths, as lines for a root shell on the host."""
    paths, run = n.node.paths, n.bound.run
    manifests, run_dir = shlex.quote(paths.manifests), shlex.quote(n.run_dir)
    saved = f"{run_dir}/manifests/etcd.yaml {run_dir}/manifests/kube-apiserver.yaml"
    one = f'cp -a "$f" {manifests}/".${{f##*/}}" && sync {manifests}/".${{f##*/}}"'
    return [
        f"if ls {saved}; then mkdir -p {run_dir}/by-hand",
        f"  mv {manifests}/etcd.yaml {manifests}/kube-apiserver.yaml {run_dir}/by-hand/   # as far as they are there",
        "else echo 'the saved manifests are not there: STOP, and leave this host as it is'; fi",
        "crictl ps --name '^(etcd|kube-apiserver)$'   # go on when it lists none; crictl stop ID where one stays",
        "crictl pods --state ready --name '^(etcd|kube-apiserver)-'   # the same; crictl stopp ID where one stays",
        *_data_back(n),
        f"if [ -e {run_dir}/old-aside ] && [ ! -e {run_dir}/new-away ]; then",
        "  echo 'the restored data is in place: STOP'",
        f"else for f in {run_dir}/manifests/*.yaml; do {one} &&",
        f'  mv -T {manifests}/".${{f##*/}}" {manifests}/"${{f##*/}}"; done',
        f"fi   # last, once every host has its old data in place: run {run} is then undone here",
    ]


def _data_back(n: Target) -> Sequence[str]:
    """As ``scripts.SWAP_BACK``: what is new goes away once, and only where the old is there to come back."""
    paths, run = n.node.paths, n.bound.run
    data, run_dir = shlex.quote(paths.data_dir), shlex.quote(n.run_dir)
    old, away = f"{data}/.{run}.old", f"{data}/.{run}.discarded"
    there = [f"[ -e {old}/member ] || [ ! -e {run_dir}/had-member ]"]
    out, back = [f"[ ! -e {data}/member ] || mv -T {data}/member {away}/member"], []
    if paths.wal_dir:
        wal = shlex.quote(paths.wal_dir)
        old_wal, away_wal = f"{wal}/.{run}.old", f"{wal}/.{run}.discarded"
        which = "-mindepth 1 -maxdepth 1 ! -name '.*' ! -name lost+found -exec mv -t"
        there.append(f"ls {old_wal}/*.wal > /dev/null || [ ! -e {run_dir}/had-wal ]")
        out += [f"mkdir -p -m 700 {away_wal}", f"find -H {wal} {which} {away_wal} -- {{}} +"]
        back.append(f"[ ! -d {old_wal} ] || find -H {old_wal} {which} {wal} -- {{}} +")
    back.append(f"[ ! -e {old}/member ] || mv -T {old}/member {data}/member")
    return [
        f"(set -e; if [ -e {run_dir}/old-aside ] && [ ! -e {run_dir}/new-away ]; then",
        *(f"  {{ {line}; }} || {{ echo 'the old data is not there: STOP'; exit 1; }}" for line in there),
        f"  mkdir -p -m 700 {away}",
        *(f"  {line}" for line in out),
        f"  sync; touch {run_dir}/new-away; fi",
        *(f"  {line}" for line in back),
        "sync)",
    ]


def put_back(n: Target) -> Sequence[str]:
    """The old data, which somebody moved away, back to where the run had put it aside; the rollback does the rest."""
    data, run = shlex.quote(n.node.paths.data_dir), n.bound.run
    old = f"{data}/.{run}.old"
    return [
        f"find / {data} -xdev -type d -path '*/member/snap'   # where is it? {data}/member is the restored data",
        f"mkdir -p -m 700 {old}",
        f"mv -T /WHERE/IT/IS/member {old}/member   # or, from a backup of this host: cp -aT",
        f"sync -f {old}",
    ]
