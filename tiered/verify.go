// SPDX-License-Identifier: Apache-2.0

package tiered

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/cicadamq/cicada/delay"
	"github.com/cicadamq/cicada/tiered/segment"
)

// Problem is an object that is not as the manifest says.
type Problem struct {
	Name string
	Err  error
}

// Report is the result of Verify.
type Report struct {
	Version  uint64 // of the manifest
	Objects  int64
	Messages int64
	Marks    int64
	Bytes    int64 // read
	Problems []Problem
}

// verifyLarge is the size from which objects are verified verifyFew at a time: each is held in
// memory as a whole.
const (
	verifyLarge = 16 << 20
	verifyFew   = 2
)

// Verify reads every listed object and checks every checksum, every item and what the manifest
// says of it. progress, if not nil, is told the bytes done of the total. What is wrong with the
// objects is in the report; the error is of the run itself: ctx, or a bucket without an answer.
// Objects that the owner has taken from the lists meanwhile are not missed.
func (t *Tier) Verify(ctx context.Context, progress func(done, total int64)) (Report, error) {
	state := t.State()
	report := Report{Version: state.Version}
	var list []*SegmentInfo
	var total int64
	for _, infos := range [...][]SegmentInfo{state.Segments, state.Kept, state.Marks} {
		for i := range infos {
			list = append(list, &infos[i])
			total += infos[i].Stored
		}
	}
	marksFrom := len(state.Segments) + len(state.Kept)
	large := make(chan struct{}, verifyFew)
	err := ordered(ctx, len(list), func(ctx context.Context, i int) (error, error) {
		if list[i].Stored >= verifyLarge {
			select {
			case large <- struct{}{}:
				defer func() { <-large }()
			case <-ctx.Done():
				return nil, context.Cause(ctx)
			}
		}
		err := t.verifyObject(ctx, list[i], i >= marksFrom)
		if errors.Is(err, delay.ErrCorrupt) {
			return err, nil // a finding
		}
		return nil, err
	}, func(i int, finding error) (bool, error) {
		report.Objects++
		report.Bytes += list[i].Stored
		switch {
		case finding != nil:
			report.Problems = append(report.Problems, Problem{Name: list[i].Name, Err: finding})
		case i >= marksFrom:
			report.Marks += list[i].Count
		default:
			report.Messages += list[i].Count
		}
		if progress != nil {
			progress(report.Bytes, total)
		}
		return true, nil
	})
	if err == nil {
		err = t.stillListed(ctx, &report)
	}
	if err != nil {
		return report, fmt.Errorf("verify tier: %w", err)
	}
	return report, nil
}

// stillListed leaves out problems of objects that are not listed any more: collected, while they
// were being read.
func (t *Tier) stillListed(ctx context.Context, report *Report) error {
	if len(report.Problems) == 0 {
		return nil
	}
	if err := t.lock(ctx); err != nil {
		return err
	}
	defer t.unlock()
	snap, err := t.load(ctx)
	if err != nil {
		return err
	}
	if snap == nil {
		return fmt.Errorf("%w: the manifest vanished", delay.ErrCorrupt)
	}
	listed := snap.State.Names(false)
	report.Problems = slices.DeleteFunc(report.Problems, func(p Problem) bool {
		return !listed[p.Name]
	})
	return nil
}

func (t *Tier) verifyObject(ctx context.Context, info *SegmentInfo, marks bool) error {
	if marks {
		_, err := t.readMarks(ctx, info)
		return err
	}
	return t.again(ctx, info, func() error {
		body, _, err := t.client.Get(ctx, t.prefix+info.Name, info.Stored)
		if err != nil {
			return err
		}
		x, err := segment.Verify(ctx, t.z, body)
		if err != nil {
			return err
		}
		return t.matches(info, x)
	})
}
