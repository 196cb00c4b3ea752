// SPDX-License-Identifier: Apache-2.0

// Package bench measures a daemon through its public API, and reports what was really received.
//
//	Ingest   N messages, batches over C connections      accepted/s, call latency
//	Spike    N messages due at one instant, 4 pullers    lateness, early, lost, duplicates
//	Steady   N messages a second                         the same
//
// # Invariants
//
//	N1  Accepted counts replies that carried an id; a request without a reply counts as failed.
//	N2  Early, lost and duplicates are computed from the ids that the replies named and the ids
//	    that were pulled, never assumed.
//	N3  Lateness is the moment the whole reply was read and decoded minus due, on the client's
//	    clock. With a daemon on another machine the clocks' difference is part of it.
//	N4  The report names the client's encoding: in a spike the consumer's decoder can cost as
//	    much as the daemon.
//
// Generators and pullers run on goroutines that each function here starts and waits for.
package bench
