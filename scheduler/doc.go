// SPDX-License-Identifier: Apache-2.0

// Package scheduler is the heart: it accepts messages, keeps the promise of their due instants and
// brings each to its target.
//
// A Shard is a stepped core and the goroutines around it. The core is a single-threaded state
// machine; it never reads a clock, starts a goroutine or does I/O, so one history of events gives
// one history of actions. The runner owns time and I/O and feeds results back as events:
//
//	Accept, Change ...            Pull, Settle                sinks
//	       |                          |  ^                      ^ |
//	       v                          v  | claims         batch | v outcomes
//	  commit ------one Pebble batch-> core: wheel . lanes . flights . watermark
//	       ^    --synced--> reply       |
//	       |                            +--> load . deliver . lease . park . finish . watermark
//	       +------ finish, park, ... <--+
//	  tier loop: flush (offload) . drop . hydrate
//
// The parts have their own packages, which do not know Shard: core decides about claims, commit is
// the only writer of the local store, recovery finds what a shard begins with, query reads, clock
// is the guarded clock, hydrate keeps local what comes near. Here is what joins them: open.go takes
// the shard, runner.go is the loop, deliver.go the deliveries, tierloop.go the cold side,
// stepped.go a shard without goroutines for simulation.
//
// # Invariants
//
// C1 to C13 belong to the parts: see their package comments. What joins them keeps three more:
//
//	C14  A pull is answered after its lease record is synced (rule R8), and an at-most-once message
//	     leaves after its outcome is synced.
//	C15  A reply of durability tier waits until the committed manifest holds the rows and the marks
//	     it stands for (rule R13).
//	C16  When Run has returned, nobody uses the store, the tier or a sink for the shard any more.
//
// # Concurrency
//
// All exported methods of Shard are safe for concurrent use. The core is confined to the runner's
// loop, the committer to its own goroutine; they exchange values, never locks.
//
// # Failure
//
// After a crash at any line the shard is reopened from the local store: rows are the truth, leases
// and attempts are rows of their own. What was in flight to push targets, or delivered within the
// last group commit (20 ms or 1,000 messages), may be attempted again (S6 of the contract).
//
// See also docs/architecture.md, docs/state-machine.md.
package scheduler
