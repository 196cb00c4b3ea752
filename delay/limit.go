// SPDX-License-Identifier: Apache-2.0

package delay

import "math"

// Bounds of a limit.
const (
	MaxLimitPerHour = 1_000_000 * perHour // a million a second
	MaxLimitBurst   = 1_000_000

	perHour = 3600 // seconds, of a rate
)

// Limit is how many messages of a target may be handed out: Burst at once, and PerHour in the long
// run. The zero value is no limit.
type Limit struct {
	PerHour uint32
	Burst   uint32 // at least 1 when PerHour is set
}

// TargetLimit is the limit of one target.
type TargetLimit struct {
	Target Target
	Limit
}

// NewLimit is the limit of so many messages a second; burst 0 is what comes in a second, and at
// least 1. A rate of 0 is no limit. What is out of range is a *FieldError for "rate" or "burst".
func NewLimit(perSecond float64, burst int64) (Limit, error) {
	hourly := math.Round(perSecond * perHour)
	switch {
	case perSecond == 0 && burst == 0:
		return Limit{}, nil
	case perSecond == 0:
		return Limit{}, Invalid("burst", "goes with a rate")
	case !(hourly >= 1 && hourly <= MaxLimitPerHour):
		return Limit{}, Invalid("rate", "want 0 for none, or from 1 an hour to %d a second",
			MaxLimitPerHour/perHour)
	case burst < 0 || burst > MaxLimitBurst:
		return Limit{}, Invalid("burst", "want 1 to %d", MaxLimitBurst)
	}
	if burst == 0 {
		burst = max(1, int64(math.Ceil(perSecond)))
	}
	return Limit{PerHour: uint32(hourly), Burst: uint32(burst)}, nil
}

// IsZero reports whether there is no limit.
func (l Limit) IsZero() bool { return l == Limit{} }

// PerSecond is the rate in messages a second.
func (l Limit) PerSecond() float64 { return float64(l.PerHour) / perHour }
