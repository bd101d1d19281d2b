//go:build tools

// Package metrics names the module of metrics-server, by which autoscalers know what pods use.
package metrics

import _ "sigs.k8s.io/metrics-server/cmd/metrics-server"
