//go:build tools

// Package tools pins the helm that checks and renders the chart. Nothing imports it: it exists so that "go mod tidy"
// keeps every module the command needs in go.sum.
package tools

import _ "helm.sh/helm/v4/cmd/helm"
