// SPDX-License-Identifier: Apache-2.0

// Package objio talks to a bucket on behalf of the tier: every call has a time limit that follows
// from its size, a bounded number of attempts with full jitter between them, and is counted.
//
//	call --> class paused? --> slot of its class --> attempt, with a time limit --> outcome
//	  ^        refused           waits its turn                                        |
//	  +--- pause with jitter <-- a retry left in the budget? <-- no answer, throttled -+
//
// Every request has a class, which its context carries: Read, Write or Background. A bucket in
// trouble loses the least urgent ones first.
//
// # Invariants
//
//	I1  Only calls that may be repeated are: reads, deletes, lists, and the Put of an immutable
//	    name, which stores the same bytes again. A conditional Put has one attempt; its caller
//	    reads back (objstore O1).
//	I2  An answer that is certain (not found, precondition, refused) is never repeated.
//	I3  When the attempts are used up the error wraps delay.ErrUnavailable and the last cause.
//	I4  Of the attempts of a class at most a tenth are retries, and a burst of retryBurst: a bucket
//	    that is in trouble is not asked five times as often.
//	I5  A throttled attempt halves how many requests of its class, and of the less urgent ones,
//	    may be under way; a window of answers allows one more.
//	I6  Attempts without an answer pause Background first, then Write, and never Read. A paused
//	    class is refused at once, but for one probe at a time every probeAfter.
//
// A negative Policy.Base turns I4, I5 and I6 off: then nothing waits, and what happens depends on
// the answers alone, as a simulation needs it.
//
// A Client is safe for concurrent use and starts no goroutine.
package objio

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/cicadamq/cicada/delay"
	"github.com/cicadamq/cicada/internal/planted"
	"github.com/cicadamq/cicada/tiered/objstore"
)

// The defaults of Policy, and the shape of the time limits.
const (
	DefaultBase     = 100 * time.Millisecond
	DefaultMax      = 5 * time.Second
	DefaultAttempts = 5

	baseTimeout = 2 * time.Second
	// slowest is the throughput, in bytes a second, below which an attempt is given up.
	slowest    = 1 << 20
	maxTimeout = 2 * time.Minute
	// deleteBatch is how many keys one Delete takes: the limit of S3's multi-object delete.
	deleteBatch = 1000
	// A full batch of deletes, and a list of many pages, work as long as a Put of this size.
	deleteSize = 8 << 20
	listSize   = 30 << 20
)

// Policy says how often and how patiently to try. Zero fields take the defaults.
type Policy struct {
	// Base: the pause before attempt n+1 is random in [0, Base<<(n-1)]. Negative: no pauses, and
	// none of I4, I5, I6.
	Base     time.Duration
	Max      time.Duration  // bounds every pause
	Attempts int            // at least 1
	Jitter   func() float64 // in [0, 1); safe for concurrent use
	// Observe, if set, is told of every attempt: "put", "put_if", "get", "get_range", "delete" or
	// "list"; "ok", "not_found", "precondition", "throttled", "refused", "skewed", "canceled" or
	// "unknown".
	Observe func(op, code string, d time.Duration, bytes int64)
	// Changed, if set, is told when a class is paused and when it goes on (I6).
	Changed func(Change)
	Now     func() time.Time // measures attempts and pauses of a class
}

// Client is a bucket with a policy.
type Client struct {
	bucket objstore.Bucket
	policy Policy
	gate   *gate // nil: off
}

// New is a client of bucket. Jitter and Now must be set.
func New(bucket objstore.Bucket, p Policy) *Client {
	if p.Base == 0 {
		p.Base = DefaultBase
	}
	if p.Max == 0 {
		p.Max = DefaultMax
	}
	if p.Attempts <= 0 {
		p.Attempts = DefaultAttempts
	}
	c := &Client{bucket: bucket, policy: p}
	if p.Base > 0 {
		c.gate = newGate(p.Changed)
	}
	return c
}

// Put stores an immutable object: the same bytes are sent again until one attempt succeeds (I1).
// proved says that the store has compared them with their checksum.
func (c *Client) Put(ctx context.Context, key string, body []byte) (proved bool, err error) {
	size := int64(len(body))
	err = c.repeat(ctx, "put", key, size, func(ctx context.Context) (int64, error) {
		if p, ok := c.bucket.(objstore.Prover); ok {
			var err error
			proved, err = p.PutProved(ctx, key, body)
			return size, err
		}
		_, err := c.bucket.Put(ctx, key, body, objstore.Condition{})
		return size, err
	})
	return proved && err == nil, err
}

// PutIf is one attempt at a conditional Put. ErrPaused: it was not made. Any other error that is
// not one of objstore's sentinels means that the outcome is unknown.
func (c *Client) PutIf(
	ctx context.Context, key string, body []byte, cond objstore.Condition,
) (etag string, err error) {
	size := int64(len(body))
	err = c.attempt(ctx, "put_if", 1, size, func(ctx context.Context) (int64, error) {
		etag, err = c.bucket.Put(ctx, key, body, cond)
		return size, err
	})
	return etag, err
}

// Get reads a whole object of about size bytes.
func (c *Client) Get(
	ctx context.Context, key string, size int64,
) (body []byte, info objstore.Info, err error) {
	err = c.repeat(ctx, "get", key, size, func(ctx context.Context) (int64, error) {
		var err error
		body, info, err = c.bucket.Get(ctx, key)
		if err == nil && int64(len(body)) != info.Size && !planted.Is(planted.ShortBodyTrusted) {
			err = fmt.Errorf("got %d of %d bytes", len(body), info.Size)
		}
		return int64(len(body)), err
	})
	if err != nil {
		return nil, objstore.Info{}, err
	}
	return body, info, nil
}

// GetRange reads length bytes from offset.
func (c *Client) GetRange(
	ctx context.Context, key string, offset, length int64,
) (body []byte, err error) {
	err = c.repeat(ctx, "get_range", key, length, func(ctx context.Context) (int64, error) {
		var err error
		body, err = c.bucket.GetRange(ctx, key, offset, length)
		if err == nil && int64(len(body)) != length && !planted.Is(planted.ShortBodyTrusted) {
			err = fmt.Errorf("got %d of %d bytes", len(body), length)
		}
		return int64(len(body)), err
	})
	if err != nil {
		return nil, err
	}
	return body, nil
}

// Delete removes keys, in batches.
func (c *Client) Delete(ctx context.Context, keys ...string) error {
	for len(keys) > 0 {
		batch := keys[:min(len(keys), deleteBatch)]
		keys = keys[len(batch):]
		err := c.repeat(ctx, "delete", batch[0], deleteSize, func(ctx context.Context) (int64, error) {
			return 0, c.bucket.Delete(ctx, batch...)
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// List gives what is below prefix. It collects everything of one attempt before it returns, so
// that an attempt that broke off is never mixed with the next.
func (c *Client) List(ctx context.Context, prefix string) (infos []objstore.Info, err error) {
	err = c.repeat(ctx, "list", prefix, listSize, func(ctx context.Context) (int64, error) {
		infos = infos[:0]
		err := c.bucket.List(ctx, prefix, func(i objstore.Info) bool {
			infos = append(infos, i)
			return true
		})
		return 0, err
	})
	if err != nil {
		return nil, err
	}
	return infos, nil
}

// Certain reports whether err is an answer of the store and not the absence of one (I2).
func Certain(err error) bool {
	return errors.Is(err, objstore.ErrNotFound) || errors.Is(err, objstore.ErrPrecondition) ||
		errors.Is(err, objstore.ErrRefused)
}

func (c *Client) repeat(
	ctx context.Context, op, key string, size int64, call func(context.Context) (int64, error),
) error {
	var last error
	for n := 1; ; n++ {
		err := c.attempt(ctx, op, n, size, call)
		switch {
		case err == nil:
			return nil
		case Certain(err):
			return fmt.Errorf("%s %s: %w", op, key, err)
		case errors.Is(err, ErrPaused) && last != nil:
			return fmt.Errorf("%s %s: %w after %d attempts: %w", op, key, err, n-1, last)
		case errors.Is(err, ErrPaused):
			return fmt.Errorf("%s %s: %w", op, key, err)
		case ctx.Err() != nil:
			return fmt.Errorf("%s %s: %w", op, key, context.Cause(ctx))
		case n == c.policy.Attempts:
			return fmt.Errorf("%s %s: %w after %d attempts: %w",
				op, key, delay.ErrUnavailable, n, err)
		}
		if no := c.Pause(ctx, n); no != nil {
			return fmt.Errorf("%s %s: %w after %d attempts: %w", op, key, no, n, err)
		}
		last = err
	}
}

// Attempts is the number of attempts of the policy.
func (c *Client) Attempts() int { return c.policy.Attempts }

// Pause waits after attempt n has failed, for those who repeat a PutIf. The error says that it must
// not be repeated: ctx is done, or delay.ErrUnavailable when the class has no retry left (I4).
func (c *Client) Pause(ctx context.Context, n int) error {
	if c.gate == nil {
		return ctx.Err()
	}
	if !c.gate.retry(classOf(ctx)) {
		return errNoRetry
	}
	most := c.policy.Max
	if shifted := c.policy.Base << min(n-1, 20); shifted < most {
		most = shifted
	}
	timer := time.NewTimer(time.Duration(c.policy.Jitter() * float64(most)))
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// attempt asks once, when the class of ctx may.
func (c *Client) attempt(
	ctx context.Context, op string, n int, size int64, call func(context.Context) (int64, error),
) error {
	if c.gate == nil {
		return c.once(ctx, op, n, size, call)
	}
	slot, err := c.gate.enter(ctx, classOf(ctx), n == 1, c.policy.Now())
	if err != nil {
		return err
	}
	err = c.once(ctx, op, n, size, call)
	c.gate.leave(slot, outcomeOf(ctx, err), err, c.policy.Now())
	return err
}

func (c *Client) once(
	ctx context.Context, op string, n int, size int64, call func(context.Context) (int64, error),
) error {
	ctx, cancel := context.WithTimeout(ctx, timeout(n, size))
	defer cancel()
	start := c.policy.Now()
	done, err := call(ctx)
	if c.policy.Observe != nil {
		if err != nil {
			done = 0
		}
		c.policy.Observe(op, codeOf(err), c.policy.Now().Sub(start), done)
	}
	return err
}

// timeout is the time limit of attempt n at size bytes: 2 s for a block, 3 s for 1 MiB, 10 s for
// 8 MiB, and twice that for a second try, which fails as the first when it is as impatient.
func timeout(n int, size int64) time.Duration {
	limit := baseTimeout + time.Duration(size)*time.Second/slowest
	if n > 1 {
		limit *= 2
	}
	return min(limit, maxTimeout)
}

func codeOf(err error) string {
	switch {
	case err == nil:
		return "ok"
	case errors.Is(err, objstore.ErrNotFound):
		return "not_found"
	case errors.Is(err, objstore.ErrPrecondition):
		return "precondition"
	case errors.Is(err, objstore.ErrThrottled):
		return "throttled"
	case errors.Is(err, objstore.ErrSkewed):
		return "skewed"
	case errors.Is(err, objstore.ErrRefused):
		return "refused"
	case errors.Is(err, context.Canceled):
		return "canceled"
	default:
		return "unknown"
	}
}
