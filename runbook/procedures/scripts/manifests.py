"""Static pod manifests: saved, parked, given back; and the containers that come and go with them."""

from __future__ import annotations

SAVE = r"""
set -eu
mkdir -p -m 700 -- "$2"
cp -a -- "$1/$3" "$2/.$3"
sync -- "$2/.$3"
mv -T -- "$2/.$3" "$2/$3"
sync -- "$2"
"""
"""manifests, saved, file."""

UNSAVE = r"""
set -eu
rm -f -- "$2/.$3"
if [ -e "$1/$3" ]; then
  rm -f -- "$2/$3"
fi
"""
"""manifests, saved, file. The saved copy goes only where the manifest itself is in its place."""

PARK = r"""
set -eu
if [ -e "$1/$3" ]; then
  cmp -- "$1/$3" "$2/$3"
  rm -- "$1/$3"
fi
sync -- "$1"
"""
"""manifests, saved, file. A manifest leaves only where its saved, durable copy is the same to the byte."""

UNPARK = r"""
set -eu
if [ ! -e "$1/$3" ]; then
  cp -a -- "$2/$3" "$1/.$3.$4"
  sync -- "$1/.$3.$4"
  mv -T -- "$1/.$3.$4" "$1/$3"
fi
sync -- "$1"
"""
"""manifests, saved, file, run. The kubelet ignores dot-files, so it never reads half a manifest."""

GONE = r"""
set -u
end=$(( $(date +%s) + $2 ))
while :; do
  if ids=$(crictl ps -q --name "^$1\$" --label io.kubernetes.pod.namespace=kube-system); then
    if [ -z "$ids" ]; then exit 0; fi
  fi
  if [ "$(date +%s)" -gt "$end" ]; then break; fi
  sleep 0.2
done
echo "the kubelet did not stop $1 within $2 s; crictl stop" >&2
crictl stop --timeout 30 $ids && exit 0
ids=$(crictl ps -q --name "^$1\$" --label io.kubernetes.pod.namespace=kube-system) || exit 1
[ -z "$ids" ]
"""
"""container, seconds. A kubelet that started while the API server was down may refuse to delete pods.

A container that ends between the question and `crictl stop` makes that fail, and is gone all the same.
"""

PARKED = r"""
set -u
from=$1
saved=$2
shift 2
for f in "$@"; do
  [ ! -e "$from/$f" ] || { echo "$from/$f is still there"; exit 1; }
  [ -e "$saved/$f" ] || { echo "$saved/$f is missing"; exit 1; }
done
"""
"""manifests, saved, files; read-only."""

IN_PLACE = r"""
set -u
from=$1
saved=$2
shift 2
for f in "$@"; do
  cmp -- "$from/$f" "$saved/$f" || exit 1
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
