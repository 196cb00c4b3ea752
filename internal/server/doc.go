// SPDX-License-Identifier: Apache-2.0

// Package server is the front end: JSON over HTTP, and the same service over Connect and gRPC, on
// one port.
//
//	request -> cross-origin check -> routes (auth, drain, query) -> handler -> Shard
//	                                      |                            |
//	                                      '-> rpc (Connect, gRPC) -----'     errors.go answers
//
// One table, routes, names every route with its scope and its query parameters; one table, kinds,
// maps each kind of error to a Connect code and an HTTP status.
//
// # Invariants
//
//	W1  No input of a client is answered with a 5xx, but for what is not built (501) and what is not
//	    possible at the moment (503). A panic is answered 500, counted and logged.
//	W2  A reply that says accepted is written only after Shard.Accept said so (S2).
//	W3  Unknown fields and query parameters are refused; values out of range are never clamped.
//	W4  In a stream every whole line that was received is stored even if the client has vanished,
//	    and a line that was cut never is.
//	W5  Bytes of requests in flight are bounded by Options.MaxInflightBytes.
//	W6  Every route and every procedure has a rule, a scope and what it reaches; nothing behind it
//	    runs for a caller that the rule does not admit, and what runs sees the shard as this caller
//	    may see it (package access).
//	W7  After Drain begins no message is accepted and no new one is leased, while acks, nacks and
//	    reads go on.
//	W8  The audit is told of every change by an operator, and of every one that is refused to a known
//	    caller.
//
// # Concurrency
//
// A Server is safe for concurrent use. Its buffers are pooled: what a draft aliases belongs to the
// request until Shard.Accept has returned.
//
// # Failure
//
// The server keeps nothing. A crash at any line loses at most replies, and a client that got none
// repeats with the same id (S2, S4).
//
// See also api/openapi.yaml, api/cicada/v1/cicada.proto and package wire.
package server
