// SPDX-License-Identifier: Apache-2.0

package tiered

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"go.uber.org/zap"

	"github.com/cicadamq/cicada/delay"
	"github.com/cicadamq/cicada/internal/planted"
	"github.com/cicadamq/cicada/tiered/merge"
	"github.com/cicadamq/cicada/tiered/objio"
	"github.com/cicadamq/cicada/tiered/segment"
	"github.com/cicadamq/cicada/tiered/upkeep"
)

const (
	// maxMarksHeld bounds the marks that one compaction applies, 40 MB. With more, some of what is
	// finished is copied once more.
	maxMarksHeld = 1 << 20
	// maxItems bounds the messages of an output, whose ids are held in memory until it is complete.
	maxItems = 1 << 20
	// waitBytes is how much a compaction does between two calls of Upkeep.Wait.
	waitBytes = 256 << 10
	// compactBytes is scanBytes of a compaction, which is in no hurry.
	compactBytes = 16 << 20
)

// errStale ends a compaction whose inputs are not listed any more, or that took too long.
var errStale = errors.New("tiered: compaction overtaken")

// Compacted is what a Compact did.
type Compacted struct {
	Job     string // "none": nothing was due, or what was done came to nothing
	Inputs  int    // objects that left the lists
	Outputs int    // objects that took their place
	Read    int64  // bytes of the inputs
	Written int64  // bytes of the outputs
	Dropped int64  // messages, or marks, that were left out
}

// Compact does the most urgent compaction there is, if any: it merges many level-0 segments into
// sorted level-1 segments, level-1 segments that overlap, small kept segments and small marks
// objects, and rewrites a segment much of which is finished. The inputs become pending deletes in
// the commit that lists the outputs (T8). A Commit waits only for that commit, not for the merge.
//
// One compaction runs at a time: a second call does nothing.
func (t *Tier) Compact(ctx context.Context, u Upkeep) (Compacted, error) {
	done := Compacted{Job: upkeep.None.String()}
	if !t.compacting.CompareAndSwap(false, true) {
		return done, nil
	}
	defer t.compacting.Store(false)
	u.Limits.SetDefaults()
	c := compaction{t: t, u: &u}
	err := c.run(objio.As(ctx, objio.Background))
	switch {
	case errors.Is(err, errStale):
		t.opts.Logger.Debug("tier compaction overtaken", zap.Stringer("job", c.job.Kind))
		return done, nil
	case err != nil:
		return done, fmt.Errorf("compact: %w", err)
	case c.done.Job != "":
		t.opts.Logger.Debug("tier compacted", zap.String("job", c.done.Job),
			zap.Int("inputs", c.done.Inputs), zap.Int("outputs", c.done.Outputs),
			zap.Int64("dropped", c.done.Dropped))
		return c.done, nil
	}
	return done, nil
}

// run plans and does one job. The state is that of one moment: what is decided from it stays right,
// because watermarks only rise and marks only come (U1).
func (c *compaction) run(ctx context.Context) (err error) {
	t := c.t
	if c.state, err = t.ownState(); err != nil {
		return err
	}
	if err := t.learn(ctx, c.state); err != nil {
		return err
	}
	now := c.u.Now()
	purged := upkeep.PurgedThrough(c.state, now, c.u.DedupeWindow)
	c.job = upkeep.Plan(c.state, &c.u.Limits, t.learned, purged, now.Add(-c.u.DedupeWindow))
	switch c.job.Kind {
	case upkeep.None:
		return nil
	case upkeep.Marks:
		return c.mergeMarks(ctx, now)
	default:
		return c.merge(ctx, now, purged)
	}
}

// merge does a job on segments.
func (c *compaction) merge(ctx context.Context, now delay.Due, purged delay.Seq) error {
	t := c.t
	keeper := &upkeep.Keeper{Now: now, Window: c.u.DedupeWindow}
	if c.job.Kind != upkeep.Kept {
		keeper.Watermark = c.state.Watermark
		keeper.Purged = upkeep.Purger(c.state, now, c.u.DedupeWindow)
		c.purged = purged
	}
	whole, err := c.loadMarks(ctx, keeper)
	if err != nil {
		return err
	}
	c.keeper, c.w = keeper, segment.NewWriter(t.z)
	var bad error
	var from delay.Key
	if planted.Is(planted.CompactSkipsFirst) {
		from = c.job.Inputs[0].First.Next()
	}
	err = merge.Scan(ctx, pages{t}, compactBytes, c.job.Inputs, from, delay.MaxKey,
		func(it *segment.Item) bool {
			bad = c.add(ctx, it)
			return bad == nil
		})
	if err = errors.Join(err, bad); err != nil {
		return err
	}
	if c.useless() {
		return c.giveBack(ctx)
	}
	if err := c.finish(ctx); err != nil {
		return err
	}
	marked := make([]int64, len(c.outputs))
	for i := range c.outputs {
		marked[i] = t.learned.Marked(&c.outputs[i].info)
	}
	if err := c.replace(ctx); err != nil {
		return err
	}
	for i := range c.outputs {
		o := &c.outputs[i]
		t.indexes.Put(o.info.Name, o.index, o.index.MemoryBytes())
		if whole && c.job.Kind != upkeep.Kept {
			t.learned.NoteWritten(&o.info, marked[i])
		}
	}
	return nil
}

// loadMarks gives the keeper the marks that may concern the inputs, as many as may be held. whole
// says that these were all.
func (c *compaction) loadMarks(
	ctx context.Context, keeper *upkeep.Keeper,
) (whole bool, err error) {
	var list []SegmentInfo
	count, left := int64(0), 0
	for i := range c.state.Marks {
		m := &c.state.Marks[i]
		if m.Last.IsZero() || !slices.ContainsFunc(c.job.Inputs, func(s SegmentInfo) bool {
			return m.Overlaps(s.First, s.Last.Next()) && m.MinSeq <= s.MaxSeq && s.MinSeq <= m.MaxSeq
		}) {
			continue
		}
		if count+m.Count > maxMarksHeld {
			left++
			continue
		}
		list, count = append(list, *m), count+m.Count
	}
	err = ordered(ctx, len(list), func(ctx context.Context, i int) ([]delay.Mark, error) {
		return c.t.readMarks(ctx, &list[i])
	}, func(_ int, marks []delay.Mark) (bool, error) {
		keeper.AddMarks(marks)
		return true, nil
	})
	keeper.Seal()
	return left == 0, err
}
