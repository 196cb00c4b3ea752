// SPDX-License-Identifier: Apache-2.0

// Package delay is Cicada's vocabulary: the nouns that every other package shares.
//
// A message is accepted bytes with a due instant. It is stored under a key and named by an id:
//
//	Key  = (Due, Seq)      the address of a row: sorts by time, never reused
//	ID   = what a client uses; made by the server unless the client chose one
//	Seq  = epoch << 40 | counter, per shard
//
// The package holds no behaviour beyond encoding, parsing and comparing these values, imports
// nothing but the standard library, and is safe for concurrent use because every value in it is
// plain data.
//
// # Invariants
//
//	D1  A Key names one generation of one message for ever (rule R3).
//	D2  For a message that was not late, Key.Due equals Message.Due.
//	D3  DecodeRecord(AppendRecord(m)) gives m back; decoding never panics and never reads past
//	    its input.
//	D4  An id that ParseID accepts for a cluster was made by that cluster, up to the strength of
//	    its 14 check bits. It is a check against mistakes, not a secret.
//
// See also docs/format/record.md and docs/glossary.md.
package delay
