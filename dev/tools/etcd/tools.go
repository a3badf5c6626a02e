//go:build tools

// Package tools pins etcd. It has a module of its own because etcd's requirements clash with those of Kubernetes.
package tools

import _ "go.etcd.io/etcd/server/v3"
