// SPDX-License-Identifier: Apache-2.0

package calendar

import (
	"fmt"
	"time"
)

// Note says in words what the clocks of the zone do at a firing; it is empty for a plain one.
func (f Firing) Note() string {
	const clock = "15:04:05"
	wanted := f.Wanted.Format(clock)
	if f.Wanted.Second() == 0 {
		wanted = f.Wanted.Format("15:04")
	}
	switch f.Kind {
	case Plain:
		return ""
	case AfterGap:
		return fmt.Sprintf("%s on %s does not exist; this is the first instant after it",
			wanted, f.Wanted.Format(time.DateOnly))
	case First:
		return wanted + " comes twice; this is the first"
	case Second:
		return wanted + " comes twice; this is the second"
	default:
		panic("BUG: unknown kind of firing")
	}
}
