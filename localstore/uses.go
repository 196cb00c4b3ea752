// SPDX-License-Identifier: Apache-2.0

package localstore

import (
	"fmt"
	"sync"

	"github.com/cockroachdb/pebble/v2"

	"github.com/cicadamq/cicada/delay"
)

// uses counts the calls that need Pebble open: Pebble panics, or reads what it has freed, when it
// is closed under one.
type uses struct {
	mu     sync.RWMutex // held for moments
	closed bool
	calls  sync.WaitGroup
}

// begin is delay.ErrClosed after close. Otherwise end must follow.
func (u *uses) begin() error {
	u.mu.RLock()
	defer u.mu.RUnlock()
	if u.closed {
		return delay.ErrClosed
	}
	u.calls.Add(1)
	return nil
}

func (u *uses) end() { u.calls.Done() }

// close ends begin, and reports whether it was the first to do so.
func (u *uses) close() bool {
	u.mu.Lock()
	defer u.mu.Unlock()
	first := !u.closed
	u.closed = true
	return first
}

// iterator is a Pebble iterator over [lower, upper). The store stays open until it is closed.
type iterator struct {
	*pebble.Iterator
	uses *uses
}

func (s *Store) iter(lower, upper []byte) (iterator, error) { return s.iterOf(s.db, lower, upper) }

// iterOf reads what of shows: the store, or a snapshot of it.
func (s *Store) iterOf(of pebble.Reader, lower, upper []byte) (iterator, error) {
	if err := s.uses.begin(); err != nil {
		return iterator{}, fmt.Errorf("read: %w", err)
	}
	it, err := of.NewIter(&pebble.IterOptions{LowerBound: lower, UpperBound: upper})
	if err != nil {
		s.uses.end()
		return iterator{}, err
	}
	return iterator{it, &s.uses}, nil
}

// Close must be called once.
func (it iterator) Close() error {
	defer it.uses.end()
	return it.Iterator.Close()
}
