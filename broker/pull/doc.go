// SPDX-License-Identifier: Apache-2.0

// Package pull holds what consumers of pull queues see: queue names and receipts. A receipt is the
// consumer's proof of one lease; ack, nack and extend name a lease by it.
//
//	pull  -> {id, body, receipt}     receipt = key . epoch . attempt . queue
//	ack   <- {receipt}               the current lease: ACKED; an older one: SUPERSEDED (rule R9)
//
// A receipt says everything that is needed to find the row and to compare the lease, so no table of
// receipts exists and a receipt survives a restart as its lease record does (S7).
//
// # Invariants
//
//	P1  Parse(Append(r)) gives r back; every other spelling of r is refused, so equal receipts are
//	    equal strings.
//	P2  A text that was not made by Append, of the same cluster, is refused but for a chance of
//	    2^-32. The check guards against cut, mixed up and mistyped receipts, and those brought to
//	    another cluster; it is no secret and grants nothing that the queue's own access does not.
//	P3  Nothing here allocates on success but ParseQueue, once.
//
// The package is plain functions on plain data, safe for concurrent use; nothing in it can fail
// half-way. See also rules R8 and R9 and docs/state-machine.md.
package pull
