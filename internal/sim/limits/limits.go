// SPDX-License-Identifier: Apache-2.0

// Package limits watches that the targets of a simulated shard get no more than their limits allow:
// the bucket of tokens in other words than the product's (S9). A Book is confined to one goroutine.
//
// Nothing is known of a limit while a call about it is under way, after one without an answer, and
// after the loss of a disk, until the next one is answered.
package limits

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"

	"github.com/cicadamq/cicada/delay"
)

// Book is the limits that clients set, and what is left of them. The zero value has none.
type Book struct {
	lanes map[delay.Target]*lane
}

// lane is the limit of a target. Its tokens are never fewer than what the shard has.
type lane struct {
	limit  delay.Limit
	tokens float64
	at     delay.Due
	told   bool // the call was answered, and the core hears of it in its next step
	known  bool
	asked  int // counts calls, so that only the answer to the last one counts
}

// Draw is a limit that matters within a history, or none.
func Draw(r *rand.Rand) delay.Limit {
	if r.IntN(4) == 0 {
		return delay.Limit{}
	}
	perHour := [...]uint32{60, 600, 3600, 5 * 3600, 50 * 3600}
	return delay.Limit{PerHour: perHour[r.IntN(len(perHour))], Burst: uint32(1 + r.IntN(5))}
}

// Ask notes a call that sets a limit, and gives what to call with its answer: whether there was
// one, and when.
func (b *Book) Ask(
	target delay.Target, limit delay.Limit, now delay.Due,
) func(ok bool, at delay.Due) {
	if b.lanes == nil {
		b.lanes = make(map[delay.Target]*lane)
	}
	l := b.lanes[target]
	if l == nil {
		l = &lane{}
		b.lanes[target] = l
	}
	same := l.known && l.limit == limit
	l.told, l.known, l.limit = false, false, limit
	l.asked++
	mine := l.asked
	return func(ok bool, at delay.Due) {
		if !ok || l.asked != mine {
			return
		}
		l.told, l.at, l.tokens = true, at, 1
		l.fill(at + at - now) // it may have been so since the call
		if same {             // it went on meanwhile
			l.tokens = float64(limit.Burst)
		}
		l.at = at
	}
}

func (l *lane) fill(now delay.Due) {
	const hour = 3_600_000 // ms
	since := float64(max(now-l.at, 0))
	l.tokens = min(l.tokens+since*float64(l.limit.PerHour)/hour, float64(l.limit.Burst))
	l.at = max(l.at, now)
}

// Claimed judges n messages that are handed out now; "" is fine.
func (b *Book) Claimed(target delay.Target, n int, now delay.Due) string {
	l := b.lanes[target]
	if l == nil || !l.known || l.limit.IsZero() {
		return ""
	}
	l.fill(now)
	const rounding = 1e-6
	if float64(n) > l.tokens+rounding {
		return fmt.Sprintf("%d messages of %s at %d, and its limit (%d an hour, %d at once) allows %.3f",
			n, target, now, l.limit.PerHour, l.limit.Burst, l.tokens)
	}
	l.tokens -= float64(n)
	return ""
}

// Stepped notes that the core has heard of what was answered before.
func (b *Book) Stepped() {
	for _, l := range b.lanes {
		l.known = l.known || l.told
	}
}

// Opened notes that a process began: every bucket begins with one token.
func (b *Book) Opened(now delay.Due) {
	for _, l := range b.lanes {
		l.tokens, l.at = 1, now
	}
}

// Lost notes the loss of a disk, or that another owner took the shard.
func (b *Book) Lost() {
	for _, l := range b.lanes {
		l.told, l.known = false, false
	}
}

// Crashed notes that the calls under way have ended.
func (b *Book) Crashed() {
	for _, l := range b.lanes {
		l.asked++
	}
}

// Targets are all that ever had a limit, in the order of their names.
func (b *Book) Targets() []delay.Target {
	return slices.Sorted(maps.Keys(b.lanes))
}
