// SPDX-License-Identifier: Apache-2.0

package ledger

import (
	"sync"

	"github.com/cicadamq/cicada/delay"
)

// TimerFloor is an instant below which there are no timers. Without it each look for what is due
// would pass all that was done before. It is safe for concurrent use.
type TimerFloor struct {
	mu       sync.Mutex
	low      delay.Due
	earliest delay.Due // put since the last scan began
	scans    int       // under way
}

// Set is for what a store was opened with.
func (f *TimerFloor) Set(low delay.Due) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.low = low
}

// Put lowers the floor to a new timer.
func (f *TimerFloor) Put(at delay.Due) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.low, f.earliest = min(f.low, at), min(f.earliest, at)
}

// Begin is where a scan starts. Each timer must be in what the scan sees, or be put after Begin.
// End must follow.
func (f *TimerFloor) Begin() delay.Due {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.scans++; f.scans == 1 {
		f.earliest = NoTimer
	}
	return f.low
}

// End raises the floor to what the scan saw first, unless it is not complete or another is under
// way.
func (f *TimerFloor) End(first delay.Due, complete bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.scans--; f.scans == 0 && complete {
		f.low = max(f.low, min(first, f.earliest))
	}
}

// Low is the floor.
func (f *TimerFloor) Low() delay.Due {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.low
}
