// SPDX-License-Identifier: Apache-2.0

// Command cicada is the daemon and its command line in one binary.
//
//	main -> ctl.Run(args) --+--> a command of package ctl
//	                        +--> serve --> config.Load --> daemon.Open --> Run
//
// # Invariants
//
//	Q1  The exit status is that of package ctl; serve ends with 0 after SIGTERM and with 1 when
//	    it could not start, was fenced or failed.
//	Q2  The first SIGINT or SIGTERM asks for an orderly end, the second ends at once. SIGHUP has
//	    the daemon read its tokens, certificates and signing keys again.
//
// It runs one goroutine of its own, which waits for signals. There is no state here to lose.
//
// See also docs/operations.md and `cicada help`.
package main
