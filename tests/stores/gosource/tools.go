//go:build tools

// Package gosource pins the programs that tests/stores builds.
package gosource

import (
	_ "filippo.io/age/cmd/age"
	_ "github.com/fsouza/fake-gcs-server"
	_ "github.com/versity/versitygw/cmd/versitygw"
)
