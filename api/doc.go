// SPDX-License-Identifier: Apache-2.0

// Package api holds the wire contract and nothing else: cicada/v1/cicada.proto with its generated
// code for Connect and gRPC, and openapi.yaml for the JSON API. Both describe one service on one
// port; a test in internal/server keeps openapi.yaml and the handlers equal.
//
// The generated code is made by protoc 3.21 with protoc-gen-go v1.36.12 and
// protoc-gen-connect-go v1.21.1 on the PATH.
package api

//go:generate protoc --go_out=paths=source_relative:. cicada/v1/cicada.proto
//go:generate protoc --connect-go_out=paths=source_relative:. cicada/v1/cicada.proto
