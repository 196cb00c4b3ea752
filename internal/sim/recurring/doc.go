// SPDX-License-Identifier: Apache-2.0

// Package recurring makes the schedules of a simulated history and judges their firings: rule R20
// in other words than the product's.
//
//	            make, pause, resume, fire, replace, cancel
//	clients  ----------------------------------------------> shard
//	                                                           |
//	Book: definitions, gaps, settled  <---- firings ---- receivers
//
// The instants of every schedule here are a grid, {first, period}, so that they can be counted
// without a calendar. A gap is a time that the shard did not see: its process was down or stood
// still, or the schedule was paused.
//
//	          from          sure ............... until   to
//	----------|-------------|--------------------|-------|-----> the clock of the shard
//	  in time    may be missed       missed        may be
//
// # Invariants
//
//	G1  A firing is an instant of its schedule, or was asked for by hand.
//	G2  What was missed is made up for as the policy says, and not otherwise.
//	G3  Every instant is in exactly one firing: as itself, or as one of those missed before it.
//	    The loss of a disk may put it in two, and takes none from a schedule of durability tier.
//	G4  Only what lies in a gap is missed.
//	G5  A schedule that was cancelled or replaced fires no more.
//	G6  Without faults every instant fires.
//
// A Book is confined to one goroutine.
package recurring
