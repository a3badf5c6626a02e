//go:build tools

// Package tools pins the image registry that the tests push to and pull from.
package tools

import _ "github.com/distribution/distribution/v3/cmd/registry"
