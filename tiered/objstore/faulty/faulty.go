// SPDX-License-Identifier: Apache-2.0

// Package faulty makes any bucket fail as remote stores do, for tests and the simulator.
//
//	                 +-- fail: nothing happened, the caller is not told so
//	call --> dice ---+-- apply, then fail: it happened, the caller is not told so
//	                 +-- throttle, truncate, flip a bit, list what was
//	                 +-- apply
//
// # Invariants
//
//	X1  With one caller at a time, the same seed, options and calls give the same faults.
//	X2  Writes are never changed: what is applied is applied as the bucket below does it.
//
// A Bucket is safe for concurrent use; the order of concurrent calls then decides the faults.
package faulty

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"github.com/cicadamq/cicada/tiered/objstore"
)

// The causes of failures. Neither is one of objstore's sentinels: the outcome is unknown.
var (
	ErrInjected = errors.New("faulty: injected")
	ErrDown     = errors.New("faulty: the bucket is down")
)

// Call is one call of a Bucket, for the hooks.
type Call struct {
	Op   string // "put", "put_if", "get", "get_range", "delete", "list"
	Key  string // the first key, or the prefix of a list
	Size int64  // of the body or range, when it is known before the call
}

// Options are probabilities in [0, 1] and hooks. The zero value never fails.
type Options struct {
	FailBefore float64 // fails without having done anything
	FailAfter  float64 // fails after the bucket did it
	Throttle   float64 // objstore.ErrThrottled, nothing done
	Truncate   float64 // Get and GetRange give fewer bytes and no error
	FlipBit    float64 // Get and GetRange give a wrong bit and no error
	StaleList  float64 // List misses the newest objects

	// Before is called ahead of every call: a pause is latency, an error fails the call without
	// effect. After is called with the call's result and may replace it. Both may be nil.
	Before func(ctx context.Context, c Call) error
	After  func(ctx context.Context, c Call, err error) error

	StaleObjects int // how many of the last puts a stale list misses. Default 3

	// Dice, if set, gives the generator that decides about one call, instead of the Bucket's own:
	// then the faults need not depend on the order of concurrent calls. It must be fast.
	Dice func(c Call) *rand.Rand
}

// Bucket decorates another bucket.
type Bucket struct {
	inner objstore.Bucket
	opts  Options

	mu     sync.Mutex
	rng    *rand.Rand
	down   bool
	quiet  bool
	recent []string // the keys put last, the newest at the end
	calls  int
}

var _ objstore.Bucket = (*Bucket)(nil)

// New decorates inner; rng decides, and belongs to the Bucket from now on.
func New(inner objstore.Bucket, rng *rand.Rand, opts Options) *Bucket {
	if opts.StaleObjects <= 0 {
		opts.StaleObjects = 3
	}
	return &Bucket{inner: inner, opts: opts, rng: rng}
}

// SetDown makes every call fail without effect until it is set to false again.
func (b *Bucket) SetDown(down bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.down = down
}

// SetQuiet turns the dice off, or on again; hooks and SetDown stay.
func (b *Bucket) SetQuiet(quiet bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.quiet = quiet
}

// Calls is the number of calls so far.
func (b *Bucket) Calls() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.calls
}

// fate is what the dice say of one call.
type fate struct {
	before, after, throttle, truncate, flip, stale bool
	at                                             float64 // where to cut or flip
}

// draw rolls as often for every call, so that one option does not shift the others' faults.
func (b *Bucket) draw(c Call) (fate, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.calls++
	rng := b.rng
	if b.opts.Dice != nil {
		rng = b.opts.Dice(c)
	}
	roll := func(p float64) bool { return rng.Float64() < p && !b.quiet }
	f := fate{
		before: roll(b.opts.FailBefore), after: roll(b.opts.FailAfter),
		throttle: roll(b.opts.Throttle), truncate: roll(b.opts.Truncate),
		flip: roll(b.opts.FlipBit), stale: roll(b.opts.StaleList), at: rng.Float64(),
	}
	if b.down {
		return f, ErrDown
	}
	return f, nil
}

// do runs one call under its fate.
func (b *Bucket) do(ctx context.Context, c Call, apply func(fate) error) error {
	f, err := b.draw(c)
	if err == nil && b.opts.Before != nil {
		err = b.opts.Before(ctx, c)
	}
	switch {
	case err != nil:
		return fmt.Errorf("%s %s: %w", c.Op, c.Key, err)
	case f.throttle:
		return fmt.Errorf("%s %s: %w", c.Op, c.Key, objstore.ErrThrottled)
	case f.before:
		return fmt.Errorf("%s %s: %w before it was done", c.Op, c.Key, ErrInjected)
	}
	err = apply(f)
	if f.after {
		err = fmt.Errorf("%s %s: %w after it was done", c.Op, c.Key, ErrInjected)
	}
	if b.opts.After != nil {
		err = b.opts.After(ctx, c, err)
	}
	return err
}

// Put implements objstore.Bucket.
func (b *Bucket) Put(
	ctx context.Context, key string, body []byte, cond objstore.Condition,
) (etag string, err error) {
	c := Call{Op: "put", Key: key, Size: int64(len(body))}
	if cond != (objstore.Condition{}) {
		c.Op = "put_if"
	}
	err = b.do(ctx, c, func(fate) error {
		var err error
		if etag, err = b.inner.Put(ctx, key, body, cond); err == nil {
			b.remember(key)
		}
		return err
	})
	if err != nil {
		return "", err
	}
	return etag, nil
}

func (b *Bucket) remember(key string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.recent = append(b.recent, key)
	if over := len(b.recent) - b.opts.StaleObjects; over > 0 {
		b.recent = slices.Delete(b.recent, 0, over)
	}
}

// Get implements objstore.Bucket.
func (b *Bucket) Get(
	ctx context.Context, key string,
) (body []byte, info objstore.Info, err error) {
	err = b.do(ctx, Call{Op: "get", Key: key}, func(f fate) error {
		var err error
		body, info, err = b.inner.Get(ctx, key)
		body = spoil(f, body)
		return err
	})
	if err != nil {
		return nil, objstore.Info{}, err
	}
	return body, info, nil
}

// GetRange implements objstore.Bucket.
func (b *Bucket) GetRange(
	ctx context.Context, key string, offset, length int64,
) (body []byte, err error) {
	err = b.do(ctx, Call{Op: "get_range", Key: key, Size: length}, func(f fate) error {
		var err error
		body, err = b.inner.GetRange(ctx, key, offset, length)
		body = spoil(f, body)
		return err
	})
	if err != nil {
		return nil, err
	}
	return body, nil
}

// spoil changes a copy that belongs to the caller (X2).
func spoil(f fate, body []byte) []byte {
	at := int(f.at * float64(len(body)))
	switch {
	case len(body) == 0:
	case f.truncate:
		return body[:at]
	case f.flip:
		body[at] ^= 1 << (at % 8)
	}
	return body
}

// Delete implements objstore.Bucket.
func (b *Bucket) Delete(ctx context.Context, keys ...string) error {
	c := Call{Op: "delete"}
	if len(keys) > 0 {
		c.Key = keys[0]
	}
	return b.do(ctx, c, func(fate) error { return b.inner.Delete(ctx, keys...) })
}

// List implements objstore.Bucket. A stale list lacks the objects put last.
func (b *Bucket) List(
	ctx context.Context, prefix string, fn func(objstore.Info) bool,
) error {
	return b.do(ctx, Call{Op: "list", Key: prefix}, func(f fate) error {
		var hidden []string
		if f.stale {
			hidden = b.newest()
		}
		return b.inner.List(ctx, prefix, func(i objstore.Info) bool {
			return slices.Contains(hidden, i.Key) || fn(i)
		})
	})
}

func (b *Bucket) newest() []string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return slices.Clone(b.recent)
}

// Close implements objstore.Bucket. It closes the bucket below and never fails by itself.
func (b *Bucket) Close() error { return b.inner.Close() }

// Latency is a Before hook that waits a random time up to most, drawn from rng.
func Latency(rng *rand.Rand, most time.Duration) func(context.Context, Call) error {
	var mu sync.Mutex
	return func(ctx context.Context, _ Call) error {
		mu.Lock()
		d := time.Duration(rng.Int64N(int64(most) + 1))
		mu.Unlock()
		timer := time.NewTimer(d)
		defer timer.Stop()
		select {
		case <-timer.C:
			return nil
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}
