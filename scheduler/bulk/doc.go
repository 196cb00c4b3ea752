// SPDX-License-Identifier: Apache-2.0

// Package bulk cancels everything that passes a filter.
//
//	purge --BulkOp--> predicate: what is cold and matches is cancelled now, in one sentence
//	      --ChangeOp--> local rows that match, one by one, with a mark each
//	      --SweepOp--> about a second of counting; the rest follows in the background
//	      --flush----> the manifest holds the predicate: the answer
//
//	Work: for each predicate, after a crash the local rows again, then Scan --SweepOp--> counted
//	      |--> dropped when no segment can contain its keys and no id need be remembered
//
// # Invariants
//
//	C16  From the op on that makes a predicate no read, load, hydrate or change gives what it
//	     covers, and no row that it covers becomes cold (rule R6).
//	C17  What a predicate covers is counted once: below its Counted by the books, once below its
//	     Swept by slots and ids, in one batch with the position (rule R15).
//	C18  Nothing that a predicate covers outlives it: no covered row passes the boundary of what is
//	     local while rows of the predicate are still to be cancelled, so none is ever claimed, and
//	     a restore may take for cancelled whatever the predicate covers.
//
// # Concurrency
//
// A Canceller is safe for concurrent use. Several sweeps of one predicate do no harm: the committer
// knows how far it has come.
//
// # Failure
//
// A crash after the first op leaves a predicate whose local rows are not all cancelled, and a
// caller who was not answered. The next start cancels them first, then counts on from where the
// last batch left it. After the loss of the disk the predicate, its count and the books come from
// one manifest.
//
// See also docs/design/0008-bulk-cancel.md.
package bulk
