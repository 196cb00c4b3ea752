// SPDX-License-Identifier: Apache-2.0

// Package linear checks that what clients and receivers of a shard saw of one id is what some order
// of their calls, one at a time, would have shown them (rule R12 of the simulation).
//
//	absent --submit--> scheduled --attempt--> claimed --outcome, ack--> delivered
//	   ^                |  ^  |                  |  |
//	   |                |  |  +--cancel--> cancelled |
//	   |                |  +--reschedule, fire       +--> dead, expired --retry of the dead--+
//	   |                +--ttl--> expired                                                    |
//	   |                           (scheduled) <---------------------------------------------+
//	   +--window over-- finished
//
// A Register is one id. Each call is an interval from the instant it was made to that of its
// answer, in steps of a counter; it must take effect at one point within. A call without an answer
// is open to the end, and may or may not have happened. An attempt is an operation of the daemon:
// it was claimed at some point between the start of the process and its arrival.
//
// # Invariants
//
//	N1  A call that was answered happened before every call that was made after its answer.
//	N2  A crash takes back nothing that was answered, but the outcome of an attempt that was not
//	    an ack; and a message that it may have interrupted counts as claimed (R8).
//	N3  The loss of a disk takes a message back to any of its earlier states, up to the last change
//	    that was answered with the durability tier (S5).
//	N4  The model may allow too much, never too little: what a caller does not see, such as the
//	    expiry of a message, may happen between any two operations.
//
// # Concurrency
//
// A History is confined to one goroutine; Check uses its own.
//
// # Failure
//
// Checking is exponential in the worst case and has a time limit; what was not decided is counted.
//
// See also docs/simulation.md.
package linear
