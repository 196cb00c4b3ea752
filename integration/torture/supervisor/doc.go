// SPDX-License-Identifier: Apache-2.0

// Package supervisor runs a torture: real daemons on a real store, clients in processes of their
// own, receivers of webhooks, and faults drawn from a seed.
//
//	client processes --HTTP--> daemon A, or B --proxy--> file, versitygw or MinIO
//	       |                      |  ^ clocks, signals, disk
//	       v                      v  |
//	      logs <-- receivers <-- pushes      supervisor
//	       |
//	       +--> history.Check --> Result
//
// A run has two phases. In the first, faults come one after the other while the clients work. Then
// everything is repaired, what the clients left is consumed, and the books and the files are looked
// at. A seed repeats what clients draw and which faults come when, not how processes interleave.
//
// Run waits for everything that it starts. A process that it started dies with it, even when it is
// killed.
package supervisor
