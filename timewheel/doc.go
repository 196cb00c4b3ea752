// SPDX-License-Identifier: Apache-2.0

// Package timewheel holds entries until their tick comes: a hierarchical timing wheel.
//
// A wheel is a stack of circular arrays. A slot of one level covers the whole level below it, like
// the hands of a clock, so that adding and cancelling cost the same however far away an entry is
// (Varghese and Lauck, "Hashed and Hierarchical Timing Wheels", SOSP 1987, scheme 7):
//
//	level     a slot is  slots  the level spans   slots that are aligned with
//	--------  ---------  -----  ----------------  ---------------------------------
//	0         1 ms        1000  1 s               the second of the current tick
//	1         1 s           60  1 min             the minute of the current tick
//	2         1 min         60  1 h               the hour of the current tick
//	3         1 h           24  1 day             the day of the current tick (UTC)
//	4         1 day        512  512 days          the era of the current tick
//	Overflow                 1  everything later
//
// A tick is one millisecond. Every slot knows the number of its entries and the sum of their
// sizes: the wheel is also the histogram of what it holds (Slots).
//
// # Example
//
// The current tick is 12:34:56.789. An entry for 12:34:58.000 is not in this second but in this
// minute, so Add links it into slot 58 of level 1. Nothing happens until the current tick reaches
// 12:34:58.000; then slot 58 cascades: its entries move to the millisecond slots of level 0, this
// one to slot 0, and from there they are handed out.
//
//	level 2   ... | 34 | 35 | 36 | ...
//	                 |
//	level 1          +-- ... | 57 | 58 | 59 |
//	                                |  cascade at 12:34:58.000
//	level 0                         +-- 000 | 001 | ... | 999
//	                                     |  expire
//	due                                  +-- sorted, handed out in chunks
//
// # Invariants
//
//	W1  An entry is handed out once or cancelled once, and never handed out before its tick.
//	W2  Entries are handed out by (tick, Compare, insertion).
//	W3  An entry whose tick is not expired lives in the lowest level that spans both it and the
//	    current tick. So all of one level comes before all of the next, the first occupied slot
//	    of the lowest occupied level is the next one, and the place of an entry follows from its
//	    tick.
//	W4  Len and Bytes are the sums over Slots.
//	W5  A handle of an entry that is gone cancels nothing, although its node is used again.
//	W6  Advance costs a bounded number of steps per entry and per occupied slot; empty slots,
//	    however many, are skipped by bitmaps. One slot is sorted once, if it is not in order.
//	W7  Add, Cancel and Advance allocate nothing per entry. Memory follows the number of entries
//	    in chunks, up and down.
//
// # Concurrency
//
// A Wheel belongs to one goroutine. It starts none, takes no lock and reads no clock: the caller
// says what tick it is.
//
// # Failure
//
// A wheel is memory only; after a crash the caller fills a new one from what is durable.
//
// See also docs/glossary.md and package localstore, which continues the levels on disk.
package timewheel
