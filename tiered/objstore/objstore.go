// SPDX-License-Identifier: Apache-2.0

// Package objstore is the edge to the object store: the few operations Cicada needs of a bucket,
// with the three outcomes of a remote call made explicit. Implementations: memory, filesystem, s3;
// faulty decorates any of them. objstoretest is the suite that each passes.
//
// # Invariants
//
//	O1  An error other than the sentinels below means: outcome unknown. The write may have
//	    happened, and the caller resolves it by reading.
//	O2  A conditional Put is one atomic step: of any number of racing writers on one key with the
//	    same condition exactly one wins.
//	O3  A Get returns exactly the bytes asked for or an error, never fewer.
package objstore

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// The answers that are certain: nothing was changed by the call that got one.
var (
	ErrNotFound     = errors.New("objstore: not found")
	ErrPrecondition = errors.New("objstore: precondition failed")
	// ErrThrottled asks the caller to slow down.
	ErrThrottled = errors.New("objstore: throttled")
	// ErrRefused: the store understood and refused (credentials, name, size, checksum). Repeating
	// the same call is useless.
	ErrRefused = errors.New("objstore: refused")
	// ErrSkewed is an ErrRefused: the clocks of this machine and of the store are too far apart for
	// a signature to hold. It says nothing of the bucket, and passes when the clock is set.
	ErrSkewed = fmt.Errorf("%w: the clocks differ too much", ErrRefused)
)

// Condition guards a Put. The zero value is no condition.
type Condition struct {
	Absent bool   // the key must not exist (If-None-Match: *)
	ETag   string // the current object must have this tag (If-Match)
}

// Info describes an object. Tags are opaque: compare, never parse.
type Info struct {
	Key      string
	Size     int64
	ETag     string
	Modified time.Time // by the store's clock
}

// Bucket is an object store below one prefix. Keys are made of [a-z0-9/._-] only. All methods are
// safe for concurrent use and honour ctx.
type Bucket interface {
	// Put stores body under key, whole or not at all, and returns the new tag. ErrPrecondition
	// when cond does not hold (an If-Match on a missing key is ErrPrecondition too).
	Put(ctx context.Context, key string, body []byte, cond Condition) (etag string, err error)
	// Get returns the whole object.
	Get(ctx context.Context, key string) (body []byte, info Info, err error)
	// GetRange fills exactly length bytes from offset into a new slice. A range beyond the end is
	// ErrRefused.
	GetRange(ctx context.Context, key string, offset, length int64) ([]byte, error)
	// Delete removes keys; a missing key is no error. On an error some may be gone.
	Delete(ctx context.Context, keys ...string) error
	// List calls fn for every object below prefix in key order until fn returns false.
	List(ctx context.Context, prefix string, fn func(Info) bool) error
	// Close releases connections and files.
	Close() error
}

// Prover is implemented by buckets whose store may prove what it has stored.
type Prover interface {
	// PutProved is Put without a condition. proved says that the store has compared all of the body
	// with its checksum, so that nothing need be read back.
	PutProved(ctx context.Context, key string, body []byte) (proved bool, err error)
}

// Clock is implemented by buckets that know the time of an independent clock (the Date header of
// a remote store), for the guarded clock (rule R21).
type Clock interface {
	// RemoteTime is the store's time at the moment of the last answer, and the local moment of it.
	RemoteTime() (remote, local time.Time, ok bool)
}
