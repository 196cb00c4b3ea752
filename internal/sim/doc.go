// SPDX-License-Identifier: Apache-2.0

// Package sim plays histories of a shard in which one seed decides everything, faults included, and
// checks at every step that the promises of the contract hold.
//
//	                    seed
//	                      |
//	                      v
//	clients --requests--> World --picks one--> task of the shard | strand | time | trouble
//	consumers                |
//	   ^                     v
//	   |      scheduler.Stepped: core, committer, deliveries, flush, hydrate ... as tasks
//	   |        |            |                |
//	checkers  disk        bucket            sink       what is real: all of our code, Pebble
//	model   (crashable) (memory, faulty)  (scripted)
//
// The world is one goroutine. What can wait (a request, a delivery, a flush) is a strand, a
// coroutine that runs until it yields; between any two turns another strand may run, time may
// pass, the process may die, the power may fail or the disk may be lost. The model knows what
// clients were told and what receivers have; the checkers compare. After a phase with faults
// comes one without, at whose end everything must be finished.
//
// A process with its disk is a node. There may be several: one that took the shard last, which
// clients talk to, those that had it before, and one that is about to take it.
//
// Files: world.go the loop, strand.go the coroutines, node.go a process and its end, owners.go
// several of them, client.go, change.go, pull.go and race.go the clients, sink.go the receivers,
// check.go and bounds.go the checkers, clock.go the time, recur.go schedules and limits, run.go the
// two phases, giveback.go what follows. Packages: swarm draws what a seed means, disk decides what
// is synced, model is the truth with the checkers of one message, linear judges the order of calls,
// racing has clients race, hands moves the clock, recurring judges firings, limits what targets
// get, audit watches the bucket, trace remembers.
//
// # Invariants
//
//	W1  One strand runs at a time, and only the world resumes one.
//	W2  The same seed gives the same trace: nothing depends on the order of map iteration, on
//	    goroutines of others, or on real time.
//	W3  What a power failure leaves is decided by the world, not by when Pebble's log was synced.
//	W4  A checker accuses only when no order of the open requests explains what it saw.
//
// # Concurrency
//
// A World is confined to one goroutine. Run may be called from several.
//
// # Failure
//
// A broken promise ends the history with a Failure: what, the seed, the options, the last lines of
// the trace about the message, and the command that plays it again.
//
// See also docs/simulation.md.
package sim
