// SPDX-License-Identifier: Apache-2.0

// Package maintain keeps the bucket of a shard in order while it serves: it compacts, collects what
// nothing needs, and looks for orphans.
//
//	every flush interval --> Compact, until nothing is due   (throttled, gives way to flushes)
//	every 10 min         --> Collect                         (retire, delete after the grace)
//	every 24 h           --> Sweep                           (reported first, deleted the next time)
//
// What is done, and how it survives a crash, is package tiered's; when, and how fast, is decided
// here. Config.Around joins its commits to those of the flushes, because the local store must note
// every version of the manifest before the next (rule R10).
//
// # Concurrency
//
// A Maintainer belongs to one goroutine; in a simulation its methods take turns.
//
// # Failure
//
// Work that fails is repeated at its next time. Only delay.ErrFenced and delay.ErrClosed end Run.
package maintain
