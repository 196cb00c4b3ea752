// SPDX-License-Identifier: Apache-2.0

package tiered

import (
	"context"
	"fmt"
	"slices"

	"github.com/cicadamq/cicada/delay"
	"github.com/cicadamq/cicada/internal/planted"
	"github.com/cicadamq/cicada/tiered/segment"
	"github.com/cicadamq/cicada/tiered/upkeep"
)

// compaction is one job under way.
type compaction struct {
	t     *Tier
	u     *Upkeep
	state *State // at the start
	job   upkeep.Job
	done  Compacted

	keeper  *upkeep.Keeper
	purged  delay.Seq
	w       *segment.Writer
	open    bool
	last    delay.Key // of the open output
	read    int64     // items
	dropped int64
	unsaid  int64 // bytes that Wait was not told of
	outputs []stagedObject
	gone    SegmentInfo // spans the marks that were left out; no keys: none
}

// single reports a job on one segment, whose output is one segment too: it is only written when it
// is worth it.
func (c *compaction) single() bool {
	return c.job.Kind == upkeep.Rewrite || c.job.Kind == upkeep.Purge
}

// add copies an item, or leaves it out.
func (c *compaction) add(ctx context.Context, it *segment.Item) error {
	c.read++
	if err := c.wait(ctx, int64(len(it.Record))); err != nil {
		return err
	}
	if !c.keeper.Keep(it.Key, it.Record) {
		c.dropped++
		return nil
	}
	if c.open && c.full(it.Key) {
		if err := c.finish(ctx); err != nil {
			return err
		}
	}
	kept := c.job.Kind == upkeep.Kept
	if !c.open {
		c.open = true
		c.w.Reset(c.t.meta(kept))
	}
	c.last = it.Key
	if !kept {
		return c.w.Add(it.Key, it.Record)
	}
	k, err := it.Kept()
	if err != nil {
		return err
	}
	return c.w.AddKept(&k)
}

// full reports whether the output ends before next: it is large, or a UTC day ends and it is not
// small. So near days get segments of their own, and far ones share.
func (c *compaction) full(next delay.Key) bool {
	stored, l := c.w.Size(), &c.u.Limits
	switch {
	case c.single():
		return false
	case stored >= l.TargetBytes || c.w.Count() >= maxItems:
		return true
	default:
		return c.job.Kind != upkeep.Kept && stored >= l.LeastBytes &&
			next.Due/segment.DayMillis != c.last.Due/segment.DayMillis
	}
}

// finish stores the open output, if there is one.
func (c *compaction) finish(ctx context.Context) error {
	if !c.open {
		return nil
	}
	c.open = false
	body, x, err := c.w.Finish()
	if err != nil {
		return err
	}
	folder := l1Folder
	if c.job.Kind == upkeep.Kept {
		folder = keptFolder
	}
	o := segmentObject(folder, body, x)
	o.info.Purged = c.purged
	return c.store(ctx, o, body, segment.FooterSize)
}

// store stores an output. A crash or an error from here on leaves it as an orphan.
func (c *compaction) store(
	ctx context.Context, o stagedObject, body []byte, footer int,
) error {
	if err := c.wait(ctx, waitBytes); err != nil {
		return err
	}
	o.at = c.t.opts.Now()
	if len(c.outputs) > 0 && c.t.tooOld(c.outputs[0]) {
		return errStale // no use in going on (T4)
	}
	if err := c.t.put(ctx, o.info.Name, body, footer); err != nil {
		return err
	}
	c.outputs = append(c.outputs, o)
	return nil
}

func (c *compaction) wait(ctx context.Context, bytes int64) error {
	c.unsaid += bytes
	if c.u.Wait == nil || c.unsaid < waitBytes {
		return nil
	}
	bytes, c.unsaid = c.unsaid, 0
	return c.u.Wait(ctx, bytes)
}

// useless reports a rewrite that would give little back: marks were counted roughly. One for a bulk
// cancel is useless only when nothing is covered.
func (c *compaction) useless() bool {
	return c.job.Kind == upkeep.Rewrite && c.dropped*4 < c.read ||
		c.job.Kind == upkeep.Purge && c.dropped == 0
}

// giveBack ends a rewrite that is useless, and remembers that there was nothing to find.
func (c *compaction) giveBack(ctx context.Context) error {
	in := &c.job.Inputs[0]
	if c.job.Kind == upkeep.Rewrite {
		c.t.learned.NoteWritten(in, max(0, c.t.learned.Marked(in)-c.dropped))
		return nil
	}
	return c.commit(ctx, func(base *State) (State, error) {
		next := base.Clone()
		i := slices.IndexFunc(next.Segments, func(s SegmentInfo) bool { return s.Name == in.Name })
		if i < 0 {
			return State{}, errStale
		}
		next.Segments[i].Purged = max(next.Segments[i].Purged, c.purged)
		return next, nil
	})
}

// mergeMarks does a job on marks objects: sorted by key, those that nothing needs left out (U5).
func (c *compaction) mergeMarks(ctx context.Context, now delay.Due) error {
	var marks []delay.Mark
	err := ordered(ctx, len(c.job.Inputs), func(ctx context.Context, i int) ([]delay.Mark, error) {
		return c.t.readMarks(ctx, &c.job.Inputs[i])
	}, func(_ int, list []delay.Mark) (bool, error) {
		marks = append(marks, list...)
		return true, nil
	})
	if err != nil {
		return err
	}
	c.read = int64(len(marks))
	slices.SortStableFunc(marks, func(a, b delay.Mark) int { return a.Key.Compare(b.Key) })
	marks = slices.CompactFunc(marks, func(a, b delay.Mark) bool { return a == b })
	filter := upkeep.NewMarkFilter(c.state, now, c.u.DedupeWindow)
	marks = slices.DeleteFunc(marks, func(m delay.Mark) bool {
		if filter.Needed(&m) {
			return false
		}
		c.leaveOut(m.Key)
		return true
	})
	c.dropped = c.read - int64(len(marks))
	for part := range slices.Chunk(marks, marksPerObject) {
		o, body, err := c.t.marksObject(part)
		if err != nil {
			return err
		}
		if err := c.store(ctx, o, body, segment.MarksFooterSize); err != nil {
			return err
		}
	}
	if err := c.replace(ctx); err != nil {
		return err
	}
	for i := range c.outputs {
		n := c.outputs[i].info.Count
		c.t.learned.NoteMarks(&c.outputs[i].info, marks[:n])
		marks = marks[n:]
	}
	return nil
}

// leaveOut widens gone by the key of a mark.
func (c *compaction) leaveOut(key delay.Key) {
	if key.IsZero() {
		return
	}
	g := &c.gone
	if g.Last.IsZero() {
		g.First, g.MinSeq = key, key.Seq
	}
	g.Last = key
	g.MinSeq, g.MaxSeq = min(g.MinSeq, key.Seq), max(g.MaxSeq, key.Seq)
}

// replace commits the outputs in the place of the inputs, which become pending deletes (T8).
func (c *compaction) replace(ctx context.Context) error {
	if planted.Is(planted.InputsFirst) {
		for i := range c.job.Inputs {
			_ = c.t.client.Delete(ctx, c.t.prefix+c.job.Inputs[i].Name)
		}
	}
	if err := c.commit(ctx, c.replaced); err != nil {
		return err
	}
	c.done = Compacted{
		Job: c.job.Kind.String(), Inputs: len(c.job.Inputs), Outputs: len(c.outputs),
		Dropped: c.dropped,
	}
	for i := range c.job.Inputs {
		c.done.Read += c.job.Inputs[i].Stored
	}
	for i := range c.outputs {
		c.done.Written += c.outputs[i].info.Stored
	}
	return nil
}

// commit commits what build makes, unless the first output has become too old meanwhile (T4).
func (c *compaction) commit(
	ctx context.Context, build func(base *State) (State, error),
) error {
	return c.t.commitUpkeep(ctx, c.u, func(base *State) (State, error) {
		if c.t.tooOld(c.outputs...) {
			return State{}, errStale
		}
		return build(base)
	})
}

// replaced is the state after the job. It follows whatever was committed since the job began, as
// long as every input is still listed.
func (c *compaction) replaced(base *State) (State, error) {
	next := base.Clone()
	list := &next.Segments
	switch c.job.Kind {
	case upkeep.Kept:
		list = &next.Kept
	case upkeep.Marks:
		list = &next.Marks
	}
	inputs := make(map[string]bool, len(c.job.Inputs))
	for i := range c.job.Inputs {
		inputs[c.job.Inputs[i].Name] = true
	}
	at, found := -1, 0
	for i := range *list {
		if inputs[(*list)[i].Name] {
			if at < 0 {
				at = i
			}
			found++
		}
	}
	switch {
	case found == 0 && c.landed(base):
		return next, nil
	case found < len(inputs):
		return State{}, fmt.Errorf("%d of %d inputs are listed: %w", found, len(inputs), errStale)
	case !c.gone.Last.IsZero() && upkeep.Holds(base, &c.gone, c.state.Names(false)):
		return State{}, fmt.Errorf("a mark that was left out may be needed again: %w", errStale)
	}
	*list = slices.DeleteFunc(*list, func(i SegmentInfo) bool { return inputs[i.Name] })
	outputs := make([]SegmentInfo, len(c.outputs))
	for i := range c.outputs {
		outputs[i] = c.outputs[i].info
		outputs[i].CommittedAt = c.t.now()
	}
	*list = slices.Insert(*list, at, outputs...)
	notBefore := c.u.Now().Add(c.t.opts.DeleteGrace)
	for i := range c.job.Inputs {
		next.Deletes = append(next.Deletes,
			PendingDelete{Name: c.job.Inputs[i].Name, NotBefore: notBefore})
	}
	return next, nil
}

// landed reports whether base is what an earlier attempt of this commit wrote, thought lost.
func (c *compaction) landed(base *State) bool {
	listed, deletes := base.Names(false), make(map[string]bool, len(base.Deletes))
	for _, d := range base.Deletes {
		deletes[d.Name] = true
	}
	for i := range c.outputs {
		if !listed[c.outputs[i].info.Name] {
			return false
		}
	}
	return !slices.ContainsFunc(c.job.Inputs, func(i SegmentInfo) bool { return !deletes[i.Name] })
}
