// SPDX-License-Identifier: Apache-2.0

// Package nats is the broker.Sink and the broker.Source of NATS JetStream.
//
//	deliver:  batch --HPUB, one after another--> stream --acks, any order--> results
//	          Nats-Msg-Id = id: what is sent again within the stream's window is stored once
//
//	read:     durable pull consumer, explicit acks
//	          session: reset to min(ack floor + 1, cursor) --pull--> records --Take--> shard
//	                                                         |                          |
//	                      position, no gap in the deliveries-+      Cursor or Covered --+--> acks
//
// What was taken is known twice: by the cursor, which the shard stores with the messages, and by
// the consumer's ack floor, which tells the server what it may delete. A consumer alone is no
// cursor: after a crash it gives new records at once and the old ones that nobody acknowledged
// later, in no order, so that a cursor that followed it would pass records that were never stored.
// So each session sets the consumer back to the lower of the two and reads on from there in order.
// What is below the cursor is not taken again, only acknowledged; what is above it but below the
// ack floor, after the loss of a disk, is read again as far as the stream still has it. The server
// sets consumers back since 2.14. Before that the consumer is deleted and made again, which would
// cost a stream with interest retention its messages: such a stream is refused there.
//
// # Invariants
//
//	N1  No message reaches a subject with a wildcard, or one of the system ($JS.API.>, _INBOX.>),
//	    whatever its target says.
//	N2  A caller cannot set or forge cicada-* and Nats-* headers: the latter are orders to the
//	    server, to purge a subject for instance.
//	N3  What was published is Unknown until the stream's answer, or the server's that there is no
//	    stream, says otherwise (B2). Every attempt at a generation of a message has the same
//	    Nats-Msg-Id, and a duplicate that the stream suppressed is Delivered.
//	N4  Only what is below Cursor, or with commit: tier below Covered, is acknowledged (B4).
//	N5  A session ends when the deliveries of the consumer are not consecutive: a record that was
//	    lost on its way, or given to another process, is read again before the cursor passes it.
//	N6  Of a stream at most three pulls of MaxBatch records or MaxPullBytes are held, and the
//	    addresses of MaxAckPending acks.
//	N7  The cursor belongs to one stream and its creation. A stream whose last sequence is below the
//	    cursor is another one under an old name: it is not read.
//
// A Sink is safe for concurrent use. A Source runs once; its Run starts the goroutines that pull
// and waits for them. Nothing is kept on disk. A crash before an ack makes the server deliver
// again, what the cursor tells from what is new; a crash between a publish and its outcome repeats
// the publish, which the stream suppresses within its duplicate window and which is a duplicate
// after it (S6).
//
// See also package broker, docs/operations.md and broker/intake for the headers.
package nats
