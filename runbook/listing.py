"""All keys of a living etcd with their revisions, as one host lists them: what two questions have in common.

What a restore would lose (``checks.lost``), and what a snapshot holds that is being taken (``snapshots.taking``).
"""

from __future__ import annotations

import base64
import zlib
from collections.abc import Iterator

from runbook.step import Result

UNPACKED = 512 << 20
"""Bytes: some ten million objects."""

LIST = r"""
set -u
own=$1 before=$2 seconds=$3 rev=$4 restless=$5
shift 5
command -v -- "$1" > /dev/null || { echo "none there is no $1"; exit 0; }
for url in $before; do
  if "$@" --endpoints="$url" --dial-timeout=1s --command-timeout=1500ms endpoint status > /dev/null 2>&1; then
    echo "elsewhere $url"; exit 0
  fi
done
end=$(( $(date +%s) + seconds )) from=/registry/ limit=20 known=
size=$("$@" --endpoints="$own" endpoint status -w fields 2> /dev/null |
  awk '$1 == "\"DBSize\"" { size = $3 } END { print size }')
list() {
  while :; do
    page=$("$@" --endpoints="$own" get "$from" /registry0 --rev="$rev" --limit="$limit" --keys-only --consistency=s \
      -w fields 2>&1 | from=$from restless=$restless awk '
        $1 == "\"Revision\"" && !rev { rev = $3 }
        $1 == "\"MemberID\"" { member = $3 }
        $1 == "\"Key\"" { key = substr($0, 10, length($0) - 10) }
        $1 == "\"CreateRevision\"" { create = $3 }
        $1 == "\"ModRevision\"" && key != ENVIRON["from"] {
          n = split(key, p, "/")
          place = p[3]
          if (n < 4) next
          if (!ENVIRON["restless"] && (place == "leases" || place == "masterleases" || place == "events")) next
          if (place == "services" || index(place, ".")) { if (n < 5) next; place = place "/" p[4] }
          if (place == "persistentvolumes") print "volume", create, $3, p[4]
          else print place, create, $3
        }
        $1 == "\"More\"" { more = $3 }
        $1 == "\"Count\"" { count = $3 }
        { said = $0 }
        END { if (rev) print "page", rev, member, (more == "true" ? "more" : "end"), (count ? count : 0), key
              else print "failed", said }')
    last=$(printf '%s\n' "$page" | tail -n 1)
    printf '%s\n' "$page"
    case $last in page\ *\ more\ *) ;; *) return ;; esac
    [ "$rev" != 0 ] || { rev=${last#page }; rev=${rev%% *}; }
    from=${last#* more }
    count=${from%% *} from=${from#* }
    case $from in *\\*) echo "failed a key that has a backslash: $from"; return ;; esac
    if [ -z "$known" ]; then
      known=1 limit=$(( count * 64 / (${size:-1073741824} / 1048576 + 1) ))
      [ "$limit" -gt 20 ] || limit=20
      [ "$limit" -lt 10000 ] || limit=10000
    fi
    [ "$(date +%s)" -lt "$end" ] || { echo late; return; }
  done
}
if command -v gzip > /dev/null; then echo packed; list "$@" | gzip -1 | base64 -w 0; else echo plain; list "$@"; fi
"""
"""This host's client URL, those of the hosts before it, seconds, the revision (0: the present one), whether Leases and
events are listed too (not: ""), and etcdctl with its flags. Only the first whose etcd lives lists. Etcd reads the
values too of all keys that it is asked for, so that as many are asked for at a time as have 64 MiB of values on the
average, ten thousand at most."""


def lines(result: Result) -> tuple[list[str], str]:
    """What :data:`LIST` printed, line by line; or why there is nothing: "" where this host's etcd does not answer."""
    how, _, body = result.out.partition("\n")
    if how == "packed":
        try:
            unpacked = zlib.decompressobj(wbits=31).decompress(base64.b64decode(body), UNPACKED)
        except (ValueError, zlib.error):
            return [], "its list was cut off"
        body = unpacked.decode(errors="replace")
    elif how.startswith("elsewhere "):
        return [], f"{how.partition(' ')[2]} should have been asked, and that host is silent"
    elif how != "plain":
        return [], how.partition(" ")[2] if how.startswith("none ") else ""
    return body.splitlines(), ""


def objects(listed: list[str]) -> Iterator[tuple[str, int, int]]:
    """Place below ``/registry``, and the revisions at which it was created and last changed, of each object."""
    for line in listed:
        match line.split():
            case ["volume", create, mod, _] if create.isdigit() and mod.isdigit():
                yield "persistentvolumes", int(create), int(mod)
            case [place, create, mod] if create.isdigit() and mod.isdigit() and place != "page":
                yield place, int(create), int(mod)
