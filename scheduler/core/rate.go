// SPDX-License-Identifier: Apache-2.0

package core

import (
	"github.com/cicadamq/cicada/delay"
	"github.com/cicadamq/cicada/internal/planted"
)

// A lane with a limit has a bucket of tokens: each attempt that is handed out takes one, to a sink
// and to a consumer alike, and time brings new ones up to the burst. Everything is counted in
// fractions of which a message costs as many as an hour has milliseconds, so that PerHour of them
// come each millisecond and nothing is ever rounded.

const (
	tokenCost = 3_600_000 // fractions of a token; ms of an hour
	// limitStep is the least time between two looks at a lane that has used up its tokens: a fast
	// one gets them in batches.
	limitStep = 10 // ms
)

// EvLimit sets or, with the zero value, removes the limit of a lane.
type EvLimit struct {
	Lane  uint32
	Limit delay.Limit
}

func (e EvLimit) apply(c *Core) {
	l := c.lane(e.Lane)
	l.rate.set(e.Limit, c.now)
	c.touch(l)
}

// bucket is the tokens of a lane. The zero value is no limit.
type bucket struct {
	limit delay.Limit
	level int64     // fractions of tokens
	at    delay.Due // when that was so
}

// set changes the limit. The bucket begins with one message, not full: a limit set again and again,
// or a daemon that starts again and again, must not let a burst through each time.
func (b *bucket) set(limit delay.Limit, now delay.Due) {
	if limit == b.limit {
		return
	}
	*b = bucket{limit: limit, level: tokenCost, at: now}
}

// fill adds what the time since the last look has brought.
func (b *bucket) fill(now delay.Due) {
	full := int64(b.limit.Burst) * tokenCost
	rate := int64(b.limit.PerHour)
	if since := int64(now - b.at); since > 0 {
		if since >= (full-b.level)/rate+1 { // so that the product cannot overflow
			b.level = full
		} else {
			b.level += since * rate
		}
	}
	b.at = now
}

// may is how many of n messages may be handed out now.
func (b *bucket) may(n int, now delay.Due) int {
	if b.limit.IsZero() || planted.Is(planted.LimitForgotten) {
		return n
	}
	b.fill(now)
	return int(min(int64(n), b.level/tokenCost))
}

// spend takes the tokens of n messages that are handed out.
func (b *bucket) spend(n int) {
	if !b.limit.IsZero() {
		b.level -= int64(n) * tokenCost
	}
}

// next is when there will be a token, after may said that there is none.
func (b *bucket) next() delay.Due {
	rate := int64(b.limit.PerHour)
	wait := (tokenCost - b.level + rate - 1) / rate
	return b.at + delay.Due(max(wait, limitStep))
}

// dry reports whether the lane has used up its tokens.
func (b *bucket) dry(now delay.Due) bool { return b.may(1, now) == 0 }
