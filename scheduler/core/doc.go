// SPDX-License-Identifier: Apache-2.0

// Package core decides which messages are claimed, when, and in which order.
//
// The Core of a shard is a single-threaded state machine. It reads no clock, starts no goroutine
// and does no I/O: an Event tells it what happened at which instant, and it answers with Actions
// for others to carry out, whose results come back as events. One history of events gives one
// history of actions.
//
//	EvAccepted, EvLoaded --> wheel --due--> lanes --claim--> flights --> ActDeliver, ActGrant
//	                                          |                 |
//	                  old, or memory is short |                 | EvOutcomes, EvSettle
//	                                          v                 v
//	                                       ActPark          ActFinish --> watermark
//
// References (Ref) stand for messages here; bodies are read by whoever hands them over.
//
// # Invariants
//
//	C1  A message is claimed only at or after its due, by the instants that Step is given.
//	C2  A key below loadedTo is in exactly one place: wheel, ready queue, flight, parked or
//	    finished (rule R7).
//	C3  The watermark never passes an unfinished key that is not parked, nor the boundary L
//	    (rules R1, R5), and never goes back.
//	C6  Push claims stay at or below the durable claim horizon, and those of parked rows at or
//	    below the lane's durable claim cursor (rule R8).
//	C7  What is with sinks and between attempts is bounded in messages and bytes, for a lane and
//	    for all of them, and no lane can take the share of the others.
//	C8  Of what a lane claims at least every second message is one that has just come due, if
//	    there is one, and every second one of its backlog.
//	C9  A lane is let go when nothing refers to it any more, and only then.
//
// # Concurrency
//
// A Core is confined to one goroutine. What waits for its answer gets it through a channel of
// capacity 1 in the event, so that the core never waits.
//
// # Failure
//
// The core is rebuilt after a crash from Start, EvParkedLanes and EvRecovered: it keeps nothing
// that is not in the local store, but for claims up to the durable horizon and cursor.
//
// See also package scheduler/commit, which carries out what must be durable.
package core
