// SPDX-License-Identifier: Apache-2.0

// Package segment is the immutable object of the tier: messages sorted by key, in blocks that
// decode alone. It is bytes in, bytes out; names, uploads and lists belong to others.
//
//	header   64 B    magic, version, flags, shard, cluster, epoch, id, count, first and last due
//	block*           64 KiB raw, zstd, items in key order        <- the unit of reading
//	id block*        (id, identity) sorted by id
//	filter           bloom filter of the ids
//	directory        per day: count, bytes, first and last block   } the tail: one read
//	index            per block: first key, lengths, count, CRC     } opens a segment
//	id index         per id block: first id, lengths, count, CRC
//	footer   192 B   where everything is, a CRC of each part and of the whole
//
// A kept segment (rule R5) has the same layout; its items also hold a delay.Progress. The second
// format, the marks object, is a list of delay.Mark in the same kind of blocks.
//
// # Invariants
//
//	G1  Items ascend strictly by key; each block decodes without any other.
//	G2  Every stored byte is covered by a checksum: any flipped bit is found by Verify, and any
//	    flipped bit of a block by the read of that block.
//	G3  A length is checked against the object and a limit before anything is allocated or read.
//	G4  The footer repeats cluster, shard, epoch and id, so an object under a wrong name is found.
//	G5  The same items give the same bytes (for one version of the zstd library).
//
// # Concurrency
//
// A Writer belongs to one goroutine. An Index is immutable; a Reader is safe for concurrent use if
// its ReadFunc is.
//
// # Failure
//
// Everything that is wrong with the bytes wraps delay.ErrCorrupt and says what and where. Nothing
// is skipped.
//
// See also docs/format/segment.md and docs/format/marks.md.
package segment
