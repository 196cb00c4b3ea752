// SPDX-License-Identifier: Apache-2.0

package scheduler

import (
	"context"
	"errors"
	"fmt"

	"github.com/cicadamq/cicada/delay"
	"github.com/cicadamq/cicada/scheduler/commit"
	"github.com/cicadamq/cicada/scheduler/crowd"
	"github.com/cicadamq/cicada/scheduler/find"
	"github.com/cicadamq/cicada/scheduler/intake"
)

// Accept stores drafts and fills receipts, which has the same length. Items are independent: what
// is wrong with one is in its receipt. The error of the call means that nothing is promised:
// ErrOverloaded, ErrDiskFull and ErrClosed say that nothing was stored, anything else that the
// outcome is unknown. Strings and bytes of the drafts must stay unchanged until it returns.
func (s *Shard) Accept(ctx context.Context, drafts []delay.Draft, receipts []Receipt) error {
	if err := s.accepting(); err != nil {
		return err
	}
	s.prepare(drafts, receipts)
	weight, tier, named := int64(0), false, false
	var replaced []delay.ID
	for i := range drafts {
		d := &drafts[i]
		weight += commit.Weight(d)
		named = named || d.ID != ""
		if d.Replace && d.ID != "" {
			replaced = append(replaced, d.ID)
		}
		if d.Durability == delay.Tier {
			if s.parts.Tier == nil {
				return delay.Invalid("durability", "tier needs a bucket (--bucket none)")
			}
			tier = true
		}
	}
	if named {
		s.awaitIDs(ctx)
	}
	records, err := s.coldRecords(ctx, replaced)
	if err != nil {
		return err
	}
	s.crowd.Load(drafts)
	a := &commit.AcceptOp{
		Drafts: drafts, Receipts: receipts, Records: records, Done: make(chan error, 1),
	}
	if err := s.do(a, weight, a.Done); err != nil {
		return err
	}
	s.countAccepted(receipts)
	s.advise(drafts, receipts)
	s.repeatedStates(ctx, receipts)
	if tier {
		return s.waitFor(ctx, a.TierSeq, 0) // S3
	}
	return nil
}

// prepare clears receipts and makes schedules of the drafts that recur, or says in their receipts
// why not; these are not stored, but may repeat what was (S4).
func (s *Shard) prepare(drafts []delay.Draft, receipts []Receipt) {
	clear(receipts)
	for i := range drafts {
		if d := &drafts[i]; d.Recurrence != nil {
			receipts[i].Err = s.planner.Begin(&d.Message, s.Now())
		}
	}
}

// advise tells of later seconds with room where there was none.
func (s *Shard) advise(drafts []delay.Draft, receipts []Receipt) {
	var search *crowd.Search
	for i := range receipts {
		r := &receipts[i]
		if !r.Crowded {
			continue
		}
		if search == nil {
			search = s.crowd.Search()
		}
		r.Suggested = search.After(drafts[i].Lane(), drafts[i].Due)
		if full, ok := errors.AsType[*delay.CrowdedError](r.Err); ok {
			full.Suggested = r.Suggested
		}
	}
}

// repeatedStates tells scheduled from claimed, and from cancelled in bulk, in the receipts of
// repeated requests (S4).
func (s *Shard) repeatedStates(ctx context.Context, receipts []Receipt) {
	var keys, cold []delay.Key
	var at, coldAt []int
	var ids []delay.ID
	for i := range receipts {
		r := &receipts[i]
		if r.Err != nil || !r.Duplicate || r.State.Finished() {
			continue
		}
		loc, err := s.find.Locate(r.ID)
		switch {
		case err != nil || loc.Place == find.PlaceNone:
		case loc.Place == find.PlaceCold:
			cold, coldAt, ids = append(cold, loc.Key), append(coldAt, i), append(ids, r.ID)
		default:
			keys, at = append(keys, loc.Key), append(at, i)
		}
	}
	if records, err := s.coldRecords(ctx, ids); err == nil {
		for n, key := range cold {
			if rec := records[key]; len(rec) > 0 && s.find.Bulk().Covers(key, rec) {
				receipts[coldAt[n]].State = delay.Cancelled
			}
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
				s.parts.Events.Rejected("api", intake.KindOf(receipts[i].Err), 1)
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

// Reserve makes n ids to be used by later sends. A reserved id costs nothing until it is used.
func (s *Shard) Reserve(ctx context.Context, n int) ([]delay.ID, error) {
	if err := s.accepting(); err != nil {
		return nil, err
	}
	o := &commit.ReserveOp{N: n, Done: make(chan error, 1)}
	err := s.do(o, 1, o.Done)
	return o.IDs, err
}
