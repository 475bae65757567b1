#!/bin/sh
# The guide's restore of three control planes, as an experienced person would have scripted it: its commands, in its
# order, over plain ssh, host by host. tests/bench/outage.py compares runbook with it.
#
#   baseline.sh SSH_CONFIG SNAPSHOT BUMP POLL
#
# The snapshot lies here and, as in the guide, already on the first node as /opt/backup/etcd.db; the others get it in
# step 2. More options for ssh and scp may stand in $SSH_OPTIONS.
#
# It is meant to be as quick as the guide allows: one ssh for each host and step, with the waiting done on the host; no
# sleeps but those of POLL seconds between two polls, which are the engine's own; nothing that the guide does not ask for.
# Prints a line "NAME SECONDS-SINCE-1970" where each part begins; outage_begins is the host's own time, just before the
# first mv, so that the connection to it is not counted.
set -eu

config=$1
snapshot=$2
bump=$3
poll=$4
nodes='m1 m2 m3'
others='m2 m3'
there=/opt/backup/etcd.db
cluster=m1=https://10.0.1.10:2380,m2=https://10.0.1.11:2380,m3=https://10.0.1.12:2380
token=etcd-cluster-restored-$bump # new for each restore
etcdctl='etcdctl --endpoints=https://127.0.0.1:2379 --cacert=/etc/kubernetes/pki/etcd/ca.crt
  --cert=/etc/kubernetes/pki/etcd/server.crt --key=/etc/kubernetes/pki/etcd/server.key'
etcdctl=$(echo "$etcdctl" | tr '\n' ' ')
kubectl='kubectl --kubeconfig /etc/kubernetes/admin.conf'

address() {
  case $1 in
    m1) echo 10.0.1.10 ;;
    m2) echo 10.0.1.11 ;;
    m3) echo 10.0.1.12 ;;
  esac
}

on() {
  host=$1
  shift
  ssh -n -F "$config" ${SSH_OPTIONS:-} "$host" "$@"
}

mark() {
  printf '%s %s\n' "$1" "$(date +%s.%N)"
}

# Step 1: stop the API server and etcd on all nodes.
mark begins
first="printf 'outage_begins %s\n' \$(date +%s.%N);"
for node in $nodes; do
  on "$node" "$first mv /etc/kubernetes/manifests/kube-apiserver.yaml /etc/kubernetes/manifests/etcd.yaml /tmp/"
  first=
done
for node in $nodes; do
  on "$node" "while crictl ps | grep -qE 'etcd|apiserver'; do sleep $poll; done"
done

# Step 2: distribute the snapshot.
mark distribute
for node in $others; do
  scp -q -F "$config" ${SSH_OPTIONS:-} "$snapshot" "$node:$there"
done

# Steps 3 and 4: put the old data aside, restore with the node's own parameters, fix the ownership.
mark restore
for node in $nodes; do
  on "$node" "mv /var/lib/etcd /var/lib/etcd.bak && etcdutl snapshot restore $there --name $node \
    --data-dir /var/lib/etcd --initial-cluster $cluster --initial-cluster-token $token \
    --initial-advertise-peer-urls https://$(address "$node"):2380 --bump-revision $bump --mark-compacted \
    && chown -R --reference=/var/lib/etcd.bak /var/lib/etcd" >&2
done

# Step 5: etcd first, then the API servers.
mark start_etcd
for node in $nodes; do
  on "$node" "mv /tmp/etcd.yaml /etc/kubernetes/manifests/"
done
on m1 "until $etcdctl endpoint health; do sleep $poll; done" >&2
mark start_api_servers
for node in $nodes; do
  on "$node" "mv /tmp/kube-apiserver.yaml /etc/kubernetes/manifests/"
done
for node in $nodes; do
  on "$node" "until $kubectl get --raw /readyz >/dev/null 2>&1; do sleep $poll; done"
done
mark outage_ends

# Step 6: restart the kubelets and verify.
for node in $nodes; do
  on "$node" "systemctl restart kubelet"
done
on m1 "$kubectl get nodes && $kubectl get pods --all-namespaces && $etcdctl member list" >&2
mark ends
