// SPDX-License-Identifier: Apache-2.0

// Package guardian keeps what RocketMQ delays from being lost: it mirrors the queues in which
// brokers hold delayed messages, and delivers what its broker provably cannot deliver any more
// (rules R18, R19).
//
//	broker: SCHEDULE_TOPIC_XXXX, rmq_sys_wheel_timer
//	   |
//	   +--mirror--> Item with a Guard --> shard --due + grace--> Judge: where its copy is, then
//	                (a roll replaces,                              whether its key is there
//	                 a recall cancels)
//	                                      the broker has it still             -> Held
//	                                      there, stored after its due         -> Suppressed
//	                                      lost and not there, twice, a grace
//	                                      apart                               -> sent: Released
//
// The broker is only read, but for what is released and for recalls that users ask for. One object
// is the Source of a cluster and its Guardian; a lane is a broker's.
//
// # Invariants
//
//	G1  A release needs two looks, a grace apart, that find the copy lost: below what the broker
//	    holds, above it, or passed by its delivery offset. The first counts only once the mirror
//	    has stored all that the queue got until after the due; the second is made of a row that
//	    was read again, so that a roll or a recall in between is seen.
//	G2  A look asks where the copies are first, and for the key second; a key that is found counts
//	    if it was stored at or after the due, or is our own. What was not found counts only if
//	    the index, or the queue in its stead, reaches back to the due.
//	G3  What stays undecided for three graces in which its broker answers is released and counted
//	    as uncertain. While the broker is away nothing is decided.
//	G4  A timer has one id however often its broker writes it anew; a message released twice has
//	    the same UNIQ_KEY and the same cicada-rescued.
//	G5  What was released is what was sent, without what made it wait.
//
// # Concurrency
//
// A Guardian is safe for concurrent use. Run has one goroutine that looks for brokers and two for
// each queue, and waits for them. Calls of Judge of the same moment are one round with one
// look, 4 rounds of a broker at a time; a round asks for at most 16 keys at a time, reads at most 8
// queues, and sends at most 64 messages.
//
// # Failure
//
// Nothing is kept on disk here: entries and cursors are the shard's. What Judge remembers between
// two looks is lost with the process, and the looks begin again. A crash between a release and the
// record of it leaves a copy that the next look finds.
//
// See also docs/design/0010-guardian.md and docs/operations.md.
package guardian
