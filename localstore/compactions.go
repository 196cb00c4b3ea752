// SPDX-License-Identifier: Apache-2.0

package localstore

import (
	"sync/atomic"
	"time"

	"github.com/cockroachdb/pebble/v2"
)

// grantEvery is how often a compaction that waits is given a free place, as often as Pebble does.
const grantEvery = 100 * time.Millisecond

// lateCompactions is Pebble's scheduler, but no compaction begins before begin: Pebble's Open
// waits for the ones that run, and after a crash under load that is as long as it takes to merge
// level 0. (The name of what it is made from says test, because that leaves the ticker to run.)
type lateCompactions struct {
	*pebble.ConcurrencyLimitScheduler
	begun atomic.Bool
}

func newLateCompactions() *lateCompactions {
	return &lateCompactions{
		ConcurrencyLimitScheduler: pebble.NewConcurrencyLimitSchedulerWithNoPeriodicGrantingForTest(),
	}
}

// Register implements pebble.CompactionScheduler.
func (l *lateCompactions) Register(goroutines int, db pebble.DBForCompaction) {
	l.ConcurrencyLimitScheduler.Register(goroutines, lateDB{db, &l.begun})
}

// lateDB allows none until it has begun.
type lateDB struct {
	pebble.DBForCompaction
	begun *atomic.Bool
}

// GetAllowedWithoutPermission implements pebble.DBForCompaction.
func (d lateDB) GetAllowedWithoutPermission() int {
	if !d.begun.Load() {
		return 0
	}
	return d.DBForCompaction.GetAllowedWithoutPermission()
}

// begin lets compactions begin, those that wait at once.
func (l *lateCompactions) begin() {
	l.begun.Store(true)
	l.grant()
}

// grant takes a free place and gives it back, which offers it to who waits.
func (l *lateCompactions) grant() {
	if free, place := l.TrySchedule(); free {
		place.Done()
	}
}

// run grants until stop is closed: what is allowed changes with the backlog.
func (l *lateCompactions) run(stop <-chan struct{}) {
	tick := time.NewTicker(grantEvery)
	defer tick.Stop()
	for {
		select {
		case <-stop:
			return
		case <-tick.C:
			l.grant()
		}
	}
}
