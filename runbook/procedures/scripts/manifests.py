"""Static pod manifests: saved, parked, given back; and the pods that come and go with them.

Where these take a ``name`` it is a component's (``etcd``): kubeadm's manifest is ``name.yaml``, its one container has
that name, and its pod the labels ``component: name`` and ``tier: control-plane`` in the namespace kube-system. Other
pods may have "etcd" in their names.
"""

from __future__ import annotations

SAVE = r"""
set -eu
from=$1
saved=$2
shift 2
mkdir -p -m 700 -- "$saved"
for f in "$@"; do
  cp -aL -- "$from/$f" "$saved/.$f"
  sync -- "$saved/.$f"
  mv -T -- "$saved/.$f" "$saved/$f"
done
sync -- "$saved" "${saved%/*}"
"""
"""manifests, saved, files. Of a symbolic link what it leads to: a copy of the link would be the same file."""

UNSAVE = r"""
set -eu
from=$1
saved=$2
shift 2
for f in "$@"; do
  rm -f -- "$saved/.$f"
  if [ -e "$from/$f" ]; then
    rm -f -- "$saved/$f"
  fi
done
"""
"""manifests, saved, files. The saved copy goes only where the manifest itself is in its place."""

STOP = r"""
set -eu
from=$1
saved=$2
limit=$3
place=${saved%/*}
run=${place##*/}
if [ -e "$place/kubelet-refuses" ] && [ "$limit" -gt 25 ]; then limit=25; fi
shift 3
for name in "$@"; do
  if [ -e "$from/$name.yaml" ]; then
    cmp -- "$from/$name.yaml" "$saved/$name.yaml" > /dev/null || {
      echo "$from/$name.yaml was changed since this run saved it ($saved/$name.yaml)" >&2
      exit 1
    }
  fi
done
for name in "$@"; do
  rm -f -- "$from/$name.yaml" "$from/.$name.yaml.$run"
done
sync -- "$from"
begun=$(date +%s)
for name in "$@"; do
  forced=
  while :; do
    left=$(crictl pods -q --state ready --label io.kubernetes.pod.namespace=kube-system \
      --label "component=$name" --label tier=control-plane) || left=unknown
    if [ -z "$left" ]; then
      left=$(crictl ps -q --label io.kubernetes.pod.namespace=kube-system \
        --label "io.kubernetes.container.name=$name") || left=unknown
    fi
    if [ -z "$left" ]; then break; fi
    if [ -n "$forced" ]; then
      echo "$name is still there after crictl stop: $left" >&2
      exit 1
    fi
    now=$(date +%s)
    if [ "$(( now - begun ))" -gt "$limit" ]; then
      echo "the kubelet did not stop $name within $limit s; crictl stop" >&2
      touch -- "$place/kubelet-refuses" || :
      for id in $(crictl ps -q --label io.kubernetes.pod.namespace=kube-system \
        --label "io.kubernetes.container.name=$name"); do
        crictl stop --timeout 30 "$id" || :
      done
      for id in $(crictl pods -q --state ready --label io.kubernetes.pod.namespace=kube-system \
        --label "component=$name" --label tier=control-plane); do
        crictl stopp "$id" || :
      done
      forced=yes
    else
      sleep 0.2
    fi
  done
  for id in $(crictl ps -a -q --state exited --label io.kubernetes.pod.namespace=kube-system \
    --label "io.kubernetes.container.name=$name"); do
    crictl rm "$id" > /dev/null || :
  done
done
"""
"""manifests, saved, seconds, names. A manifest leaves only where its saved, durable copy is the same to the byte; then
the pod must be gone.

No container is not enough: in a crash loop none runs for minutes, and a kubelet that has not yet seen that the manifest
is gone starts the next one, into whatever data is there by then. As long as the kubelet wants a pod, its sandbox is
ready; it is stopped after the containers, so it is asked for first, and the containers once.

A kubelet that started while the API server was down may refuse to delete pods: past the deadline crictl does it, the
containers with their grace, then the sandbox. It is noted, so that the next step does not wait as long in vain: in a
dead cluster that was two minutes for each of three steps (25 s are its relist and a little). Where an API server is
started, a kubelet can see one, and the note goes. What ends by itself in between makes crictl fail, and is gone
all the same: hence the question once more.

What has ended is removed: after a crash loop the kubelet would wait up to five minutes before it starts the same
manifest's container again, counted from the last one's end, which it reads off that container. Logs stay.
"""

START = r"""
set -eu
from=$1
saved=$2
run=$3
unless=$4
shift 4
if [ -n "$unless" ]; then
  if [ -e "$from/$unless.yaml" ]; then
    echo "$from/$unless.yaml is there again: somebody put it back; take it away, then resume" >&2
    exit 1
  fi
fi
for name in "$@"; do
  if [ "$name" = kube-apiserver ]; then rm -f -- "${saved%/*}/kubelet-refuses"; fi
  if [ ! -e "$from/$name.yaml" ]; then
    cp -a -- "$saved/$name.yaml" "$from/.$name.yaml.$run"
    sync -- "$from/.$name.yaml.$run"
    mv -T -- "$from/.$name.yaml.$run" "$from/$name.yaml"
  fi
done
sync -- "$from"
"""
"""manifests, saved, run, name that must not be there or "", names. The kubelet ignores dot-files, so it never reads
half a manifest."""

STOPPED = r"""
set -u
from=$1
saved=$2
shift 2
for name in "$@"; do
  [ ! -e "$from/$name.yaml" ] || { echo "$from/$name.yaml is still there"; exit 1; }
  [ -e "$saved/$name.yaml" ] || { echo "$saved/$name.yaml is missing"; exit 1; }
done
crictl ps -a -o json --label io.kubernetes.pod.namespace=kube-system || exit 3
echo ----
crictl pods -o json --label io.kubernetes.pod.namespace=kube-system || exit 3
"""
"""manifests, saved, names; read-only. The runtime's two lists, where the manifests are parked."""

LAST_WORDS = r"""
set -u
for id in $(crictl ps -a -q --state exited --label io.kubernetes.pod.namespace=kube-system \
  --label "io.kubernetes.container.name=$1"); do
  crictl inspect -o json "$id"
  echo ----
  crictl logs --tail 500 "$id" 2>&1 | tail -c 65536
  exit 0
done
"""
"""name; read-only. Of the newest container that has ended, which crictl lists first: how, and the end of its log."""

IN_PLACE = r"""
set -u
from=$1
saved=$2
shift 2
for f in "$@"; do
  [ -e "$from/$f" ] || { echo "$from/$f is not there"; exit 1; }
  [ -e "$saved/$f" ] || { echo "$saved/$f, the saved copy, is not there"; exit 1; }
  cmp -- "$from/$f" "$saved/$f" > /dev/null || {
    echo "$from/$f was changed since this run saved it ($saved/$f)"
    exit 1
  }
done
"""
"""manifests, saved, files; read-only."""

UNCHANGED = r"""
set -u
from=$1
saved=$2
shift 2
for f in "$@"; do
  [ -e "$from/$f" ] || continue
  [ -e "$saved/$f" ] || continue
  cmp -- "$from/$f" "$saved/$f" > /dev/null || echo "$from/$f was changed since this run saved it ($saved/$f)"
done
"""
"""manifests, saved, files; read-only."""
