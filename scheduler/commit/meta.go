// SPDX-License-Identifier: Apache-2.0

package commit

import (
	"cmp"
	"slices"

	"github.com/cicadamq/cicada/delay"
	"github.com/cicadamq/cicada/internal/planted"
	"github.com/cicadamq/cicada/localstore"
	"github.com/cicadamq/cicada/scheduler/core"
)

// metaOp changes the shard's scalar state.
type metaOp struct {
	change func(c *Committer)
	done   chan error // may be nil
}

func (o *metaOp) stage(c *Committer) {
	o.change(c)
	c.changed()
}

func (o *metaOp) finish(_ localstore.Synced, err error) {
	if o.done != nil {
		o.done <- err
	}
}

// PauseTarget pauses or resumes a target, durably. lane is its number. done has capacity 1 and is
// answered after the sync, here and below.
func PauseTarget(target delay.Target, lane uint32, paused bool, done chan error) Op {
	return &metaOp{done: done, change: func(c *Committer) {
		st := c.targets[target]
		st.Paused = paused
		c.targets[target] = st
		c.batch.PutTarget(target, st)
		c.paused = PausedOf(c.targets) // those who have the last list may still read it
		c.then(core.EvPause{Lane: lane, Paused: paused})
	}}
}

// PausedOf lists the paused ones of targets, ascending.
func PausedOf(targets map[delay.Target]localstore.TargetState) (paused []delay.Target) {
	for t, st := range targets {
		if st.Paused {
			paused = append(paused, t)
		}
	}
	slices.Sort(paused)
	return paused
}

// LimitTarget sets or removes the limit of a target, durably.
func LimitTarget(target delay.Target, lane uint32, limit delay.Limit, done chan error) Op {
	return &metaOp{done: done, change: func(c *Committer) {
		st := c.targets[target]
		st.Limit = limit
		c.targets[target] = st
		c.batch.PutTarget(target, st)
		c.limits = LimitsOf(c.targets)
		c.then(core.EvLimit{Lane: lane, Limit: limit})
	}}
}

// LimitsOf lists the limits of targets, ascending.
func LimitsOf(targets map[delay.Target]localstore.TargetState) (limits []delay.TargetLimit) {
	for t, st := range targets {
		if !st.Limit.IsZero() {
			limits = append(limits, delay.TargetLimit{Target: t, Limit: st.Limit})
		}
	}
	slices.SortFunc(limits, func(a, b delay.TargetLimit) int {
		return cmp.Compare(a.Target, b.Target)
	})
	return limits
}

// RaiseCursor writes the durable claim cursor of a lane ahead (rule R8).
func RaiseCursor(a core.ActClaimCursor) Op {
	return &metaOp{change: func(c *Committer) {
		target := c.lanes.Target(a.Lane)
		st := c.targets[target]
		st.ClaimCursor = a.Key
		c.targets[target] = st
		c.batch.PutTarget(target, st)
		c.then(core.EvClaimCursor(a))
	}}
}

// ForgetTarget deletes what is durable of an idle lane, unless it is paused or limited: nothing is
// parked in it, so nothing is below its claim cursor either.
func ForgetTarget(a core.ActForget) Op {
	return &metaOp{change: func(c *Committer) {
		if st := c.targets[a.Target]; st.Paused || !st.Limit.IsZero() {
			return
		}
		delete(c.targets, a.Target)
		delete(c.cursors, a.Target)
		c.batch.DeleteTarget(a.Target)
	}}
}

// FenceCore tells the core when everything that was put before is synced.
func FenceCore() Op {
	return &metaOp{change: func(c *Committer) { c.then(core.EvFenced{}) }}
}

// NoteUpload notes what a committed manifest holds: the rows up to uploaded and the marks below
// outbox (C7). Only then may rows be dropped and marks be forgotten.
func NoteUpload(uploaded delay.Seq, version, outbox uint64, done chan error) Op {
	return &metaOp{done: done, change: func(c *Committer) {
		c.meta.Uploaded = max(c.meta.Uploaded, uploaded)
		c.meta.ManifestVersion = version
		if outbox > c.meta.OutboxDone {
			c.batch.DeleteOutboxThrough(outbox - 1)
			c.meta.OutboxDone = outbox
		}
		c.retireMarks()
	}}
}

// NoteTaking notes, before the shard is taken in a manifest, which one that is and the nonce of the
// next (rule R10).
func NoteTaking(nonce [16]byte, version uint64, next [16]byte, done chan error) Op {
	return &metaOp{done: done, change: func(c *Committer) {
		c.meta.Nonce, c.meta.ManifestVersion, c.meta.NextNonce = nonce, version, next
	}}
}

// NoteTaken notes the manifest in which a shard was taken that had started without it (rule R11).
// The seqs keep their epoch until the next start: they are above all others, and nobody else hands
// them out.
func NoteTaken(epoch delay.Epoch, nonce [16]byte, version uint64, done chan error) Op {
	return &metaOp{done: done, change: func(c *Committer) {
		c.meta.Epoch, c.meta.Nonce, c.meta.ManifestVersion = epoch, nonce, version
	}}
}

// SetClean notes whether everything that was claimed has landed before the end.
func SetClean(clean bool, done chan error) Op {
	return &metaOp{done: done, change: func(c *Committer) {
		// What ended or was parked after the last flush is looked for at the next start.
		c.meta.Clean = clean && (!c.tiered || !c.upload.Owed()) && !c.inDoubt()
	}}
}

// inDoubt reports whether there are still messages that may have been claimed before the last
// crash: a clean end would forget the doubt (rule R8).
func (c *Committer) inDoubt() bool {
	if c.meta.Watermark.Due <= c.horizon {
		return true
	}
	doubt := false
	for target, cursor := range c.cursors {
		err := c.store.ScanParked(target.Hash(), delay.Key{}, func(k delay.Key, _ bool, _ []byte) bool {
			doubt = doubt || !cursor.Less(k)
			return false
		})
		doubt = doubt || err != nil
	}
	return doubt
}

// Fence does nothing: done is answered when everything that was put before is synced.
func Fence(done chan error) Op { return &metaOp{done: done, change: func(*Committer) {}} }

// RaiseHorizon writes the claim horizon ahead (rule R8).
func RaiseHorizon(h delay.Due) Op {
	return &metaOp{change: func(c *Committer) {
		c.meta.ClaimHorizon = max(c.meta.ClaimHorizon, h)
		c.then(core.EvHorizon{Horizon: c.meta.ClaimHorizon})
	}}
}

// RaiseWatermark writes the low watermark, lowered to what was accepted after the core looked, and
// removes the drained rows by range: scanning point tombstones costs 0.5 s per million.
func RaiseWatermark(a core.ActWatermark) Op {
	return &metaOp{change: func(c *Committer) {
		mark := a.Mark
		left := c.recent[:0]
		for _, r := range c.recent {
			if r.last <= a.Seen || planted.Is(planted.AcceptedUnseen) {
				continue
			}
			left = append(left, r)
			if r.low.Less(mark) {
				mark = r.low
			}
		}
		c.recent = left
		if c.lowest.Less(mark) {
			mark = c.lowest
		}
		if c.meta.Boundary.Less(mark) {
			mark = c.meta.Boundary
		}
		if !c.meta.Watermark.Less(mark) {
			return
		}
		c.meta.Watermark = mark
		if mark.Due-c.ranged.Due >= rangeStep {
			c.batch.DeleteRowsBelow(c.ranged, mark)
			c.ranged = mark
		}
	}}
}

// rangeStep is how far the watermark moves, in ms, between removals of drained rows by range.
const rangeStep = 10_000

// retireMarks drops local marks that no hydrate can ask for any more (rule R6): the boundary has
// passed them.
func (c *Committer) retireMarks() {
	if c.retired.Less(c.meta.Boundary) && c.meta.Boundary != delay.MaxKey {
		c.batch.DeleteMarks(c.retired, c.meta.Boundary)
		c.retired = c.meta.Boundary
	}
}
