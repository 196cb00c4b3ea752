// SPDX-License-Identifier: Apache-2.0

// Package kafka is the broker.Sink of Kafka clusters; the broker.Source is package source below it.
//
//	lanes  --Deliver--> records --> topics                               idempotent
//	lanes  --Deliver--> window  --> one transaction: records + ledger    exactly once
//
// # Invariants of the sinks
//
//	K11 Deliver returns when the library has let go of what it was lent, or works on copies; what
//	    the library keeps for ever is a copy.
//	K12 A caller cannot set or forge cicada- headers, and an empty body is no tombstone.
//	K13 A broker refuses whole batches of records. What was refused together is sent again in
//	    halves until each record was refused alone (B1, S7). In exactly_once mode that keeps the
//	    order within a key; an idempotent sink may have stored later ones of the batch already.
//	K14 A transaction commits only when each message and the entry that lists them were stored. A
//	    target that cannot be written to takes no other one with it (S9).
//	K15 After an end that is not known the producer is thrown away, the ledger taken anew, and the
//	    entry looked up. Nothing is sent before that (R17).
//	K16 What was committed and answered Unknown is answered Delivered when it comes again.
//	K17 A process that was shut out does not shut its successor out: it looks who has signed before
//	    it takes the ledger again.
//
// # Concurrency
//
// Both sinks are safe for concurrent use. An Exact has one goroutine, from Recover to Close, that
// runs one transaction after the other; what the lanes deliver meanwhile waits for the next one.
//
// # Failure
//
// A crash of the process with an idempotent sink repeats what was under way (S6). In exactly_once
// mode it leaves a transaction open until the successor begins, or for 30 s: readers of committed
// messages wait there; then it was committed, and the ledger says so, or it never happened. A
// broker that dies is waited for: results are Retry where nothing can have been stored, else
// Unknown.
//
// See also packages source and ledger, broker/source.go, docs/format/ledger.md and
// docs/operations.md.
package kafka
