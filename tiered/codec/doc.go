// SPDX-License-Identifier: Apache-2.0

// Package codec holds what the formats of the tier share: checked varints, CRC32C, a 64-bit hash
// and zstd blocks that decode alone.
//
// # Invariants
//
//	C1  A Reader never panics and never reads past its input; the first thing that was wrong
//	    sticks, and every later read gives zero.
//	C2  Decompress never gives more than the raw length it was told, and an error when it is less.
//
// # Concurrency
//
// A Zstd is safe for concurrent use; a Reader belongs to one goroutine.
//
// See also docs/format/segment.md and docs/format/manifest.md.
package codec
