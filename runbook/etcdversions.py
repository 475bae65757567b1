"""What differs between etcd's series, and which versions are known to be bad: the one place that knows.

* ``etcdutl snapshot restore`` has ``--bump-revision`` and ``--mark-compacted`` from 3.5.10 on, and in 3.6: its help is
  asked on each host. Without ``--data-dir`` 3.5 refuses, and 3.6 writes into the working directory: it is always given.
* ``etcdctl snapshot status`` and ``restore`` are deprecated in 3.5. 3.6 has none, prints its help and exits with **0**:
  only etcdutl is asked.
* ``etcdutl snapshot status -w json`` has a ``version`` in 3.6 (``parse.SnapshotStatus``). Its ``totalKey`` counts every
  entry of every bucket in 3.5, and living keys in 3.6: it is compared with 0 and with nothing else.
* ``etcdctl endpoint hashkv -w json`` has a ``hash_revision`` in 3.6 (``parse.HashKV``). ``etcdutl hashkv`` is 3.6's,
  and opens the file for writing: never used.
* ``etcdctl endpoint status -w json`` knows more in 3.6 (quota, downgrade): what we do not need is not read.
* kubeadm's etcd.yaml has ``--experimental-initial-corrupt-check=true`` for 3.5 and
  ``--feature-gates=InitialCorruptCheck=true`` for 3.6: no step reads it, and the lab writes each series' own.
* Restored data over a WAL of the old cluster that begins with that cluster's first entries: 3.5 takes the members from
  the WAL, and is healthy, as the old cluster. 3.6 takes them from the data, meets in the WAL one that is not there,
  and panics ("failed to update; member unknown") at every start. The proof accepts neither; the swap moves both.

Sources: etcd's CHANGELOG-3.5.md and CHANGELOG-3.6.md, kubeadm's ``etcd/local.go``, for the members ``Recover`` in
etcd's ``membership/cluster.go``; tried on 3.5.16 and 3.6.16.
"""

from __future__ import annotations

Version = tuple[int, int, int]

BUMP_SINCE = (3, 5, 10)
"""The first with ``--bump-revision`` in etcdutl."""

BAD: tuple[tuple[Version, Version, str], ...] = (
    ((3, 5, 0), (3, 5, 2), "data may become inconsistent after a crash"),
    ((3, 5, 0), (3, 5, 5), "a crash during defragmentation corrupts data"),
    ((3, 5, 0), (3, 5, 22), "a snapshot applied during defragmentation corrupts data"),
    ((3, 6, 0), (3, 6, 4), "a snapshot applied during defragmentation corrupts data"),
    ((3, 5, 20), (3, 5, 23), "a learner's promotion may be lost"),
)
"""From etcd's changelogs: first and last version, and what is wrong with them."""


def dots(version: Version) -> str:
    """As people write it: 3.5.16."""
    return ".".join(map(str, version))


def faults(*versions: Version) -> list[str]:
    """What is known to be wrong with any of them."""
    return list(dict.fromkeys(why for first, last, why in BAD for v in versions if first <= v <= last))


def better(version: Version) -> str:
    """The next version of its series in which none of :data:`BAD` is left; 3.5.26 is the door to 3.6."""
    return "3.6.5 or later" if version[:2] >= (3, 6) else "3.5.26 or later"
