// SPDX-License-Identifier: Apache-2.0

// Package remoting speaks RocketMQ's own protocol, as much of it as a scheduler beside a broker
// needs: routes, sending, pulling (system topics too), offsets, queries, recalls and what a broker
// tells of itself. It uses the standard library only.
//
//	Client --Route--> name server, the next one when one does not answer
//	   |
//	   +-- endpoint (one per address) --> conn --> writer --> broker
//	           backoff, one dial            ^                   |
//	                                        +----- reader <-----+  opaque number -> waiting call
//
//	frame     = length | encoding, length of header | header (JSON or binary) | body
//	body of a pull = message | message | ...   as the commit log holds them
//
// A request goes to one address once. What came of it is an Outcome: Yes, No (not done, may be
// later), Never (not done, and the same request never will be), or Unknown. Which answer means
// what is the table at OutcomeOf.
//
// # Invariants
//
//	M1  A request is written at most once, whole or not at all as far as we know: it is No while
//	    no byte of it can have left, and Unknown from then on until its answer has come.
//	M2  No frame beyond Config.MaxFrame is read, no message inflated beyond MaxInflated, and no
//	    length of a peer's is believed before it is compared with what is there.
//	M3  At most Config.MaxInFlight requests wait at one address; more wait for their turn, as long
//	    as their contexts allow.
//	M4  After a connection has failed its address is left alone for a pause that doubles from
//	    MinBackoff to MaxBackoff; requests meanwhile fail at once, as No.
//	M5  After a call has returned nothing reads its arguments any more, and after Close no
//	    goroutine is left.
//
// # Concurrency
//
// A Client is safe for concurrent use. A connection has two goroutines; calls on it do not wait
// for each other, so a long poll holds up nothing.
//
// # Failure
//
// The client keeps nothing on disk and repeats nothing by itself: a broker that restarts costs the
// calls under way (Unknown) and those of the pause (No). A frame that is no frame ends its
// connection; a message inside a frame that cannot be read says so in Message.Err and leaves its
// neighbours alone.
//
// See also package rocketmq, which makes a Sink and a Source of it, and package fakebroker.
package remoting
