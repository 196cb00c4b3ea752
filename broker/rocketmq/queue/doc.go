// SPDX-License-Identifier: Apache-2.0

// Package queue reads one queue of RocketMQ into a shard.
//
//	Reader:  cursor --pull ahead--> Parse --> Batch --> Intake.Take --> next pull
//	            ^                     |                     |
//	            |                     +----> Reject <-------+
//	            +-- Intake.Cursor, after any doubt
//
// What a record means, and what becomes of one that means nothing, is the caller's: Options.Parse
// and Options.Reject. Requests of an ordinary topic and a broker's own queues are read alike.
//
// # Invariants
//
//	Q6  One goroutine takes from a queue, in order; while a batch is stored the next ones are read
//	    ahead, at most as many as a batch holds (B5).
//	Q7  Messages that the broker lost before they were read are counted and logged, and reading
//	    goes on behind them. A queue that ends before its cursor is not read: its broker lost
//	    what was taken, and new messages under old offsets would be taken for known ones.
//
// # Concurrency
//
// Run is called once and waits for its goroutines. What a Reader tells of its position may be
// asked meanwhile by anyone.
//
// # Failure
//
// Nothing is kept here. After a crash the cursor, which is the shard's, says where to go on.
package queue
