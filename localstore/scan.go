// SPDX-License-Identifier: Apache-2.0

package localstore

import (
	"encoding/binary"
	"fmt"

	"github.com/cicadamq/cicada/delay"
	"github.com/cicadamq/cicada/localstore/codec"
)

// LookupID is what is remembered of an id. A fresh id is usually answered from memory.
func (s *Store) LookupID(id string) (IDRecord, bool, error) {
	if !s.filter.maybe(id) {
		return IDRecord{}, false, nil
	}
	s.stats.idReads.Add(1)
	v, ok, err := s.get(s.textKey(spaceID, id))
	if err != nil || !ok {
		return IDRecord{}, false, err
	}
	rec, err := codec.DecodeIDRecord(v)
	if err != nil {
		return IDRecord{}, false, fmt.Errorf("id %q: %w", id, err)
	}
	return rec, true, nil
}

// IDsKnown reports whether fresh ids are answered from memory: not so while the filter is rebuilt
// after a crash.
func (s *Store) IDsKnown() bool { return s.filter.current.Load() != nil }

// ScanIDs calls fn for the ids that start with prefix, in order, until it returns false.
func (s *Store) ScanIDs(prefix string, fn func(id string, rec IDRecord) bool) error {
	return s.scan(s.textKey(spaceID, prefix), nil, func(k, v []byte) (bool, error) {
		rec, err := codec.DecodeIDRecord(v)
		if err != nil {
			return false, fmt.Errorf("id %q: %w", k[prefixLen:], err)
		}
		return fn(string(k[prefixLen:]), rec), nil
	})
}

// Progress is how far the delivery of an unfinished message has come.
func (s *Store) Progress(key delay.Key) (delay.Progress, bool, error) {
	v, ok, err := s.get(s.key(spaceAttempts, key))
	if err != nil || !ok {
		return delay.Progress{}, false, err
	}
	p, err := decodeProgress(v)
	if err != nil {
		return delay.Progress{}, false, fmt.Errorf("progress of %s: %w", key, err)
	}
	return p, true, nil
}

func decodeProgress(v []byte) (delay.Progress, error) {
	p, rest, err := delay.DecodeProgress(v)
	if err == nil && len(rest) > 0 {
		err = fmt.Errorf("%w: progress: %d bytes left over", delay.ErrCorrupt, len(rest))
	}
	return p, err
}

// ScanProgress calls fn for every message that has progress, until it returns false.
func (s *Store) ScanProgress(fn func(k delay.Key, p delay.Progress) bool) error {
	return s.scan(s.prefix(spaceAttempts), nil, func(k, v []byte) (bool, error) {
		key, err := rowKeyOf(k, prefixLen)
		if err != nil {
			return false, err
		}
		p, err := decodeProgress(v)
		if err != nil {
			return false, fmt.Errorf("progress of %s: %w", key, err)
		}
		return fn(key, p), nil
	})
}

// Dead is a dead letter: why it died and a copy of its record, or delay.ErrNotFound.
func (s *Store) Dead(key delay.Key) (delay.Progress, []byte, error) {
	v, ok, err := s.get(s.key(spaceDead, key))
	if err == nil && !ok {
		err = delay.ErrNotFound
	}
	var p delay.Progress
	var rec []byte
	if err == nil {
		p, rec, err = delay.DecodeProgress(v)
	}
	if err != nil {
		return delay.Progress{}, nil, fmt.Errorf("dead letter %s: %w", key, err)
	}
	return p, rec, nil
}

// ScanDead calls fn for the dead letters from a key on, until it returns false. rec is valid
// during the call.
func (s *Store) ScanDead(
	from delay.Key, fn func(k delay.Key, p delay.Progress, rec []byte) bool,
) error {
	return s.scan(s.prefix(spaceDead), s.key(spaceDead, from), func(k, v []byte) (bool, error) {
		key, err := rowKeyOf(k, prefixLen)
		if err != nil {
			return false, err
		}
		p, rec, err := delay.DecodeProgress(v)
		if err != nil {
			return false, fmt.Errorf("dead letter %s: %w", key, err)
		}
		return fn(key, p, rec), nil
	})
}

// numberOf reads the number of a key of two spaces: leases and the outbox.
func numberOf(k []byte) (uint64, error) {
	if len(k) != prefixLen+8 {
		return 0, badKey(k)
	}
	return binary.BigEndian.Uint64(k[prefixLen:]), nil
}

// ScanLeases calls fn for every lease, by number, until it returns false.
func (s *Store) ScanLeases(fn func(Lease) bool) error {
	return s.scan(s.prefix(spaceLease), nil, func(k, v []byte) (bool, error) {
		no, err := numberOf(k)
		if err != nil {
			return false, err
		}
		l, err := codec.DecodeLease(no, v)
		if err != nil {
			return false, fmt.Errorf("lease %d: %w", no, err)
		}
		return fn(l), nil
	})
}

// Mark is the mark of a key.
func (s *Store) Mark(key delay.Key) (delay.Mark, bool, error) {
	v, ok, err := s.get(s.key(spaceMark, key))
	if err != nil || !ok {
		return delay.Mark{}, false, err
	}
	m, err := delay.DecodeMark(v)
	if err != nil {
		return delay.Mark{}, false, fmt.Errorf("mark of %s: %w", key, err)
	}
	return m, true, nil
}

// ScanMarks calls fn for the marks of [lower, upper), by key, until it returns false.
func (s *Store) ScanMarks(lower, upper delay.Key, fn func(m delay.Mark) bool) error {
	return s.scanRange(s.key(spaceMark, lower), s.key(spaceMark, upper),
		func(k, v []byte) (bool, error) {
			m, err := delay.DecodeMark(v)
			if err != nil {
				return false, fmt.Errorf("mark %x: %w", k, err)
			}
			return fn(m), nil
		})
}

// Predicates are the bulk cancels that were stored, ascending seqs.
func (s *Store) Predicates() ([]delay.Predicate, error) {
	var out []delay.Predicate
	err := s.scan(s.prefix(spaceBulk), nil, func(k, v []byte) (bool, error) {
		p, err := delay.DecodePredicate(v)
		if err != nil {
			return false, fmt.Errorf("predicate %x: %w", k[prefixLen:], err)
		}
		out = append(out, p)
		return true, nil
	})
	return out, err
}

// ScanOutbox calls fn for the marks to be uploaded from the given number on, until it returns
// false.
func (s *Store) ScanOutbox(from uint64, fn func(n uint64, m delay.Mark) bool) error {
	start := s.numberKey(spaceOutbox, from)
	return s.scan(s.prefix(spaceOutbox), start, func(k, v []byte) (bool, error) {
		n, err := numberOf(k)
		if err != nil {
			return false, err
		}
		m, err := delay.DecodeMark(v)
		if err != nil {
			return false, fmt.Errorf("outbox %d: %w", n, err)
		}
		return fn(n, m), nil
	})
}

// ScanTimers calls fn for the timers with instants up to and including upTo, in order, until it
// returns false. payload is valid during the call.
func (s *Store) ScanTimers(
	upTo delay.Due, fn func(at delay.Due, kind byte, payload []byte) bool,
) error {
	upTo = min(upTo, delay.MaxDue)
	s.turn <- struct{}{}
	low := s.timers.Begin() // with the turn: a batch is in the iterator, or reported during the scan
	it, err := s.iter(s.numberKey(spaceTimer, uint64(low)),
		s.numberKey(spaceTimer, uint64(max(upTo, low)+1)))
	<-s.turn
	if err != nil {
		s.timers.End(0, false)
		return err
	}
	first := max(upTo, low) + 1
	err = s.walk(it, func(k, _ []byte) (bool, error) {
		if len(k) <= prefixLen+dueLen {
			return false, badKey(k)
		}
		at := delay.Due(binary.BigEndian.Uint64(k[prefixLen:]))
		first = min(first, at)
		kind, payload := k[prefixLen+dueLen], k[prefixLen+dueLen+1:]
		return at <= upTo && fn(at, kind, payload), nil
	})
	s.timers.End(first, err == nil)
	return err
}

// Cursor is how far a source was read.
func (s *Store) Cursor(source string) ([]byte, bool, error) {
	return s.get(s.textKey(spaceCursor, source))
}

// ScanCursors calls fn for every source that was read, until it returns false.
func (s *Store) ScanCursors(fn func(source string, cursor []byte) bool) error {
	return s.scan(s.prefix(spaceCursor), nil, func(k, v []byte) (bool, error) {
		return fn(string(k[prefixLen:]), v), nil
	})
}

// ScanTargets calls fn for every target that has a state, until it returns false.
func (s *Store) ScanTargets(fn func(delay.Target, TargetState) bool) error {
	return s.scan(s.prefix(spaceTarget), nil, func(k, v []byte) (bool, error) {
		t, err := codec.DecodeTargetState(v)
		if err != nil {
			return false, fmt.Errorf("target %q: %w", k[prefixLen:], err)
		}
		return fn(delay.Target(k[prefixLen:]), t), nil
	})
}
