// SPDX-License-Identifier: Apache-2.0

package localstore

import (
	"errors"
	"fmt"
	"io"
	"sync"
	"sync/atomic"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"
	"go.uber.org/zap"

	"github.com/cicadamq/cicada/delay"
	"github.com/cicadamq/cicada/localstore/calls"
	"github.com/cicadamq/cicada/localstore/diskfs"
	"github.com/cicadamq/cicada/localstore/ledger"
	"github.com/cicadamq/cicada/localstore/witness"
)

// The kinds of errors of Open that package delay does not know.
var (
	// ErrLocked: another process, or another Store of this one, has the directory open.
	ErrLocked = errors.New("locked by another process")
	// ErrVersion: the directory was written in a format that this program does not know.
	ErrVersion = witness.ErrVersion
)

// formatVersion is the version of everything in docs/format/localstore.md.
const formatVersion = witness.Version

// formatMajorVersion pins Pebble's formats: columnar blocks, sync chunks in the log, which tell
// damage from its end, and checksums in the footers of tables. It is raised by a change of its
// own, never together with the version of Pebble or of Go.
const formatMajorVersion = pebble.FormatTableFormatV6

// Store is the warm tier of one shard.
type Store struct {
	opts Options
	fs   vfs.FS // guarded from open on
	dir  string
	log  *zap.Logger

	lock    io.Closer
	db      *pebble.DB
	id      witness.StoreID
	witness *witness.Witness
	ledger  *ledger.Ledger
	filter  *idFilter
	timers  *ledger.TimerFloor // invariant L7
	disk    *disk
	guard   *diskfs.FS
	late    *lateCompactions // of db
	stats   *stats

	batches sync.Pool
	// turn has room for one: whoever put its token in may number and apply a batch. It is a
	// channel and not a mutex because its holder may wait for Pebble to make room.
	turn      chan struct{}
	outboxLow uint64 // marks below it have left the outbox; belongs to the turn

	mu struct {
		sync.RWMutex
		meta  Meta
		books delay.Books
	}

	flushes flushes
	failed  atomic.Pointer[failure]
	dead    chan struct{} // closed after failed was set
	wedged  atomic.Bool   // Pebble panicked while it held its locks
	calls   calls.Count   // that need Pebble: closed under one, it reads what it has freed

	stop    chan struct{} // closed by Close
	workers sync.WaitGroup
}

// Meta is what the last applied SetMeta stored.
func (s *Store) Meta() Meta {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.mu.meta
}

// Books is what the last applied SetBooks stored.
func (s *Store) Books() delay.Books {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.mu.books
}

// Close syncs everything and leaves an exact witness. It waits for calls that have begun; later
// ones answer delay.ErrClosed. Each Pending must have been waited for. After a fatal error it only
// lets go of the directory.
func (s *Store) Close() error {
	if !s.calls.Close() {
		return nil
	}
	close(s.stop)
	s.workers.Wait()
	if !s.wedged.Load() {
		s.calls.Wait()
	}
	var errs []error
	if s.failed.Load() == nil && !s.opts.ReadOnly {
		errs = append(errs, s.saveFilter())
	}
	errs = append(errs, s.closeDB())
	if s.witness != nil {
		if s.failed.Load() == nil && !s.opts.ReadOnly && errors.Join(errs...) == nil {
			base := s.ledger.Base()
			errs = append(errs, s.witness.Finish(base.Batch, base.LastSeq))
		}
		errs = append(errs, s.witness.Close())
	}
	errs = append(errs, s.lock.Close())
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("close store %s: %w", s.dir, err)
	}
	return nil
}

func (s *Store) closeDB() error {
	if s.db == nil || s.wedged.Load() {
		return nil
	}
	if s.failed.Load() == nil && !s.opts.ReadOnly {
		// Without a log to replay the next open takes milliseconds. The log has it all if this
		// does not work.
		if err := s.flushAll(); err != nil {
			s.log.Warn("not flushed at close", errField(err))
		}
	}
	return s.db.Close()
}

// SetAside renames a store's directory to dir + suffix, so that it is not believed (rule R10). The
// store must not be open. It is delay.ErrExists when the new name is taken.
func SetAside(fs vfs.FS, dir, suffix string) error {
	if _, err := fs.Stat(dir + suffix); err == nil {
		return fmt.Errorf("set aside %s: %s: %w", dir, dir+suffix, delay.ErrExists)
	}
	if err := fs.Rename(dir, dir+suffix); err != nil {
		return fmt.Errorf("set aside %s: %w", dir, err)
	}
	if err := diskfs.SyncDir(fs, fs.PathDir(dir)); err != nil {
		return fmt.Errorf("set aside %s: %w", dir, err)
	}
	return nil
}
