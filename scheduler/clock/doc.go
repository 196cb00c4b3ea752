// SPDX-License-Identifier: Apache-2.0

// Package clock guards the clock that decides what is due (rule R21).
//
//	wall clock --step forward by more than 2 s--> held: the boot clock goes on
//	           --step back----------------------> stands still until the wall clock catches up
//
// # Invariants
//
//	C10  The guarded clock never goes back.
//	C11  It follows a forward step only after the wall clock agrees again, an independent clock
//	     agrees with it, somebody confirmed it, or it was held for the longest time.
//	C19  It begins no later than an independent clock says, if one was heard.
//
// # Concurrency
//
// A Guarded is safe for concurrent use.
package clock
