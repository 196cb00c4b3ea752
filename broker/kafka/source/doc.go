// SPDX-License-Identifier: Apache-2.0

// Package source is the broker.Source of Kafka clusters.
//
//	           one member of the group                 one worker a partition, in order
//	topic  --poll--> dispatch --queue (bounded)--> parse --> rejects? --> Take --> refused?
//	                    ^                                       |                    |
//	                    +--- paused while its share is full     +--> reject topic <--+
//	group  <--------------------- commit: what is durable ---------------- cursor <--+ then
//
// # Invariants
//
//	K1  A partition is read from the shard's cursor where there is one, also when the group was
//	    committed further; else from where the group is; else from the start of the topic (B4).
//	K2  One worker takes from a partition, and it has ended when the call that takes the partition
//	    away returns (B5).
//	K3  The cursor passes a record that is no request, or that the shard refuses, only after its copy
//	    is in the reject topic. A reject topic that takes nothing for 30 s, or there is none, is
//	    counted and logged, and reading goes on (B6).
//	K4  The group is never told more than the shard calls durable: Cursor with commit: local,
//	    Covered with commit: tier (B4, R16).
//	K5  A topic is its id: one that was deleted and made again is another, with partitions and ids
//	    of its own (R17).
//	K6  What waits is bounded: 64 MiB of records, of which a partition that stands still has an
//	    eighth; 16 batches being taken; and what the library holds, four fetches of 8 MiB, each
//	    batch of records at most 32 MiB when decompressed. A larger one is passed over and counted.
//	K7  Only committed records of transactions are read.
//
// What the bounds do not hold: a response is decompressed at once, so a topic of nothing but bombs
// can cost the product of the two limits in K6, for as long as the response lives. Who may produce
// to a topic of requests is a matter of the brokers' permissions.
//
// # Concurrency
//
// Run polls in its own goroutine; the client library calls back from another when partitions come
// and go, never between a poll and its end, so that a commit is never about a partition that has
// moved away. A worker for each partition ends with it, and Run waits for all.
//
// # Failure
//
// Brokers that are away, slow or answer errors are tried again for ever. After a crash at any line
// reading goes on at the cursor, which was stored with the messages: what was read and not taken is
// read again, what was taken is not. What was copied to the reject topic just before a crash may be
// copied once more.
//
// See also broker/source.go, package intake and docs/operations.md.
package source
