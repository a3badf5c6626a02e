//go:build tools

// Package tools pins the promtool that tests the alerts. Nothing imports it: it exists so that "go mod tidy" keeps every
// module the command needs in go.sum.
package tools

import _ "github.com/prometheus/prometheus/cmd/promtool"
