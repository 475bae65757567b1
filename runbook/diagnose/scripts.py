"""The read-only shell texts of ``runbook diagnose``: POSIX sh, constant; what comes from a plan is an argument.

Each reads as a terminal would: ``$ command``, what it printed, and its exit code where that is not 0. Every command has
its own time limit, and of what it prints only the end is kept, from a whole line on.
"""

from __future__ import annotations

CUT = "[cut: only the last"
"""What the line begins with that stands before an end whose beginning is not there."""

SAY = r"""
limit=$1 cap=$2
shift 2
LC_ALL=C
export LC_ALL
worst=0
NL='
'
# keep BYTES COMMAND...: the end of what it prints; its exit code is then in $code
keep() {
  room=$1
  shift
  body=$({ timeout -k 1 "$limit" "$@" 2>&1; printf '\n%s' "$?"; } | tail -c "$((room + 5))")
  code=${body##*"$NL"}
  body=${body%"$NL"*}
  if [ "${#body}" -gt "$room" ]; then
    printf '[cut: only the last %s bytes are kept]\n' "$room"
    case $body in
      *"$NL"*) body=${body#*"$NL"} ;;
      *) body='[one line, longer than that: left out]' ;;
    esac
  fi
  [ -n "$body" ] || body='[no output]'
  printf '%s\n' "${body%"$NL"}"
  [ "$code" = 0 ] || { printf '[exit code %s]\n' "$code"; worst=$code; }
}
say() {
  printf '\n$ %s\n' "$*"
  keep "$cap" "$@"
}
have() { command -v "$1" > /dev/null 2>&1; }
"""
"""seconds for each command, bytes of each; the words behind them are the text's own."""

END = 'exit "$worst"\n'

ONE = 'say "$@"\n'
"""One command."""

HOST = r"""
say uname -a
say id
say cat /etc/os-release
say uptime
say free -m
worst=0
"""

TIME = r"""
say date -u '+%Y-%m-%d %H:%M:%S.%N UTC'
for tool in timedatectl chronyc ntpq; do
  have "$tool" || { printf '\n%s is not on this host\n' "$tool"; continue; }
  case $tool in
    timedatectl) say timedatectl ;;
    chronyc) say chronyc -n tracking ;;
    ntpq) say ntpq -pn ;;
  esac
done
"""

VERSIONS = r"""
for tool in "$@"; do
  have "$tool" || { printf '\n%s is not on this host\n' "$tool"; continue; }
  case ${tool##*/} in
    kubelet | containerd | crio) say "$tool" --version ;;
    kubectl) say kubectl version --client ;;
    kubeadm) say kubeadm version -o short ;;
    *) say "$tool" version ;;
  esac
done
"""
"""programs; one that is not there is told, and no fault."""

ETCDCTL = r"""
tool=$1
have "$tool" || tool=$2
shift 2
say "$tool" "$@"
"""
"""the etcdctl that this run brought along, the plan's, and its arguments."""

MEMBERS = r"""
url=$1 ca=$2 cert=$3 key=$4 tool=$5
have "$tool" || tool=$6
shift 6
say "$tool" "$@"
# Without a quorum etcdctl has no answer; the member's peer port tells what it knows itself.
if [ "$worst" -ne 0 ] && have curl; then
  say curl -sS --http1.1 --max-time 2 --cacert "$ca" --cert "$cert" --key "$key" "$url/members"
fi
"""
"""a peer URL, CA, certificate and key for it, then as ETCDCTL."""

KUBERNETES = r"""
say "$@" --cache-dir /dev/null get --raw /version
say "$@" --cache-dir /dev/null get --raw '/readyz?verbose'
say "$@" --cache-dir /dev/null get nodes -o wide
say "$@" --cache-dir /dev/null get pods -n kube-system -o wide
"""
"""kubectl with its flags. It would keep its answers in root's home (--raw too): nothing is written here."""

LOG = r"""
name=$1 list=$2 earlier=$3
lines=20000
printf '\n$ crictl ps -a -q --name ^%s$\n' "$name"
ids=$(timeout -k 1 "$list" crictl ps -a -q --name "^$name\$" 2>&1)
code=$?
printf '%s\n' "$ids"
ids=$(printf '%s\n' "$ids" | grep -E '^[0-9a-f]{12,64}$')
if [ "$code" -ne 0 ]; then
  printf '[exit code %s]\n' "$code"
  worst=$code
elif [ -z "$ids" ]; then
  echo "there is no container $name, running or exited"
fi
n=0
for id in $ids; do
  n=$((n + 1))
  [ "$n" -le 4 ] || { printf '\n[older containers are left out]\n'; break; }
  say crictl logs --tail "$lines" "$id"
  cap=$earlier
done
# Without the runtime, and where its containers were removed: what the kubelet keeps on the disk.
[ -n "$ids" ] || for file in $(ls -1t /var/log/pods/kube-system_"$name"-*/"$name"/*.log 2> /dev/null | head -n 3); do
  say tail -c "$((cap + 1))" -- "$file"
  cap=$earlier
done
"""
"""container, seconds to list them, bytes of each log but the newest. The newest container comes first."""

KUBELET = r"""
say systemctl status kubelet --no-pager --full --lines=0
say cat /var/lib/kubelet/kubeadm-flags.env
say cat /var/lib/kubelet/config.yaml
worst=0
"""

KUBELET_LOG = r"""
if have journalctl && [ -d /run/systemd/system ]; then
  say journalctl -u kubelet -n 20000 --no-pager -o short-iso
else
  echo "there is no journald on this host"
fi
found=
for file in /var/log/kubelet.log; do
  [ -f "$file" ] || continue
  found=1
  say tail -c "$((cap + 1))" -- "$file"
done
[ -n "$found" ] || echo "and there is no /var/log/kubelet.log"
"""

MANIFESTS = r"""
say ls -la -- "$@"
for dir in "$@"; do
  for file in "$dir"/* "$dir"/.[!.]*; do
    [ -f "$file" ] || continue
    say cat -- "$file"
  done
done
worst=0
"""
"""directories: the kubelet's, and a run's copies of what it parked."""

PROCESSES = r"""
say ps -ww -o pid,lstart,args -C etcd,kube-apiserver,kube-scheduler,kube-controller,kubelet,containerd,crio,dockerd
worst=0
"""

ENCRYPTION = r"""
found=
for dir in "$1" ${2:+"$2"}; do
  file=$dir/kube-apiserver.yaml
  [ -f "$file" ] || { printf '%s: there is no such file\n' "$file"; continue; }
  conf=$(tr '\n"'"'" '   ' < "$file" | sed -n 's/.*--encryption-provider-config[=, ][=, -]*\([^ ,]*\).*/\1/p')
  if [ -z "$conf" ]; then
    printf '%s: no --encryption-provider-config: encryption at rest is not configured\n' "$file"
    continue
  fi
  printf '%s: --encryption-provider-config=%s\n' "$file" "$conf"
  [ "$conf" != "$found" ] || continue
  found=$conf
  [ -r "$conf" ] || { printf '%s: cannot be read on this host\n' "$conf"; continue; }
  printf '\nthe kinds of providers and the names of their keys in %s, in its order (the first one writes):\n' "$conf"
  keep "$cap" grep -oE "$3" -- "$conf"
done
worst=0
"""
"""manifests, the run's copies of them or "", the pattern below. Nothing else of the file leaves the host."""
NAMES = (
    r'(^|[[:space:]{,"-])(aescbc|aesgcm|secretbox|kms|identity)"?[[:space:]]*:'
    r'|(^|[[:space:]{,"-])(name|endpoint|apiVersion)"?[[:space:]]*:[[:space:]]*"?[A-Za-z0-9._:/-]{1,253}'
    r"|^[[:space:]]*-[[:space:]]+\"?[a-z*][a-z.*]{0,62}\"?[[:space:]]*$"
)
"""Providers, names, sockets, and the kinds of resources; never a line with a key."""

DISK = r"""
for dir in "$@"; do
  [ -n "$dir" ] || continue
  say ls -la -- "$dir"
  for sub in "$dir"/member "$dir"/member/snap "$dir"/member/wal; do
    [ -d "$sub" ] && say ls -la -- "$sub"
  done
done
# A dead network file system makes them hang.
say df -h
say df -i
"""
"""directories; "" for none."""

LISTENERS = r"""
say ss -lntp
say ss -tn state established '( sport = :2379 or sport = :2380 or dport = :2380 )'
"""

CERTIFICATES = r"""
for file in "$@"; do
  say openssl x509 -noout -subject -issuer -serial -dates -ext subjectAltName -in "$file"
done
"""
"""certificates."""

RESTORE = r"""
workspace=$1 lock=$2 run=$3
say ls -la -- "$workspace"
if [ -e "$lock" ]; then say cat -- "$lock"; else printf '\nthere is no lock %s\n' "$lock"; fi
[ -n "$run" ] || for dir in $(ls -1t "$workspace" 2> /dev/null | head -n 2); do run="$run $dir"; done
for one in $run; do
  dir=$workspace/$one
  [ -d "$dir" ] || { printf '\nthis host has no directory of the run %s\n' "$one"; continue; }
  say ls -la -- "$dir"
  for intent in $(ls -1tr "$dir/commands" 2> /dev/null | sed -n 's/\.intent$//p'); do
    printf '\n--- %s\n' "$one/commands/$intent"
    f=$dir/commands/$intent
    keep 20000 cat -- "$f.intent"
    code='none: it still runs, or was killed'
    [ ! -f "$f.rc" ] || code=$(head -c 20 "$f.rc")
    printf 'its exit code: %s\n' "$code"
    for part in out err; do
      [ -s "$f.$part" ] || continue
      printf 'its .%s:\n' "$part"
      keep 40000 cat -- "$f.$part"
    done
  done
done
worst=0
"""
"""workspace, the lock, the run ("" for the two newest there). What each of its commands printed, in their order."""
