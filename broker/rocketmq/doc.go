// SPDX-License-Identifier: Apache-2.0

// Package rocketmq puts Cicada beside RocketMQ: a broker.Sink for rocketmq:<broker>/<topic>
// targets, and a broker.Source that reads requests from an ordinary topic (owner mode). Below it
// package remoting speaks the protocol, and package queue reads.
//
//	Sink:    Deliver --> route --> queue by routing key, else in turn --> one batch per queue
//	              |                                                        |
//	              |   retried and doubtful: is its key there already? -----+--> Result per message
//
//	Source:  route --> queue --pull--> parse --> Batch --> Intake.Take --> next pull
//	                     ^               |                     |
//	                     |               +--> reject topic     +--> group offset, once durable
//	                     +-- Intake.Cursor, after any doubt
//
// RocketMQ tells no repeated message from a new one, so the sink is at least once. It gives each
// generation of a message one UNIQ_KEY for ever, and before it repeats what may have arrived it
// asks the index of every broker of the topic for that key.
//
// # Invariants
//
//	Q1  A message whose send may have reached a broker is Unknown (B2). Its next attempt is a
//	    question first: a message found under its key, with its id and generation, is Delivered
//	    and not sent again.
//	Q2  A refused batch of several is sent one by one, so that one message never decides for
//	    another (B1). Nothing else is sent twice in a Deliver (B3).
//	Q3  Messages with one routing key go to one queue in the order of the batch; after one whose
//	    answer is missing the rest of its queue is not sent, so that a Deliver ends in time.
//	Q4  What RocketMQ reads as its own (a delay, a transaction, a retry) cannot be set by a
//	    caller's header.
//	Q5  A partition is rocketmq:<broker>/<broker's own name>/<topic>/<queue>. Its cursor is the
//	    shard's; the group's offset at the broker follows it (commit: local) or what a manifest
//	    covers (commit: tier), and is read only where the shard knows nothing (B4).
//
// # Concurrency
//
// A Sink is safe for concurrent use. A Source runs one goroutine per queue and some for its topic;
// Run waits for all of them.
//
// # Failure
//
// Nothing is kept on disk here. A crash between a send and the record of its outcome repeats the
// send, as S6 says, with the same UNIQ_KEY and cicada-id. A crash of the source repeats what the
// cursor does not cover, and the ids find it.
//
// See also docs/operations.md.
package rocketmq
