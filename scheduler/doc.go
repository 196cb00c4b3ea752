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
//	  committer --one Pebble batch--> core: wheel . lanes . flights . watermark
//	       ^    --synced--> reply       |
//	       |                            +--> load . deliver . lease . park . finish . watermark
//	       +------ finish, park, ... <--+
//	  tier loop: flush (offload) . drop . hydrate
//
// Files: core*.go is the core, commit*.go the committer (the only writer of the local store),
// runner.go and deliver.go the loop and the deliveries, tierloop.go the cold side, open.go
// recovery and restore, query.go the reading side, clock.go the guarded clock.
//
// # Invariants
//
//	C1  A message is claimed only at or after its due, by the guarded clock.
//	C2  A key below loadedTo is in exactly one place: wheel, ready queue, flight, parked or
//	    finished (rule R7).
//	C3  The watermark never passes an unfinished key that is not parked, nor the boundary L
//	    (rules R1, R5), and never goes back.
//	C4  Replies that promise durability take a localstore.Synced, which only a sync can make.
//	C5  Only the committer decides about ids, keys and rows; only the core decides about claims. A
//	    change asks the core before it is staged, so cancel is exact.
//	C6  Push claims stay at or below the durable claim horizon (rule R8); a pull is answered after
//	    its lease record is synced.
//	C7  Uploads hold only what is synced (rule R4); local rows are dropped only after the manifest
//	    that lists them is committed and noted locally.
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
