// SPDX-License-Identifier: Apache-2.0

package localstore

import (
	"context"
	"errors"
	"fmt"

	"github.com/cockroachdb/pebble/v2"

	"github.com/cicadamq/cicada/delay"
	"github.com/cicadamq/cicada/localstore/codec"
	"github.com/cicadamq/cicada/localstore/ledger"
)

// Report is what Check found.
type Report struct {
	Rows, Parked, Dead, IDs, Marks, Others int64
	// Problems are at most maxProblems; ProblemCount is all.
	Problems     []string
	ProblemCount int64
}

// maxProblems bounds a report of a store that is damaged throughout.
const maxProblems = 100

// checkEvery is how many keys are read between two looks at the context and calls of progress.
const checkEvery = 10_000

func (r *Report) problem(format string, args ...any) {
	r.ProblemCount++
	if len(r.Problems) < maxProblems {
		r.Problems = append(r.Problems, fmt.Sprintf(format, args...))
	}
}

// checker walks one state of the store.
type checker struct {
	s        *Store
	snap     *pebble.Snapshot
	slots    map[uint32]ledger.SlotTally
	lanes    map[uint64]Tally
	sum      Counts
	books    delay.Books
	boundary delay.Key

	seenSlots map[uint32]Tally
	seenLanes map[uint64]Tally
	report    Report
	done      int64
	step      func(done int64) error
}

// Check reads everything once and compares it: every value decodes, the counts agree with the
// slots, the lanes and the books, and every unfinished id below the local boundary leads to its
// message. It changes nothing and may run beside all else. progress, which may be nil, is called
// now and then with how many of the messages and ids are read.
func (s *Store) Check(
	ctx context.Context, progress func(done, total int64),
) (Report, error) {
	if err := s.calls.Begin(); err != nil {
		return Report{}, fmt.Errorf("check store %s: %w", s.dir, err)
	}
	defer s.calls.End()
	c := s.newChecker()
	c.step = func(done int64) error {
		if progress != nil {
			progress(done, max(done, c.sum.Warm.Messages+c.sum.Parked+c.sum.Dead))
		}
		return ctx.Err()
	}
	err := c.run()
	if closeErr := c.snap.Close(); err == nil {
		err = closeErr
	}
	if err != nil {
		return c.report, fmt.Errorf("check store %s: %w", s.dir, err)
	}
	return c.report, c.step(c.done)
}

// newChecker takes the snapshot and the counts of the same batch.
func (s *Store) newChecker() *checker {
	s.turn <- struct{}{}
	defer func() { <-s.turn }()
	c := &checker{
		s: s, snap: s.db.NewSnapshot(), books: s.Books(), boundary: s.Meta().Boundary,
		seenSlots: map[uint32]Tally{}, seenLanes: map[uint64]Tally{},
	}
	c.slots, c.lanes, c.sum = s.ledger.Copy()
	return c
}

func (c *checker) run() error {
	for _, part := range [...]struct {
		space byte
		each  func(k, v []byte) error
	}{
		{spaceRow, c.row}, {spaceParked, c.parked}, {spaceWhere, c.where},
		{spaceDead, c.dead}, {spaceID, c.id},
		{spaceMark, c.mark}, {spaceOutbox, c.mark}, {spaceLease, c.lease},
		{spaceAttempts, c.attempts}, {spaceTarget, c.target}, {spaceTimer, c.other},
		{spaceCursor, c.other}, {spaceBulk, c.predicate}, {spaceLedger, c.other}, {spaceMeta, c.other},
	} {
		if err := c.space(part.space, part.each); err != nil {
			return err
		}
	}
	c.counts()
	return nil
}

// space walks one space. Damaged blocks end the walk of their space: what they held is unknown.
func (c *checker) space(space byte, each func(k, v []byte) error) error {
	prefix := c.s.prefix(space)
	it, err := c.s.iterOf(c.snap, prefix, after(prefix))
	if err != nil {
		return err
	}
	// Closing repeats the error of the walk, which is told.
	defer func() { _ = it.Close() }()
	for ok := it.First(); ok; ok = it.Next() {
		v, err := it.ValueAndErr()
		if err != nil {
			break
		}
		if err := each(it.Key(), v); err != nil {
			c.report.problem("%c %x: %v", space, it.Key()[prefixLen:], err)
		}
		if c.done++; c.done%checkEvery == 0 {
			if err := c.step(c.done); err != nil {
				return err
			}
		}
	}
	if err := it.Error(); err != nil {
		c.report.problem("%c: not readable: %v", space, err)
	}
	return nil
}

func (c *checker) row(k, v []byte) error {
	c.report.Rows++
	key, err := rowKeyOf(k, prefixLen)
	if err != nil {
		return err
	}
	t := c.seenSlots[ledger.SlotOf(key.Due)]
	t.Add(one(len(v)))
	c.seenSlots[ledger.SlotOf(key.Due)] = t
	m, err := delay.DecodeRecord(v)
	if err == nil && m.Due > key.Due {
		err = fmt.Errorf("%w: due %d is above its key", delay.ErrCorrupt, m.Due)
	}
	return err
}

func (c *checker) parked(k, v []byte) error {
	c.report.Parked++
	key, err := rowKeyOf(k, prefixLen+laneLen)
	if err != nil {
		return err
	}
	if err := c.must(c.s.key(spaceWhere, key), "entry of its lane"); err != nil {
		return err
	}
	r := codec.Reader{B: k[prefixLen:]}
	lane := r.Uint64()
	_, rec, err := codec.SplitParked(v)
	if err != nil {
		return err
	}
	t := c.seenLanes[lane]
	t.Add(one(len(rec)))
	c.seenLanes[lane] = t
	m, err := delay.DecodeRecord(rec)
	if err == nil && m.Lane().Hash() != lane { // schedules and guarded messages have other lanes
		err = fmt.Errorf("%w: target %q is of lane %016x", delay.ErrCorrupt, m.Target,
			m.Lane().Hash())
	}
	return err
}

func (c *checker) where(k, v []byte) error {
	if _, err := rowKeyOf(k, prefixLen); err != nil {
		return err
	}
	parked := append(append(c.s.prefix(spaceParked), v...), k[prefixLen:]...)
	return c.must(parked, "parked row")
}

func (c *checker) dead(k, v []byte) error {
	c.report.Dead++
	if _, err := rowKeyOf(k, prefixLen); err != nil {
		return err
	}
	_, rec, err := delay.DecodeProgress(v)
	if err == nil {
		_, err = delay.DecodeRecord(rec)
	}
	return err
}

// id checks that an unfinished id leads to its message, where the rows are the whole truth (rule
// R1).
func (c *checker) id(_, v []byte) error {
	c.report.IDs++
	rec, err := codec.DecodeIDRecord(v)
	if err != nil || rec.State.Finished() || !rec.Key.Less(c.boundary) {
		return err
	}
	if ok, err := c.has(c.s.key(spaceRow, rec.Key)); ok || err != nil {
		return err
	}
	return c.must(c.s.key(spaceWhere, rec.Key), "message at "+rec.Key.String())
}

// must is an error unless there is something under key.
func (c *checker) must(key []byte, what string) error {
	ok, err := c.has(key)
	if err == nil && !ok {
		err = fmt.Errorf("%w: no %s", delay.ErrCorrupt, what)
	}
	return err
}

func (c *checker) has(key []byte) (bool, error) {
	_, closer, err := c.snap.Get(key)
	switch {
	case err == nil:
		return true, closer.Close()
	case errors.Is(err, pebble.ErrNotFound):
		return false, nil
	}
	return false, err
}

func (c *checker) mark(_, v []byte) error {
	c.report.Marks++
	_, err := delay.DecodeMark(v)
	return err
}

func (c *checker) lease(k, v []byte) error {
	c.report.Others++
	no, err := numberOf(k)
	if err == nil {
		_, err = codec.DecodeLease(no, v)
	}
	return err
}

func (c *checker) attempts(k, v []byte) error {
	c.report.Others++
	if _, err := rowKeyOf(k, prefixLen); err != nil {
		return err
	}
	_, err := decodeProgress(v)
	return err
}

func (c *checker) target(_, v []byte) error {
	c.report.Others++
	_, err := codec.DecodeTargetState(v)
	return err
}

func (c *checker) predicate(_, v []byte) error {
	c.report.Others++
	_, err := delay.DecodePredicate(v)
	return err
}

func (c *checker) other(_, _ []byte) error {
	c.report.Others++
	return nil
}

// counts compares what was seen with what was counted.
func (c *checker) counts() {
	for n, t := range c.slots {
		if seen := c.seenSlots[n]; seen != t.Warm {
			from, _ := ledger.Span(n)
			c.report.problem("slot %s: counted %+v, found %+v", from, t.Warm, seen)
		}
		if t.Cold.Messages < 0 || t.Cold.Bytes < 0 {
			from, _ := ledger.Span(n)
			c.report.problem("slot %s: cold is %+v", from, t.Cold)
		}
		delete(c.seenSlots, n)
	}
	for n, seen := range c.seenSlots {
		from, _ := ledger.Span(n)
		c.report.problem("slot %s: counted none, found %+v", from, seen)
	}
	for lane, t := range c.lanes {
		if seen := c.seenLanes[lane]; seen != t {
			c.report.problem("lane %016x: counted %+v, found %+v", lane, t, seen)
		}
		delete(c.seenLanes, lane)
	}
	for lane, seen := range c.seenLanes {
		c.report.problem("lane %016x: counted none, found %+v", lane, seen)
	}
	if c.sum.Dead != c.report.Dead {
		c.report.problem("dead letters: counted %d, found %d", c.sum.Dead, c.report.Dead)
	}
	if !c.books.Balanced() {
		c.report.problem("books do not balance: %+v", c.books)
	}
	held := c.sum.Warm.Messages + c.sum.Cold.Messages + c.sum.Parked
	if want := c.books.Pending + c.books.Schedules; c.books != (delay.Books{}) && want != held {
		c.report.problem("books: %d pending with schedules, %d held", want, held)
	}
}
