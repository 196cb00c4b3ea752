// SPDX-License-Identifier: Apache-2.0

package localstore

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/cockroachdb/pebble/v2"
	"go.uber.org/zap"

	"github.com/cicadamq/cicada/delay"
	"github.com/cicadamq/cicada/localstore/calls"
	"github.com/cicadamq/cicada/localstore/codec"
)

// iterator is a Pebble iterator over [lower, upper). The store stays open until it is closed.
type iterator struct {
	*pebble.Iterator
	calls *calls.Count
}

func (s *Store) iter(lower, upper []byte) (iterator, error) { return s.iterOf(s.db, lower, upper) }

// iterOf reads what of shows: the store, or a snapshot of it.
func (s *Store) iterOf(of pebble.Reader, lower, upper []byte) (iterator, error) {
	if err := s.calls.Begin(); err != nil {
		return iterator{}, fmt.Errorf("read: %w", err)
	}
	it, err := of.NewIter(&pebble.IterOptions{LowerBound: lower, UpperBound: upper})
	if err != nil {
		s.calls.End()
		return iterator{}, err
	}
	return iterator{it, &s.calls}, nil
}

// Close must be called once.
func (it iterator) Close() error {
	defer it.calls.End()
	return it.Iterator.Close()
}

// readError says what was read, and names damage as such.
func (s *Store) readError(what string, err error) error {
	switch {
	case err == nil:
		return nil
	case pebble.IsCorruptionError(err):
		s.stats.corruptions.Add(1)
		return fmt.Errorf("%s: %w: %w", what, delay.ErrCorrupt, err)
	default:
		return fmt.Errorf("%s: %w", what, err)
	}
}

// get returns a copy of a value.
func (s *Store) get(key []byte) ([]byte, bool, error) {
	if err := s.calls.Begin(); err != nil {
		return nil, false, fmt.Errorf("read: %w", err)
	}
	defer s.calls.End()
	v, closer, err := s.db.Get(key)
	if errors.Is(err, pebble.ErrNotFound) {
		return nil, false, nil
	}
	if err != nil {
		return nil, false, s.readError("read", err)
	}
	out := bytes.Clone(v)
	if out == nil {
		out = []byte{}
	}
	return out, true, closer.Close()
}

// scan walks the keys that start with prefix, from start if it is above, until fn returns false
// or an error. Keys and values are valid during the call.
func (s *Store) scan(prefix, start []byte, fn func(k, v []byte) (bool, error)) error {
	if bytes.Compare(start, prefix) < 0 {
		start = prefix
	}
	return s.scanRange(start, after(prefix), fn)
}

func (s *Store) scanRange(lower, upper []byte, fn func(k, v []byte) (bool, error)) error {
	it, err := s.iter(lower, upper)
	if err != nil {
		return err
	}
	return s.walk(it, fn)
}

// walk goes through it and closes it, also when fn panics.
func (s *Store) walk(it iterator, fn func(k, v []byte) (bool, error)) (err error) {
	defer func() { err = errors.Join(err, s.readError("scan", it.Error()), it.Close()) }()
	for ok := it.First(); ok; ok = it.Next() {
		v, readErr := it.ValueAndErr()
		if readErr != nil {
			break
		}
		if ok, err = fn(it.Key(), v); !ok || err != nil {
			break
		}
	}
	return err
}

// ScanRows calls fn for the rows of [lower, upper) in key order until it returns false. rec is
// valid during the call. It sees one state between two batches.
func (s *Store) ScanRows(lower, upper delay.Key, fn func(k delay.Key, rec []byte) bool) error {
	return s.scanRange(s.key(spaceRow, lower), s.key(spaceRow, upper),
		func(k, v []byte) (bool, error) {
			key, err := rowKeyOf(k, prefixLen)
			if err != nil {
				return false, err
			}
			return fn(key, v), nil
		})
}

// Row is a copy of the record under key: delay.ErrNotFound when there is none, delay.ErrCorrupt
// when its block is damaged.
func (s *Store) Row(key delay.Key) ([]byte, error) {
	v, ok, err := s.get(s.key(spaceRow, key))
	if err == nil && !ok {
		err = delay.ErrNotFound
	}
	if err != nil {
		return nil, fmt.Errorf("row %s: %w", key, err)
	}
	return v, nil
}

// ReadRows calls fn with the record of each of keys, which ascend. rec is valid during the call
// and nil when there is no such row, or its block is damaged; damage is logged and costs only the
// rows it hit. The error is of the whole call.
func (s *Store) ReadRows(keys []delay.Key, fn func(i int, rec []byte)) error {
	return s.readMany(s.prefix(spaceRow), keys, fn)
}

// Marked calls fn for each of keys, which ascend, that has a mark. Unlike ReadRows it ends at the
// first one that is not readable: who cannot see a mark must not believe that there is none.
func (s *Store) Marked(keys []delay.Key, fn func(i int)) error {
	return s.along(s.prefix(spaceMark), keys, func(i int, v []byte, err error) error {
		if err == nil && v != nil {
			_, err = delay.DecodeMark(v)
			fn(i)
		}
		if err != nil {
			return fmt.Errorf("mark of %s: %w", keys[i], err)
		}
		return nil
	})
}

// readMany reads a run; what is not readable is logged and read as nil.
func (s *Store) readMany(prefix []byte, keys []delay.Key, fn func(i int, v []byte)) error {
	return s.along(prefix, keys, func(i int, v []byte, err error) error {
		if err != nil {
			s.log.Error("row not readable", zap.Stringer("key", keys[i]), errField(err))
		}
		fn(i, v)
		return nil
	})
}

// along calls fn for each of keys, which ascend, with its value, nil for none, or with what kept it
// from being read, until fn gives an error. One iterator serves the run: neighbours are stepped to,
// others are sought.
func (s *Store) along(
	prefix []byte, keys []delay.Key, fn func(i int, v []byte, err error) error,
) (err error) {
	if len(keys) == 0 {
		return nil
	}
	key := func(k delay.Key) []byte { return delay.AppendKey(slices.Clone(prefix), k) }
	it, err := s.iter(key(keys[0]), key(keys[len(keys)-1].Next()))
	if err != nil {
		return err
	}
	told := false  // an error of the iterator stays until it is closed
	defer func() { // also when fn panics
		if closeErr := it.Close(); !told {
			err = errors.Join(err, s.readError("read", closeErr))
		}
	}()
	run := stepper{it: it}
	want := append(make([]byte, 0, len(prefix)+delay.KeySize), prefix...)
	for i, key := range keys {
		want = delay.AppendKey(want[:len(prefix)], key)
		v, readErr := run.stepTo(want)
		told = told || readErr != nil
		if err = fn(i, v, s.readError("read", readErr)); err != nil {
			break
		}
	}
	return err
}

// stepper moves an iterator along ascending keys.
type stepper struct {
	it   iterator
	over bool // it has passed its last key
}

// stepTo moves to key and returns the value, or nil when there is none. It asks for ascending
// keys: what it already passed is not there.
func (s *stepper) stepTo(key []byte) ([]byte, error) {
	it := s.it
	if s.over {
		return nil, nil
	}
	if it.Valid() && bytes.Compare(it.Key(), key) < 0 {
		it.Next()
	}
	if !it.Valid() || bytes.Compare(it.Key(), key) < 0 {
		it.SeekGE(key)
		s.over = !it.Valid() && it.Error() == nil
	}
	if !it.Valid() || !bytes.Equal(it.Key(), key) {
		return nil, it.Error()
	}
	return it.ValueAndErr()
}

// ScanParked calls fn for the parked rows of a lane from a key on, until it returns false.
func (s *Store) ScanParked(
	lane uint64, from delay.Key, fn func(k delay.Key, claimed bool, rec []byte) bool,
) error {
	prefix := s.lanePrefix(lane)
	return s.scan(prefix, s.parkedKey(lane, from), func(k, v []byte) (bool, error) {
		key, err := rowKeyOf(k, len(prefix))
		if err != nil {
			return false, err
		}
		claimed, rec, err := codec.SplitParked(v)
		if err != nil {
			return false, err
		}
		return fn(key, claimed, rec), nil
	})
}

// Parked is a copy of a parked row's record, or delay.ErrNotFound.
func (s *Store) Parked(lane uint64, key delay.Key) (rec []byte, claimed bool, err error) {
	v, ok, err := s.get(s.parkedKey(lane, key))
	if err == nil && !ok {
		err = delay.ErrNotFound
	}
	if err == nil {
		claimed, rec, err = codec.SplitParked(v)
	}
	if err != nil {
		return nil, false, fmt.Errorf("parked %s: %w", key, err)
	}
	return rec, claimed, nil
}

// ReadParked is ReadRows for the parked rows of a lane.
func (s *Store) ReadParked(
	lane uint64, keys []delay.Key, fn func(i int, claimed bool, rec []byte),
) error {
	return s.readMany(s.lanePrefix(lane), keys, func(i int, v []byte) {
		if v == nil {
			fn(i, false, nil)
			return
		}
		claimed, rec, err := codec.SplitParked(v)
		if err != nil {
			s.log.Error("row not readable", zap.Stringer("key", keys[i]), errField(err))
			rec = nil
		}
		fn(i, claimed, rec)
	})
}

// ParkedLanes calls fn for every lane that has parked rows, in the order of lanes, with the target
// of its first row, until it returns false.
func (s *Store) ParkedLanes(fn func(lane uint64, target delay.Target, count int64) bool) error {
	for _, l := range s.ledger.Lanes() {
		var target delay.Target
		err := s.ScanParked(l.Lane, delay.Key{}, func(_ delay.Key, _ bool, rec []byte) bool {
			t, _, err := delay.RecordTarget(rec)
			if err != nil {
				s.log.Error("record not readable", errField(err))
				return true
			}
			target = delay.Target(strings.Clone(string(t)))
			return false
		})
		if err != nil {
			return fmt.Errorf("lane %016x: %w", l.Lane, err)
		}
		if !fn(l.Lane, target, l.Messages) {
			return nil
		}
	}
	return nil
}

// ParkedLane is the lane that a key is parked in.
func (s *Store) ParkedLane(key delay.Key) (lane uint64, ok bool, err error) {
	v, ok, err := s.get(s.key(spaceWhere, key))
	if err == nil && ok && len(v) != laneLen {
		err = fmt.Errorf("%w: %d bytes", delay.ErrCorrupt, len(v))
	}
	if err != nil || !ok {
		if err != nil {
			err = fmt.Errorf("lane of %s: %w", key, err)
		}
		return 0, false, err
	}
	return binary.BigEndian.Uint64(v), true, nil
}
