// SPDX-License-Identifier: Apache-2.0

package swarm

import (
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/cicadamq/cicada/delay"
)

// Lane is the target of lane n: the push lanes come first.
func (c *Config) Lane(n int) delay.Target {
	if n < c.Pushes {
		return delay.Target(fmt.Sprintf("https://receiver-%d.example/in", n))
	}
	return delay.Target(fmt.Sprintf("pull:queue-%d", n-c.Pushes))
}

// Between is a duration in [a, b].
func Between(r *rand.Rand, a, b time.Duration) time.Duration {
	if b <= a {
		return a
	}
	return a + time.Duration(r.Int64N(int64(b-a)+1))
}

// Due draws an instant, with a liking for the edges of the levels; last is that of the message
// before.
func (c *Config) Due(r *rand.Rand, now, last delay.Due) delay.Due {
	o := &c.Options
	if r.Float64() < c.FarShare {
		return now.Add(Between(r, o.Horizon, 3*o.Horizon))
	}
	near := func(d time.Duration) delay.Due {
		return now.Add(d + Between(r, -20*time.Millisecond, 20*time.Millisecond))
	}
	switch r.IntN(9) {
	case 0:
		return now.Add(-Between(r, 0, time.Minute))
	case 1:
		return now
	case 2:
		return now.Add(Between(r, 0, 50*time.Millisecond))
	case 3:
		return near(o.MinWait)
	case 4:
		return near(o.HotWindow)
	case 5:
		return near(o.Horizon)
	case 6:
		return last
	default:
		return now.Add(Between(r, 0, 20*time.Second))
	}
}

// Dress gives a draft of message no the features that are drawn.
func (c *Config) Dress(r *rand.Rand, d *delay.Draft, no int) {
	chance := func(p float64) bool { return r.Float64() < p }
	if chance(c.TierShare) {
		d.Durability = delay.Tier
	}
	if chance(c.OnceShare) {
		d.Mode = delay.AtMostOnce
	}
	if chance(c.ExpiryShare) {
		d.TTL = Between(r, time.Millisecond, 30*time.Second).Truncate(time.Millisecond)
	}
	if chance(0.2) {
		d.MaxAttempts = uint32(1 + r.IntN(4))
	}
	if chance(0.3) {
		d.RoutingKey = fmt.Sprintf("key-%d", r.IntN(5))
		d.Headers = []delay.Header{{Name: "n", Value: fmt.Sprint(no)}, {Name: "empty"}}
	}
	d.Cold = d.Durability == delay.Tier || d.Due.Sub(d.AcceptedAt) > c.Options.MinWait
}

// Finest is the shortest time between two firings of a schedule: the clock may step over very many.
func (c *Config) Finest() time.Duration {
	switch {
	case c.Weights[Step] == 0:
		return time.Second
	case c.LongStep > 1000*time.Hour:
		return time.Hour
	default:
		return 5 * time.Second
	}
}
