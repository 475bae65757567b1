// Package etcd36 pins etcd 3.6 and all that it is built from; `go build` makes the lab's programs from it.
package etcd36

import (
	_ "go.etcd.io/etcd/etcdctl/v3/ctlv3"
	_ "go.etcd.io/etcd/etcdutl/v3/etcdutl"
	_ "go.etcd.io/etcd/server/v3/etcdmain"
)
