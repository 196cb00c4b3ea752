// SPDX-License-Identifier: Apache-2.0

// Package hydrate keeps local what comes near and lets go of what is far: the boundary L stays a
// horizon ahead of now (rule R1).
//
//	bucket --Ahead: scan [L, now + horizon + a step)--> rows, and L rises
//	rows   --Drop: far, and in the bucket for the drop lag--> cold
//
// It writes through the committer, which looks again at what it is given.
//
// # Concurrency
//
// A Hydrator belongs to one goroutine, but for Uploaded, which may be called from any; in a
// simulation its methods take turns.
//
// # Failure
//
// Work that fails is repeated: a hydrate that ends in the middle has raised L as far as it came.
package hydrate
