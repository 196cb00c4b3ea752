// SPDX-License-Identifier: Apache-2.0

// Package commit is the only writer of ids, keys and rows of a shard.
//
// A Committer turns requests (Op) into batches of the local store, one at a time and in order, and
// pipelines their syncs. After the sync of a batch it answers its ops, posts their events to the
// core and hands what must be uploaded to the upload.Buffer:
//
//	AcceptOp, ChangeOp, FinishOp ... --Put--> inbox --> batch --apply--> sync --> replies
//	                                                     ^                  |---> events to the core
//	                                     core.EvWithdraw |                  '---> Buffer --> bucket
//	                                     (may it change?) core
//
// A Finder looks up where a message is.
//
// # Invariants
//
//	C4  Replies that promise durability take a localstore.Synced, which only a sync can make.
//	C5  Only the committer decides about ids, keys and rows; only the core decides about claims. A
//	    change asks the core before it is staged, so cancel is exact.
//	C7  The Buffer holds only what is synced (rule R4); local rows are dropped only after the
//	    manifest that lists them is committed and noted locally.
//
// # Concurrency
//
// Put, Enqueue, Close, HandedOut and Backlog are safe for concurrent use, and so is Finder.
// Run and RunSyncs run in one goroutine each; all state of the
// Committer is confined to Run, which sends applied batches to RunSyncs. In a simulation CommitStep
// and SyncStep take their places.
//
// # Failure
//
// A crash loses what was not synced, and nothing that was not synced has been told to anybody
// (C4). An error of the store ends the Committer: everything that waits and everything that
// follows is refused with it, and Config.Broken is told once.
//
// See also package scheduler/core, whose actions become ops here, and docs/state-machine.md.
package commit
