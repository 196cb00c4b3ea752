// SPDX-License-Identifier: Apache-2.0

// Package upkeep decides what is to be done about the objects of a shard: which to compact, what a
// compaction may leave out, and which are needed no more. It decides from manifests and from what
// it was told of the objects; it reads and writes nothing itself.
//
//	manifest --Plan--> job --> merge of the inputs --Keeper.Keep--> outputs
//	    |                                ^
//	    +------Retire--> pending deletes |
//	    +------Known: what marks and kept segments hold, learned once per object
//
// # Invariants
//
//	U1  Left out of a compaction is only what no restore, hydrate or read can ask for again: what a
//	    committed mark or the committed watermark says is finished, or a settled bulk cancel
//	    covers, and whose id need not be found in a segment any more (rules R6, R14).
//	U2  What is not known is kept: an object that was not learned yet, a mark that was not loaded.
//	U3  The inputs of one job overlap, or are the oldest: no merge makes more segments overlap at
//	    any key, and every job makes fewer objects or smaller ones, so the jobs come to an end.
//	U4  Kept segments are merged as neighbours in the manifest's list, and the outputs take their
//	    place: of two with one key the later in the list stays the newer.
//	U5  A mark may go only when no listed object can hold its key, and none can be uploaded any
//	    more: its seq is not above the manifest's Uploaded.
//
// # Concurrency
//
// Known is safe for concurrent use; a Keeper belongs to one goroutine.
//
// See also docs/design/0007-compaction.md and rules R5, R6, R14.
package upkeep
