// SPDX-License-Identifier: Apache-2.0

// Package integration tests the real program from outside: it builds cmd/cicada, starts it as a
// child process, and talks to it as clients, operators and scripts do. It imports no package of the
// product, so that a test cannot agree with the code about what is wrong.
//
//	go test .                           everything; the first time MinIO is built meanwhile
//	CICADA_TORTURE=10m go test -run Torture .
//	                                    kill -9, lost disks and restarts for longer
//	CICADA_SEED=7 go test -run Torture .
//	                                    one history of the clients and the kills again
//	CICADA_BINARY=/path/to/cicada go test .
//	                                    another build
//	go test -run TestMinIO .            the cold tier on the real MinIO
//	go test -run '^$' -bench Tier -benchtime 1x -timeout 60m .
//	                                    the cold tier's figures
//
// See also docs/testing.md.
package integration
