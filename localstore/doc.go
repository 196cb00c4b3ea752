// SPDX-License-Identifier: Apache-2.0

// Package localstore keeps the messages of one shard on the local disk: the warm tier.
//
// A Store is a directory with a Pebble store, a durability witness, a lock, a ballast file and,
// after a clean close, the filter over the known ids:
//
//	dir/LOCK      one process at a time
//	dir/witness   what was acknowledged: two slots, overwritten in turn
//	dir/ids       the filter over the ids, as of a clean close
//	dir/ballast   space that is given back when the disk is full
//	dir/db/       Pebble: every key starts with its space and the shard
//
//	space  key                value                    holds
//	m      due seq            record                   rows: the truth of what is pending
//	p      lane due seq       claimed record           parked rows
//	q      due seq            lane                     where a key is parked
//	k      id                 identity and outcome     what an id names
//	a      due seq            progress                 attempts of unfinished rows
//	d      due seq            progress record          dead letters, expired ones too
//	l      number             target and entries       leases
//	x      due seq            mark                     marks: finished or moved keys
//	f      number             mark                     marks still to be uploaded
//	e      instant kind data  -                        durable timers
//	c      source             opaque                   source cursors
//	t      target             paused, claim cursor     targets
//	h      what               counts                   the ledger: slots and lanes
//	g      what               version, meta, books     what the store knows of itself
//
// All writing is by batches. A batch changes rows and, with them, the ledger: how many messages
// and bytes each slot of the future holds. Reading never waits for writing.
//
//	NewBatch --> PutRow, Park, PutID, ... --> Apply --> Pending.Wait --> Synced
//	             rows and ledger together     |         on disk          |
//	                                          v                          v
//	                                          visible to reads           replies; witness
//
// # Invariants
//
//	L1  Only Pending.Wait makes a Synced, after the batch and all batches before it are on disk.
//	L2  The witness never names a batch that is not on disk, and follows the acknowledged ones
//	    within about a second. A store that lost a batch the witness names does not open.
//	L3  Batches are numbered without gaps in the order of the write-ahead log. Each leaves its
//	    number, and its changes to the ledger, in the ring of the last 256; every 256th writes
//	    the absolute counts instead. So the ledger after a crash is exact and opening is short.
//	L4  LastSeq is at least the seq of every row ever stored (rule R4).
//	L5  The filter never denies an id that has a record; it may doubt one that has none.
//	L6  A new store is opened, closed and reopened before its first batch: only a log begun in
//	    the current format tells damage from its end.
//	L7  No live timer lies below the timer floor.
//	L8  Pebble is closed under no call: Close waits for those that have begun.
//
// # Concurrency
//
// A Batch belongs to one goroutine. Apply may be called from several: batches take turns. Reads
// are safe at any time; after Close they answer delay.ErrClosed.
//
// # Failure
//
// A crash at any line leaves a prefix of the applied batches that holds all synced ones. An error
// of the log, the manifest or the witness is the end of the process (Options.Fatal): after a
// failed sync the kernel may claim that lost pages are clean. So is a disk that does not answer for
// Options.MaxStall, or on which ten flushes in a row fail, but for want of space. A damaged block
// is a delay.ErrCorrupt of the read that met it, or a missing row in ReadRows; the caller has the
// tier. Damage found while opening refuses the store.
//
// Packages below: codec (values), ledger (counts, timer floor), witness, bloom (the filter over
// ids), calls (what Close waits for), diskfs (what stands between Pebble and the disk).
//
// See also docs/format/localstore.md.
package localstore
