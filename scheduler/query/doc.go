// SPDX-License-Identifier: Apache-2.0

// Package query answers questions about the messages of a shard: one, a page, a count, bars.
//
// A pending message is in one of three places, which a scan merges by key, a chunk at a time:
//
//	parked rows --.
//	local rows ---+--> chunk, sorted, up to a common key --core.EvInspect--> filtered items
//	cold rows ----'    (less what marks say is finished)
//
// # Invariants
//
//	C8  A scan shows a message once: what is in two places, a row that is also in the bucket,
//	    counts as local.
//	C9  A page token names the first key that was not shown, so that pages neither repeat nor leave
//	    out what did not move meanwhile.
//
// # Concurrency
//
// A Reader is safe for concurrent use and changes nothing.
package query
