// SPDX-License-Identifier: Apache-2.0

//go:build !linux

package daemon

import "time"

// bootClock leaves the choice to the shard, which then uses the monotonic clock of package time.
func bootClock() func() time.Duration { return nil }
