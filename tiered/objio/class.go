// SPDX-License-Identifier: Apache-2.0

package objio

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/cicadamq/cicada/delay"
	"github.com/cicadamq/cicada/tiered/objstore"
)

// Class says how urgent a request is. The zero value is the most urgent.
type Class uint8

// The classes, the most urgent first.
const (
	Read       Class = iota // hydrate, fallback, a look at the manifest, taking and leaving a shard
	Write                   // offload
	Background              // compaction, collection
	classes
)

// String is the word for logs and metrics.
func (c Class) String() string {
	switch c {
	case Read:
		return "read"
	case Write:
		return "write"
	default:
		return "background"
	}
}

type classKey struct{}

// As gives the requests of ctx a class.
func As(ctx context.Context, c Class) context.Context {
	return context.WithValue(ctx, classKey{}, c)
}

func classOf(ctx context.Context) Class {
	c, _ := ctx.Value(classKey{}).(Class)
	return c
}

// ErrPaused is a request that was not made, because its class is paused (I6). It wraps
// delay.ErrUnavailable.
var ErrPaused = fmt.Errorf("%w: the bucket does not answer, paused", delay.ErrUnavailable)

// Errors of the gate besides.
var (
	errNoRetry = fmt.Errorf("%w: the retry budget is used up", delay.ErrUnavailable)
	errQueue   = fmt.Errorf("%w: %d requests wait already", ErrPaused, maxQueue)
)

// Change tells that a class was paused, or that it goes on.
type Change struct {
	Class  Class
	Paused bool
	For    time.Duration // how long it was paused; 0 at the beginning
	Cause  error         // of the last attempt; nil at the end
}

// Health is how a class does.
type Health struct {
	Class   Class
	Paused  bool
	Since   time.Time // when it was paused; zero: it is not
	Limit   int       // requests that may be under way
	Under   int       // that are
	Waiting int       // for a slot
	Retries int       // left in the budget
}

// outcome is what an attempt says of the bucket.
type outcome uint8

const (
	answered  outcome = iota // whatever it was: the store is there
	throttled                // it is there and busy
	silent                   // nothing certain
	unasked                  // the caller gave up first: nothing is learnt
)

func outcomeOf(ctx context.Context, err error) outcome {
	switch {
	case err == nil, Certain(err):
		return answered
	case errors.Is(err, objstore.ErrThrottled):
		return throttled
	case ctx.Err() != nil:
		return unasked
	default:
		return silent
	}
}
