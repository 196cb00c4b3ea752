// SPDX-License-Identifier: Apache-2.0

// Package s3 is a bucket in an S3-compatible store. Every object lies under one prefix of one
// bucket of the store:
//
//	s3://<bucket>/<prefix>/<key>
//
//	Put       PUT with If-None-Match or If-Match, never multipart; CRC32C in a header
//	Get       GET
//	GetRange  GET with Range; HEAD for a range of no bytes
//	Delete    POST ?delete, up to 1,000 keys each
//	List      GET ?list-type=2, page by page
//
// # Invariants
//
//	U1  A call is tried once; package objio repeats what may be repeated. A client that repeats a
//	    conditional write by itself turns its own success into a failed precondition.
//	U2  Put does not read the body after it has returned, also when a timed-out request still
//	    hangs in the transport: callers reuse their buffers.
//	U3  The condition and the checksum of a Put travel in headers of one request. On a multipart
//	    upload the condition would be lost, and a trailing checksum is stored as part of the
//	    object by some servers.
//	U4  Only answers that are certain become objstore's sentinels (O1).
//	U5  Errors, and everything that prints a Bucket or its Options, hold no secret and none of
//	    the store's prose: of an answer only the status, the code and the request's id are told.
//
// # Concurrency
//
// A Bucket is safe for concurrent use; at most Options.Connections requests run at a time, and
// others wait for their turn within their ctx.
//
// # Failure
//
// Nothing is kept between calls. A crash during a Put leaves the whole object or none, because the
// store knows the length from the first byte on. Whether a store honours conditions at all is
// found by package probe, not here.
//
// See also docs/design/0006-s3.md.
package s3
