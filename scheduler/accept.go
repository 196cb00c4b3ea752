// SPDX-License-Identifier: Apache-2.0

package scheduler

import (
	"context"
	"errors"
	"fmt"

	"github.com/cicadamq/cicada/delay"
	"github.com/cicadamq/cicada/scheduler/commit"
)

// Accept stores drafts and fills receipts, which has the same length. Items are independent: what
// is wrong with one is in its receipt. The error of the call means that nothing is promised:
// ErrOverloaded, ErrDiskFull and ErrClosed say that nothing was stored, anything else that the
// outcome is unknown. Strings and bytes of the drafts must stay unchanged until it returns.
func (s *Shard) Accept(ctx context.Context, drafts []delay.Draft, receipts []Receipt) error {
	if err := s.accepting(); err != nil {
		return err
	}
	weight, tier := int64(0), false
	for i := range drafts {
		d := &drafts[i]
		weight += int64(len(d.Body)) + 256
		if d.Durability == delay.Tier {
			if s.parts.Tier == nil {
				return delay.Invalid("durability", "tier needs a bucket (--bucket none)")
			}
			tier = true
		}
	}
	a := &commit.AcceptOp{Drafts: drafts, Receipts: receipts, Done: make(chan error, 1)}
	if err := s.do(a, weight, a.Done); err != nil {
		return err
	}
	s.countAccepted(receipts)
	s.repeatedStates(receipts)
	if tier {
		return s.waitFor(ctx, a.TierSeq, 0) // S3
	}
	return nil
}

// repeatedStates tells scheduled from claimed in the receipts of repeated requests (S4).
func (s *Shard) repeatedStates(receipts []Receipt) {
	var keys []delay.Key
	var at []int
	for i := range receipts {
		r := &receipts[i]
		if r.Err != nil || !r.Duplicate || r.State.Finished() {
			continue
		}
		if loc, err := s.find.Locate(r.ID); err == nil && loc.Place != commit.PlaceNone {
			keys, at = append(keys, loc.Key), append(at, i)
		}
	}
	if len(keys) == 0 {
		return
	}
	for n, seen := range s.inspect(keys) {
		if seen.Claimed {
			receipts[at[n]].State = delay.Claimed
		}
	}
}

func (s *Shard) accepting() error {
	switch {
	case s.draining.Load():
		return fmt.Errorf("%w: shutting down", delay.ErrUnavailable)
	case s.parts.Store.Refusing():
		return fmt.Errorf("%w: %d bytes free", delay.ErrDiskFull, s.parts.Store.DiskFree())
	}
	return nil
}

func (s *Shard) countAccepted(receipts []Receipt) {
	accepted, repeated := 0, 0
	for i := range receipts {
		switch {
		case receipts[i].Err != nil:
			if s.parts.Events.Rejected != nil {
				s.parts.Events.Rejected("api", kindOf(receipts[i].Err), 1)
			}
		case receipts[i].Duplicate:
			repeated++
		default:
			accepted++
		}
	}
	if s.parts.Events.Accepted != nil && accepted > 0 {
		s.parts.Events.Accepted("api", accepted)
	}
	if s.parts.Events.Duplicate != nil && repeated > 0 {
		s.parts.Events.Duplicate("api", repeated)
	}
}

// kindOf is the label of an error in metrics.
func kindOf(err error) string {
	for _, kind := range [...]error{
		delay.ErrInvalid, delay.ErrExists, delay.ErrTooLate, delay.ErrUnavailable,
		delay.ErrOverloaded, delay.ErrDiskFull, delay.ErrUnimplemented,
	} {
		if errors.Is(err, kind) {
			return kind.Error()
		}
	}
	return "internal"
}

// Reserve makes n ids to be used by later sends. A reserved id costs nothing until it is used.
func (s *Shard) Reserve(ctx context.Context, n int) ([]delay.ID, error) {
	if err := s.accepting(); err != nil {
		return nil, err
	}
	o := &commit.ReserveOp{N: n, Done: make(chan error, 1)}
	err := s.do(o, 1, o.Done)
	return o.IDs, err
}
