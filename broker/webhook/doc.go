// SPDX-License-Identifier: Apache-2.0

// Package webhook is the broker.Sink for http:// and https:// targets: one POST per message, to
// addresses that the operator allows and no others.
//
//	accept:   target --Check--> URL, host, literal address           no I/O
//	deliver:  target --Check--> POST --dial--> resolve --> Control(actual address) --> connect
//	                                                       every connection, every address
//	          answer: 2xx delivered . 408 425 429 5xx retry . other 3xx 4xx rejected
//	          none:   before a connection was had: retry . after: unknown
//
// What may be reached is decided twice, because a name can resolve to anything at any time: Check
// looks at what is written in the target, and the dialer looks at each address immediately before
// it connects. docs/design/0005-webhooks.md explains the policy and the headers.
//
// # Invariants
//
//	W1  No connection is opened to an address that the policy refuses, whatever the target, the
//	    resolver or the receiver says. Redirects and proxies are never followed.
//	W2  Every POST ends within Options.Timeout and a Deliver within twice that; of an answer at
//	    most 64 KiB of header and 64 KiB of body are read, and none of it is kept.
//	W3  A request of which a byte may have been sent is Unknown until an answer says otherwise
//	    (B2), and is never sent again by this package or by net/http (B3).
//	W4  A caller cannot set or forge what this package and HTTP itself say: cicada-*,
//	    idempotency-key, user-agent, framing and hop-by-hop headers.
//	W5  Reasons, errors and logs hold no body, no query, no secret and no text of the receiver's.
//	W6  After Deliver has returned nothing reads the batch any more, even when a connection
//	    still waits to send.
//
// A Sink is safe for concurrent use; a Deliver sends at most 16 requests at a time and waits for
// them. Nothing is kept on disk: a crash between the POST and the recording of its outcome repeats
// the POST with the same idempotency-key (S6).
//
// See also package broker and docs/operations.md.
package webhook
