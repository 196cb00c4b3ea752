// SPDX-License-Identifier: Apache-2.0

package sim

import (
	"errors"
	"slices"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/cicadamq/cicada/delay"
	"github.com/cicadamq/cicada/internal/sim/disk"
	"github.com/cicadamq/cicada/internal/sim/swarm"
	"github.com/cicadamq/cicada/internal/sim/trace"
	"github.com/cicadamq/cicada/scheduler"
	"github.com/cicadamq/cicada/tiered/manifest"
)

// maxOthers bounds the processes beside the main one.
const maxOthers = 2

// alive gives the nodes whose tasks may run.
func (w *World) alive() (nodes []*node) {
	for _, n := range append([]*node{w.main}, w.others...) {
		if n.shard != nil && !n.frozen {
			nodes = append(nodes, n)
		}
	}
	return nodes
}

// stale is an owner that was replaced and whose process runs; nil when there is none.
func (w *World) stale() *node {
	for _, n := range w.others {
		if n.old && n.shard != nil {
			return n
		}
	}
	return nil
}

// vanished reports whether the manifest is away, or was when the process began to open.
func (w *World) vanished() bool { return w.gone || w.came > w.began }

// possibleOwner reports whether an action about owners makes sense now.
func (w *World) possibleOwner(o swarm.Op) bool {
	if w.healed || w.truth.State() == nil && o != swarm.Return && o != swarm.OldDisk {
		return false
	}
	stale := w.stale()
	switch o {
	case swarm.Join:
		return len(w.others) < maxOthers && !w.gone
	case swarm.Freeze:
		return w.shard != nil && !w.frozen
	case swarm.Thaw:
		return w.frozen || stale != nil && stale.frozen
	case swarm.Cut:
		return w.shard != nil && !w.link.Cut
	case swarm.Mend:
		return w.link.Cut || stale != nil && stale.link.Cut
	case swarm.KillOld, swarm.Stray:
		return stale != nil
	case swarm.OldDisk:
		return len(w.shelf) > 0 && len(w.others) < maxOthers
	case swarm.Vanish:
		return !w.gone && !w.restoring && w.store != nil &&
			!slices.ContainsFunc(w.others, func(n *node) bool { return n.joining })
	default:
		return w.gone
	}
}

// happenOwner does an action about owners.
func (w *World) happenOwner(o swarm.Op) {
	stale := w.stale()
	switch o {
	case swarm.Join:
		w.join(disk.New(vfs.NewCrashableMem()), false)
	case swarm.OldDisk:
		i := w.rng.IntN(len(w.shelf))
		d := w.shelf[i]
		w.shelf = slices.Delete(w.shelf, i, i+1)
		w.join(d, true)
	case swarm.Freeze, swarm.Thaw, swarm.Cut, swarm.Mend:
		w.disturb(o, stale)
	case swarm.KillOld:
		w.trace(nil, "[%d] killed", stale.name)
		w.retire(stale)
	case swarm.Stray:
		w.node = stale
		w.stray()
	case swarm.Vanish, swarm.Return:
		w.gone = o == swarm.Vanish
		w.trace(nil, "manifest: %s", o.String())
		f := w.truth.Return
		if w.gone {
			f = w.truth.Vanish
		} else {
			w.came = w.turn
		}
		if err := f(w.ctx); err != nil {
			w.fail(nil, "%s: %v", o.String(), err)
		}
	}
}

// disturb freezes a process or cuts it off, or ends that.
func (w *World) disturb(o swarm.Op, stale *node) {
	n := w.main
	if stale != nil && (w.chance(0.5) || n.shard == nil) {
		n = stale
	}
	if o == swarm.Freeze || o == swarm.Thaw {
		n.frozen = o == swarm.Freeze && n.shard != nil
	} else {
		n.link.Cut = o == swarm.Cut
	}
	w.trace(nil, "[%d] %s", n.name, o.String())
	if o == swarm.Thaw {
		w.stood()
		w.looks()
	}
}

// isolated ends a process that got no answer for too long and has to stop then (R11).
func (w *World) isolated() {
	w.stats.Isolated++
	w.traceNode("isolated")
	if w.node == w.main {
		w.crash(swarm.Crash)
		return
	}
	w.retire(w.node)
}

// join starts another process on the same bucket: with a new disk, or with one that was set aside.
func (w *World) join(d *disk.Disk, found bool) {
	n := w.newNode()
	n.name = w.joined
	w.joined++
	n.joining, n.restoring, n.disk = true, !found, d
	n.found, n.old = found, found // without an answer from the bucket it may serve for a while (R11)
	w.others = append(w.others, n)
	w.node = n
	w.open()
	w.node = w.main
}

// notTaken lets go of a process that did not get the shard, or lost it while it opened.
func (w *World) notTaken(err error) {
	n := w.node
	switch {
	case errors.Is(err, scheduler.ErrOldDisk):
		if n.found {
			w.stats.Refused++
		}
	case errors.Is(err, delay.ErrFenced), trace.Transient(err):
	case errors.Is(err, delay.ErrCorrupt) && (w.cfg.BucketFault > 0 || w.vanished()):
	default:
		w.fail(nil, "open of another: %v", err)
	}
	w.retire(n)
}

// retire ends a process that is not the main one, and puts its disk on the shelf.
func (w *World) retire(n *node) {
	w.end1(n)
	w.others = slices.DeleteFunc(w.others, func(o *node) bool { return o == n })
	if n.found || n.old && n.owned {
		w.shelve(disk.New(n.disk.Image()))
	}
}

// maxShelf bounds the disks that may be found again.
const maxShelf = 4

func (w *World) shelve(d *disk.Disk) {
	if len(w.shelf) == maxShelf {
		w.shelf = slices.Delete(w.shelf, 0, 1)
	}
	w.shelf = append(w.shelf, d)
}

// committed looks at a manifest that has just landed: at a new epoch the shard changes hands.
func (w *World) committed(prev, next *manifest.State) {
	n := w.node
	if prev == nil || next.Epoch > prev.Epoch {
		w.took(n, prev)
	}
	w.checkBucket()
}

// took notes that n is the owner now.
func (w *World) took(n *node, prev *manifest.State) {
	w.trace(nil, "[%d] took the shard", n.name)
	if n != w.main && !n.fresh {
		w.fail(nil, "a process took the shard with a data directory that is older than the manifest")
	}
	if prev == nil {
		return
	}
	if n.fresh && !prev.Released {
		n.quietLife = n.life // the shard counts in whole milliseconds
		n.quiet = (w.boot + pauses*w.cfg.Options.FlushInterval).Truncate(time.Millisecond)
	}
	if n.lost != nil {
		w.shelve(n.lost)
		n.lost = nil
	}
	if n == w.main {
		return
	}
	w.stats.Takeovers++
	was := w.main
	was.old, n.joining, n.old = true, false, false
	w.others = slices.DeleteFunc(w.others, func(o *node) bool { return o == n })
	w.others = append(w.others, was)
	w.main = n
	w.incident(true)
	w.model.Lose(prev.Uploaded)
	w.disks++
	w.kill(func(s *strand) bool { // its clients are cut off; some go to the new one
		return s.node == was && s.kind >= swarm.Send && s.kind < swarm.Tick
	})
	w.crashed(true)
	if was.lost != nil { // its disk is gone, and what came after is empty
		w.shelve(was.lost)
	}
	if was.store == nil {
		w.retire(was)
	}
}

// pauses is how many flush intervals a new owner waits (rule R11).
const pauses = 3

// checkStray checks an attempt of an owner that was replaced: it may not know yet, and what is due
// within the pause of the new owner it may still deliver (R11, R12).
func (w *World) checkStray(m *message, push bool) {
	takeover := w.main.quiet
	m.Excuses++
	switch {
	case w.now() < slices.Min(m.Every):
		w.fail(m, "early: the old owner attempts it, due %v", m.Every)
	case w.saw:
		w.fail(m, "attempted by an owner that has seen that it was replaced")
	case w.cfg.Options.IsolatedStop && w.boot >= takeover:
		w.fail(m, "attempted by an old owner that must have stopped")
	case push && m.Cancelled == yes && (w.boot < takeover || w.cfg.Options.IsolatedStop):
		w.fail(m, "attempted by the old owner after CANCELLED")
	}
	if m.Taken > 0 {
		w.stats.Duplicates++
	}
}

// stray sends a message to an owner that was replaced. It may accept it, to its own disk.
func (w *World) stray() {
	m := w.draft("")
	m.Aside, m.Forgiven = true, true
	w.trace(m, "send to the old owner")
	w.spawn("stray", swarm.Stray, func() {
		w.accept([]*message{m}, []delay.Draft{m.Draft})
		if m.Tier {
			w.fail(m, "durability tier is promised by an owner that was replaced")
		}
	})
}

// endOld lets the owners that were replaced find out, at the end.
func (w *World) endOld() {
	w.frozen, w.link.Cut = false, false
	for _, n := range w.others {
		n.frozen, n.link.Cut = false, false
	}
	for turns := 0; len(w.others) > 0; turns++ {
		n := w.others[0]
		w.runable = w.ready(w.runable[:0])
		w.runable = slices.DeleteFunc(w.runable, func(s *strand) bool { return s.node != n })
		w.node = n
		switch {
		case turns > 10_000:
			w.fail(nil, "an owner that was replaced does not stop")
		case w.shard != nil && !w.draining && w.can(scheduler.TaskFlush):
			w.do(swarm.Flush, scheduler.Task{Kind: scheduler.TaskFlush})
		case w.shard != nil && turns%2 == 0 && w.busy():
		case len(w.runable) > 0:
			w.resume(w.runable[w.rng.IntN(len(w.runable))])
		default:
			w.advance(time.Second)
		}
		w.node = w.main
	}
}
