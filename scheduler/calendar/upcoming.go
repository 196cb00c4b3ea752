// SPDX-License-Identifier: Apache-2.0

package calendar

import (
	"iter"
	"math"

	"github.com/cicadamq/cicada/delay"
)

// LocalForm is how the local time of a firing is written for people.
const LocalForm = "Mon 2006-01-02 15:04:05 -07:00"

// Upcoming are the firings of a schedule whose next one is due at due: from that one on, and of
// those the ones at from or later, as far as the definition lets them be. Their instants have its
// jitter. Pauses are not looked at. An error is that of Parse.
func (z *Zones) Upcoming(c *delay.Recurrence, due, from delay.Due) (iter.Seq[Firing], error) {
	rule, err := z.Parse(c.Expr, c.Zone)
	if err != nil {
		return nil, err
	}
	left := uint64(math.MaxUint64)
	if c.Count > 0 {
		left = c.Count - min(c.Fired, c.Count)
	}
	late := due - c.Next
	return func(yield func(Firing) bool) {
		after := max(c.Next, from-late) - 1
		for ; left > 0; left-- {
			f, ok := rule.Next(after, c.Start)
			after = f.At
			f.At += late
			if !ok || f.At > delay.MaxDue || c.Until > 0 && f.At > c.Until || !yield(f) {
				return
			}
		}
	}, nil
}
