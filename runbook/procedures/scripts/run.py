"""The run's own place on a host: the lock, its directory, files of it."""

from __future__ import annotations

MAKE_DIR = r"""
set -eu
place=$1
shift
mkdir -p -m 700 -- "$place" "$@"
sync -- "$@" "$place" "${place%/*}/"
"""
"""directory, directories in it. Their names are made durable: what comes into them is synced there alone."""

RESTART_KUBELET = r"""
set -eu
systemctl restart kubelet
touch -- "$1"
"""
"""mark. Noted only afterwards: to restart a kubelet twice does no harm."""

LOCK = r"""
set -eu
if [ ! -e "$1" ]; then
  printf '{"run": "%s", "holder": "%s", "since": "%s", "dir": "%s"}\n' "$2" "$3" "$(date -u +%FT%TZ)" "$4" > "$1.$2"
  sync -- "$1.$2"
  ln -T -- "$1.$2" "$1" || :
fi
rm -f -- "$1.$2"
sync -- "${1%/*}"
grep -qF -- "\"run\": \"$2\"," "$1"
"""
"""lock, run, holder, run dir. ``ln`` is what decides between two that come at once. Synced: a lock that a power cut
took away would let another run in. It names the run's directory, which else only the plan knows."""

UNLOCK = r"""
set -eu
rm -f -- "$1.$2"
if [ -e "$1" ]; then
  if grep -qF -- "\"run\": \"$2\"," "$1"; then
    rm -- "$1"
    sync -- "${1%/*}"
  fi
fi
"""
"""lock, run. Synced: after a power cut the lock of a run that has ended would refuse every later one."""

DIGEST = r"""
openssl dgst -sha256 -r -- "$1" 2>/dev/null || sha256sum -- "$1"
"""
"""file; read-only. openssl is several times faster than sha256sum on many hosts, and not on all of them."""

PROVEN = r"""
set -u
boot=$(cat -- /proc/sys/kernel/random/boot_id 2>/dev/null)
is=$(stat -c '%i %s %y %z' -- "$1" 2>/dev/null)
if [ -n "$boot" ] && [ -n "$is" ] && [ "$(cat -- "$1.proven" 2>/dev/null)" = "$2 $boot $is" ]; then
  echo "$2 $1"
else
  openssl dgst -sha256 -r -- "$1" 2>/dev/null || sha256sum -- "$1"
fi
"""
"""file, SHA-256; read-only. The upload hashed the file, and noted which it was: inode, size, and when its content and
its inode last changed. Where that is still so, in the same life of the host, it is not read again; whatever touched it
since has it hashed anew."""

ABSENT = r"""
set -u
for f in "$@"; do
  [ ! -e "$f" ] || { echo "$f is still there"; exit 1; }
done
"""
"""files; read-only."""

SWEEP = r"""
set -u
for name in restoring.tmp restoring restored old discarded; do
  for dir in "$1" "$2"; do
    if [ -n "$dir" ]; then
      rm -rf -- "$dir/.$3.trash" || exit 1
      if [ -e "$dir/.$3.$name" ]; then
        mv -T -- "$dir/.$3.$name" "$dir/.$3.trash" || exit 1
        sync -- "$dir" || exit 1
        rm -rf -- "$dir/.$3.trash" || exit 1
      fi
    fi
  done
done
for dir in "$1" "$2"; do
  if [ -n "$dir" ]; then sync -- "$dir" || exit 1; fi
done
rm -rf -- "$4" || exit 1
if [ -d "${4%/*}" ]; then sync -- "${4%/*}" || exit 1; fi
rmdir --ignore-fail-on-non-empty -- "${4%/*}" 2>/dev/null || :
"""
"""data or "" on a worker, wal or "", run, run dir. Only what carries this run's id, and an empty workspace.
Data is renamed first: half of it must never pass for the whole."""
