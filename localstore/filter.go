// SPDX-License-Identifier: Apache-2.0

package localstore

import (
	"encoding/binary"
	"errors"
	"fmt"
	iofs "io/fs"
	"sync/atomic"

	"github.com/cockroachdb/pebble/v2/vfs"
	"go.uber.org/zap"

	"github.com/cicadamq/cicada/delay"
	"github.com/cicadamq/cicada/internal/planted"
	"github.com/cicadamq/cicada/localstore/bloom"
	"github.com/cicadamq/cicada/localstore/diskfs"
)

// idFilter answers "never seen" for most fresh ids without asking Pebble (invariant L5). It is
// saved at Close and rebuilt from the id records when there is no saved one, or when half of
// what it holds was forgotten. While it is unknown every id may exist.
type idFilter struct {
	current atomic.Pointer[bloom.Set] // nil: unknown

	// Belongs to the turn.
	next *bloom.Set // being rebuilt; gets what current gets
}

func newIDFilter() *idFilter { return &idFilter{} }

// add notes ids that are about to be stored. The caller has the turn.
func (f *idFilter) add(hashes []uint64) {
	if len(hashes) == 0 {
		return
	}
	if set := f.current.Load(); set != nil {
		set.Add(hashes)
	}
	if f.next != nil {
		f.next.Add(hashes)
	}
}

// maybe is false only when no record of the id exists.
func (f *idFilter) maybe(id string) bool {
	set := f.current.Load()
	if set == nil {
		return !planted.Is(planted.FilterTrustedEarly)
	}
	return set.Has(bloom.Hash(id))
}

// forget counts deleted ids and starts a rebuild when it pays. The caller has the turn.
func (f *idFilter) forget(s *Store, n int) {
	if n == 0 {
		return
	}
	if f.next != nil {
		f.next.Forget(n)
		return
	}
	if set := f.current.Load(); set != nil {
		if set.Forget(n); set.Stale() {
			s.startRebuild(set.Left())
		}
	}
}

// startRebuild begins a new filter. The caller has the turn: every batch is either before the
// iterator, which sees its ids, or after, and then adds them to next.
func (s *Store) startRebuild(expect int64) {
	set := bloom.New(expect + expect/4)
	it, err := s.iter(s.prefix(spaceID), after(s.prefix(spaceID)))
	if err != nil {
		s.log.Error("filter of ids not rebuilt", errField(err))
		return
	}
	s.filter.next = set
	s.workers.Go(func() {
		err := s.fillFilter(set, it)
		err = errors.Join(err, it.Close())
		s.turn <- struct{}{}
		defer func() { <-s.turn }()
		s.filter.next = nil
		switch {
		case err == nil:
			s.filter.current.Store(set)
			s.log.Info("filter of ids rebuilt", zap.Int64("ids", set.IDs()),
				zap.Int64("bytes", set.Bytes()))
		case errors.Is(err, delay.ErrClosed):
		default:
			s.log.Error("filter of ids not rebuilt", errField(err))
		}
	})
}

// fillChunk is how many ids are added between two looks at whether the store closes.
const fillChunk = 1024

func (s *Store) fillFilter(set *bloom.Set, it iterator) error {
	hashes := make([]uint64, 0, fillChunk)
	for ok := it.First(); ok; ok = it.Next() {
		hashes = append(hashes, bloom.Hash(string(it.Key()[prefixLen:])))
		if len(hashes) < fillChunk {
			continue
		}
		set.Add(hashes)
		hashes = hashes[:0]
		select {
		case <-s.stop:
			return fmt.Errorf("rebuild filter: %w", delay.ErrClosed)
		default:
		}
	}
	set.Add(hashes)
	return s.readError("scan ids", it.Error())
}

// stamp is the state that a saved filter must be of.
func (s *Store) stamp() bloom.Stamp {
	var stamp bloom.Stamp
	copy(stamp[:], s.id[:])
	binary.BigEndian.PutUint64(stamp[len(s.id):], s.ledger.Base().Batch)
	return stamp
}

// saveFilter writes the filter, if it is known. The caller has closed the store to batches.
func (s *Store) saveFilter() error {
	set := s.filter.current.Load()
	if set == nil {
		return nil
	}
	f, err := s.fs.Create(s.path(filterName), vfs.WriteCategoryUnspecified)
	if err != nil {
		return fmt.Errorf("save filter: %w", err)
	}
	err = bloom.Write(f, set, s.stamp())
	if err := errors.Join(err, f.Sync(), f.Close()); err != nil {
		return fmt.Errorf("save filter: %w", err)
	}
	return diskfs.SyncDir(s.fs, s.dir)
}

// loadFilter takes the saved filter if it is of this very state, else it starts to rebuild.
func (s *Store) loadFilter() {
	set, err := s.readFilter()
	if err != nil && !errors.Is(err, iofs.ErrNotExist) {
		s.log.Info("saved filter of ids not used", errField(err))
	}
	s.turn <- struct{}{}
	defer func() { <-s.turn }()
	if err == nil {
		s.filter.current.Store(set)
		return
	}
	if s.ledger.Base().Batch == 0 {
		s.filter.current.Store(bloom.New(0))
		return
	}
	s.startRebuild(0)
}

func (s *Store) readFilter() (*bloom.Set, error) {
	f, err := s.fs.Open(s.path(filterName))
	if err != nil {
		return nil, err
	}
	info, err := f.Stat()
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	set, err := bloom.Read(f, info.Size(), s.stamp())
	return set, errors.Join(err, f.Close())
}
