// SPDX-License-Identifier: Apache-2.0

// Package tiered is the cold tier of one shard: messages in segments in a bucket, listed by a
// manifest.
//
//	Commit(cut) --> segment.Writer --> Put l0/... kept/... marks/...   immutable, unique names
//	Compact: merge -> Put l1/...           |
//	                                      |  verify
//	                                      v
//	                                   manifest: version+1, If-Match   the only commit point
//	                                      |
//	Scan, Fetch, ScanKept, ... <----------+  what is listed can be read
//	Collect: listed -> pending delete (a commit) -> grace -> deleted -> entry removed (a commit)
//	Sweep:   listed by nobody for 72 hours -> reported -> a day later: deleted
//
// # Invariants
//
//	T1  Nothing is listed before it is stored and verified; a Commit lists all of its cut or none.
//	T2  What the manifest lists exists. An object is deleted only when the manifest that was read
//	    after the decision does not list it, and after the grace period (or, when no manifest ever
//	    listed it, after 72 hours).
//	T3  Only the owner of the current epoch commits and deletes (rule R11).
//	T4  Names are never used twice; an upload older than 55 minutes is not committed but made
//	    again under a new name (rule R22).
//	T5  A missing or corrupt object that is listed is an error, never a skip.
//	T6  A key is given at most once by a scan, however many segments hold it.
//	T7  A mark is retired only when no listed object can contain its key, and none to come can
//	    (rule R6).
//	T8  A compaction replaces its inputs in one commit: the outputs are listed and the inputs are
//	    pending deletes, or nothing has happened.
//	T9  Until the manifest was read, or found missing, nothing is taken for empty: reads are
//	    delay.ErrUnavailable. In a bucket that was used before nothing is created (rule R11).
//
// # Concurrency
//
// A Tier is safe for concurrent use. Take, Commit and Release wait for each other; reads never wait
// for them and see the manifest of the moment they began. Compact, Collect and Sweep work beside
// all of these and wait only to look at the manifest or to commit it. No lock is held during I/O.
//
// # Failure
//
// Crash before the manifest commit: the uploads are orphans, swept later. Crash after it: the cut
// is committed, and the caller learns so from the manifest. A bucket without an answer is
// delay.ErrUnavailable: the outcome of that Commit is unknown, and the next one resolves it and
// uses its uploads again. Another owner is delay.ErrFenced, for ever. A compaction that dies, or is
// overtaken, leaves orphans; a collection that dies leaves pending deletes of objects that may be
// gone, and deleting those again does nothing.
//
// See also docs/format, the packages segment and manifest, and rules R1, R5, R6, R10 to R16, R22.
package tiered
