// SPDX-License-Identifier: Apache-2.0

// Package access decides who may do what: it names the caller of a request, and shows a caller that
// is limited to some targets a shard in which nothing else exists.
//
//	request --Gate.Admit(rule)--> Caller --View(shard)--> Shard
//	  bearer token | certificate    name, scopes, targets    what goes elsewhere is not there
//
// A caller has scopes, which say what it may do, and targets, which say where: without any, that is
// everywhere. What is about the whole instance needs a caller without such a limit.
//
// # Invariants
//
//	V1  Deny by default: a rule without scope or reach admits nobody, and a method of Shard that the
//	    view does not restrict does not compile.
//	V2  A message of a foreign target is answered like one that does not exist, by the same words.
//	    What tells of it anyway: a client id that is taken is refused (already_exists).
//	V3  Secrets are compared as hashes, all of them and in constant time.
//	V4  A gate that asked for credentials never opens by a change of its tokens.
//	V5  A certificate admits as long as its chain ends in an authority that is trusted now, and it
//	    has not expired, however old its connection.
//
// # Concurrency
//
// A Gate is safe for concurrent use; Set takes effect with the next request.
//
// There is no state to lose. See also package server and docs/operations.md.
package access
