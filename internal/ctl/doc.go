// SPDX-License-Identifier: Apache-2.0

// Package ctl is the command line: every command as a function of its arguments, a daemon's API or
// the files, and three streams.
//
//	args -> cobra -> command --+--> client -> daemon's API     (most commands)
//	                           +--> localstore, tiered         (store, tier: offline)
//	                           +--> Parts.Daemon               (serve, config)
//	                           +--> child                      (bench, demo)
//	stdout = data    stderr = messages, progress    exit = kind of the outcome
//
// # Invariants
//
//	C1  Data goes to stdout and nothing else does, so that every command can be piped.
//	C2  Tables appear on a terminal only; a pipe gets tab-separated values without a header.
//	C3  A change of many messages prints their count first and is made only with --yes.
//	C4  The exit status says what happened: see the constants of exit.go.
//
// The package starts no daemon of its own and reads no clock: cmd/cicada gives it what it needs in
// Parts. A command interrupted at any line leaves at most what its last request did.
//
// See also docs/operations.md.
package ctl
