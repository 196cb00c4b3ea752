// SPDX-License-Identifier: Apache-2.0

package localstore

import (
	"fmt"
	"sync/atomic"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
)

const (
	// flushTries is how many flushes in a row may fail, but for want of space, before the store
	// ends: what is in memory is in the log, and the next start may find a better disk.
	flushTries = 10
	// flushPause is what is waited after a flush that failed, for each failure in a row.
	flushPause     = 100 * time.Millisecond
	flushPauseMost = 5 * time.Second

	// emptyFlush is what Pebble says of a flush that had nothing to write; it has no name there.
	emptyFlush = "pebble: empty table"
)

// flushes counts how many flushes have failed since the last good one. Pebble tries again at once
// and for ever.
type flushes struct{ failed atomic.Int64 }

// flushed learns how a flush ended. The caller holds Pebble's locks.
func (s *Store) flushed(err error) {
	if err == nil || err.Error() == emptyFlush {
		s.flushes.failed.Store(0)
		return
	}
	if n := s.flushes.failed.Add(1); n >= flushTries && !vfs.IsNoSpaceError(err) {
		// fail tells the one who can act; here nobody waits for the error.
		_ = s.fail(fmt.Errorf("flush, %d times: %w", n, err))
	}
}

// pauseFlush waits before a table is made, when the flushes before have failed.
func (s *Store) pauseFlush() {
	n := s.flushes.failed.Load()
	if n == 0 || s.opts.Simulated {
		return
	}
	pause := time.NewTimer(min(time.Duration(n)*flushPause, flushPauseMost))
	defer pause.Stop()
	select {
	case <-pause.C:
	case <-s.stop:
	}
}

// flushAll flushes the memtables. A store that ends meanwhile is not waited for.
func (s *Store) flushAll() error {
	done, err := s.db.AsyncFlush()
	if err != nil {
		return err
	}
	select {
	case <-done:
	case <-s.dead:
	}
	if f := s.failed.Load(); f != nil {
		return f.err
	}
	return nil
}
