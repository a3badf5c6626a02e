//go:build tools

// Package tools pins the Dragonfly manager and scheduler that the tests preheat through.
package tools

import (
	_ "d7y.io/dragonfly/v2/cmd/manager"
	_ "d7y.io/dragonfly/v2/cmd/scheduler"
)
