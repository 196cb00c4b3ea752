// SPDX-License-Identifier: Apache-2.0

// Package manifest is the one mutable object of a shard: which segments exist, how far the shard
// has come, and who owns it.
//
//	            create If-None-Match: *            replace If-Match: <tag>
//	(nothing) ---------------------------> v1 e1 ------------------------> v2 e1 --> v3 e2 --> ...
//	                                                                                 take: epoch+1
//
// A commit replaces the body with version+1. Taking a shard is a commit that raises the epoch and
// puts in the new owner's nonce; from then on every commit of the old owner fails.
//
// # Invariants
//
//	M1  Versions rise by one per commit, epochs never fall, the object is never deleted.
//	M2  Exactly one commit follows any version: the tag decides, and version and nonce in the body
//	    make sure that no two bodies have the same tag.
//	M3  Whoever is told that a commit succeeded has seen the store say so, or has read back the
//	    very bytes it wrote.
//	M4  An owner that reads another nonce than its own is fenced and never commits again.
//	M5  Encode is deterministic, and Decode(Encode(s)) gives s back.
//
// # Concurrency
//
// A Store is safe for concurrent use; commits of one owner must come one after the other.
//
// # Failure
//
// The outcome of a conditional write may be unknown: the answer was lost, or the request is still
// on its way and lands later. Commit reads back. Its own bytes: done. Another body with its own
// nonce: an earlier attempt landed, and it starts over from there. The old body: it tries again;
// should the first request land in between, the second one fails and reads back. Crashing at any
// line leaves the old or the new version.
//
// See also docs/format/manifest.md and rules R10, R11, R15.
package manifest
