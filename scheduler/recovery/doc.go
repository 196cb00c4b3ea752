// SPDX-License-Identifier: Apache-2.0

// Package recovery takes a shard and finds what it begins with, before anything runs.
//
//	Own: believe the disk or not (R10), take the next epoch or go on without the bucket (R11)
//	bucket --Restore, when the disk is new--> local store --Find--> lanes, flights, what to upload
//
// Restore brings back everything but the cold messages and the ids that segments name; those
// follow while the shard serves (rules R5, R14, R15).
//
// # Invariants
//
//	C12  Rows are the truth: an attempt or a lease without a row is of a finished message, and is
//	     dropped.
//	C13  A restored store is believed only when all of it is there: Meta.Adopted is written last.
//
// # Concurrency
//
// A Recoverer is used by one goroutine, once.
//
// # Failure
//
// A crash in Find changes nothing; one in Restore leaves a store that is not adopted, and that its
// next owner refuses and sets aside.
package recovery
