// SPDX-License-Identifier: Apache-2.0

package sim

import (
	"cmp"
	"errors"
	"fmt"
	"time"

	"github.com/cicadamq/cicada/delay"
	"github.com/cicadamq/cicada/internal/sim/limits"
	"github.com/cicadamq/cicada/internal/sim/linear"
	"github.com/cicadamq/cicada/internal/sim/swarm"
	"github.com/cicadamq/cicada/internal/sim/trace"
	"github.com/cicadamq/cicada/scheduler"
)

// forever is a dedupe window that outlives every history.
const forever = 100 * time.Hour

// request starts one request of a client.
func (w *World) request(o swarm.Op) {
	switch o {
	case swarm.Send:
		w.send(1)
	case swarm.Batch:
		w.send(2 + w.rng.IntN(20))
	case swarm.Poll:
		w.poll(w.queue())
	case swarm.Settle:
		w.settle()
	case swarm.Purge:
		w.purge()
	case swarm.Pause, swarm.Unpause:
		w.pause(o == swarm.Pause)
	case swarm.Reserve:
		w.reserve()
	case swarm.Count:
		w.count()
	case swarm.Race:
		w.race()
	case swarm.Recur:
		w.recurs.Act(w.ctx)
	case swarm.Limit:
		w.limit(w.target(), limits.Draw(w.rng))
	default:
		if m := w.pickMessage(); m != nil {
			w.requestAbout(o, m)
		}
	}
}

func (w *World) requestAbout(o swarm.Op, m *message) {
	switch o {
	case swarm.Resend:
		w.resend(m)
	case swarm.Replace:
		w.replace(m)
	case swarm.Cancel:
		w.change(m, scheduler.Cancel)
	case swarm.Stop:
		w.change(m, scheduler.StopRetrying)
	case swarm.Reschedule:
		w.change(m, scheduler.Reschedule)
	case swarm.Fire:
		w.change(m, scheduler.Fire)
	case swarm.Get:
		w.look(m)
	case swarm.RetryDead:
		w.retryDead(m)
	case swarm.DeleteDead:
		w.deleteDead(m)
	}
}

// pickMessage is a message that a client could name, the recent ones more often.
func (w *World) pickMessage() *message {
	all := w.model.All
	for range 4 {
		if len(all) == 0 {
			return nil
		}
		if w.chance(0.5) {
			all = all[max(0, len(all)-20):]
		}
		m := all[w.rng.IntN(len(all))]
		if m.ID != "" && m.Replaced == no && !m.Aside {
			return m
		}
	}
	return nil
}

// target is one of the lanes.
func (w *World) target() delay.Target { return w.lane(w.rng.IntN(w.cfg.Pushes + w.cfg.Queues)) }

func (w *World) lane(n int) delay.Target { return w.cfg.Lane(n) }

func (w *World) due() delay.Due {
	last := w.now()
	if n := len(w.model.All); n > 0 {
		last = w.model.All[n-1].Draft.Due
	}
	return w.cfg.Due(w.rng, w.now(), last)
}

// draft makes a new message.
func (w *World) draft(id delay.ID) *message {
	m := &message{No: len(w.model.All), LastBoot: -1}
	d := delay.Draft{Message: delay.Message{
		Target: w.target(), Due: w.due(), AcceptedAt: w.shard.Now(), Body: swarm.Body(w.rng, m.No),
	}}
	w.model.All = append(w.model.All, m)
	if id == "" && w.chance(w.cfg.NamedShare) {
		id = delay.ID(fmt.Sprintf("order-%d", m.No))
		if n := len(w.model.Reserved); n > 0 && w.chance(0.5) {
			id = w.model.Reserved[n-1]
			w.model.Reserved = w.model.Reserved[:n-1]
		}
	}
	if id != "" {
		d.ID, m.ID, m.Named = id, id, true
	}
	w.cfg.Dress(w.rng, &d, m.No)
	m.Draft = d
	m.May(d.Due)
	m.Reg = w.register(m)
	w.stats.Messages++
	return m
}

// register is the history of the id of m.
func (w *World) register(m *message) *linear.Register {
	r := w.regs[m.ID]
	if m.ID == "" || r == nil {
		r = w.hist.Add(m.Named, !m.Draft.Target.IsPull() || m.Named && w.cfg.Pushes > 0)
	}
	if m.Named {
		w.regs[m.ID] = r
	}
	r.May(m.Expires(), m.Draft.MaxAttempts+w.cfg.Options.MaxAttempts > 0 || w.cfg.TargetFault > 0,
		m.Draft.Mode == delay.AtMostOnce)
	return r
}

// beginAccept notes a send in the history of its id; nil when an old owner gets it.
func (w *World) beginAccept(m *message, d *delay.Draft) *linear.Op {
	if w.old {
		return nil
	}
	kind := linear.Submit
	if d.Replace {
		kind = linear.Replace
	}
	return m.Reg.Begin(linear.Call{Kind: kind, Content: m.No, Due: d.Due})
}

// send sends n new messages in one call.
func (w *World) send(n int) {
	batch := make([]*message, n)
	drafts := make([]delay.Draft, n)
	for i := range batch {
		m := w.draft("")
		batch[i], drafts[i] = m, m.Draft
		w.trace(m, "send %q to %s due %d %s", m.ID, m.Draft.Target, m.Draft.Due,
			m.Draft.Durability)
	}
	w.spawn("send", swarm.Send, func() { w.accept(batch, drafts) })
}

// accept makes the call and notes its answers.
func (w *World) accept(batch []*message, drafts []delay.Draft) {
	first, ops := make([]bool, len(batch)), make([]*linear.Op, len(batch))
	for i, m := range batch {
		first[i] = m.Accepted == no
		m.Accepted = max(m.Accepted, maybe)
		m.Out++
		ops[i] = w.beginAccept(m, &drafts[i])
	}
	receipts := make([]scheduler.Receipt, len(drafts))
	err := w.shard.Accept(w.ctx, drafts, receipts)
	for i, m := range batch {
		m.Out--
		ops[i].End(linear.Accepted(&receipts[i], cmp.Or(err, receipts[i].Err)))
		w.accepted(m, &receipts[i], err, first[i])
	}
}

func (w *World) accepted(m *message, r *scheduler.Receipt, err error, first bool) {
	if err == nil {
		err = r.Err
	} else if !errors.Is(err, delay.ErrOverloaded) && !errors.Is(err, delay.ErrClosed) &&
		!errors.Is(err, delay.ErrInvalid) {
		w.trace(m, "accept: unknown: %s", trace.Reason(err))
		return
	}
	if err != nil {
		w.trace(m, "accept: %s", trace.Reason(err))
		if first && m.Out == 0 {
			m.Accepted, m.Refused = no, true
		}
		return
	}
	w.trace(m, "accepted %q due %d %s duplicate %v", r.ID, r.Due, r.Durability, r.Duplicate)
	switch {
	case m.ID != "" && m.ID != r.ID:
		w.fail(m, "accepted as %q", r.ID)
	case r.Durability != m.Draft.Durability:
		w.fail(m, "asked for durability %s, got %s", m.Draft.Durability, r.Durability)
	case r.Due != m.Draft.Due:
		w.fail(m, "asked for due %d, got %d", m.Draft.Due, r.Due)
	case r.Duplicate && first:
		w.fail(m, "a new message is called a duplicate")
	}
	m.ID, m.Accepted = r.ID, yes
	m.Tier = m.Tier || r.Durability == delay.Tier
	m.NoteKey(w.store)
}

// resend repeats a request, or sends another content under its id.
func (w *World) resend(m *message) {
	if !m.Named || m.Forgiven || m.Out > 0 || w.cfg.Options.DedupeWindow < forever {
		return
	}
	if m.Accepted == yes && w.chance(0.3) {
		other := w.draft(m.ID)
		other.Aside = true
		w.trace(m, "send other content (message %d)", other.No)
		m.Out++
		w.spawn("conflict", swarm.Resend, func() {
			w.accept([]*message{other}, []delay.Draft{other.Draft})
			m.Out--
			if other.Accepted == yes {
				w.fail(m, "another content was accepted under its id")
			}
		})
		return
	}
	sure := m.Accepted == yes
	d := m.Draft
	d.AcceptedAt = w.shard.Now()
	w.trace(m, "send again")
	w.spawn("resend", swarm.Resend, func() {
		m.Out++
		m.Accepted = max(m.Accepted, maybe)
		var r [1]scheduler.Receipt
		op := w.beginAccept(m, &d)
		err := w.shard.Accept(w.ctx, []delay.Draft{d}, r[:])
		m.Out--
		op.End(linear.Accepted(&r[0], cmp.Or(err, r[0].Err)))
		if err == nil && r[0].Err == nil && sure && !r[0].Duplicate {
			w.fail(m, "accepted twice")
		}
		if sure && errors.Is(r[0].Err, delay.ErrExists) {
			w.fail(m, "the same content is called another: %v", r[0].Err)
		}
		w.accepted(m, &r[0], err, false)
	})
}

// replace sends another content in place of m.
func (w *World) replace(m *message) {
	if !m.Named || m.Accepted != yes || m.Out > 0 || m.Forgiven || m.Cancelled == maybe ||
		w.cfg.Options.DedupeWindow < forever {
		return
	}
	next := w.draft(m.ID)
	next.Aside = true
	w.trace(m, "replace by message %d", next.No)
	m.Replaced = maybe
	d := next.Draft
	d.Replace = true
	w.spawn("replace", swarm.Replace, func() {
		m.Out++
		w.accept([]*message{next}, []delay.Draft{d})
		m.Out--
		switch {
		case next.Accepted == yes:
			m.Replaced, next.Aside = yes, false
		case next.Refused:
			m.Replaced = no
		}
	})
}

// look reads a message and compares it with what is known.
func (w *World) look(m *message) {
	m.Out++
	w.spawn("get", swarm.Get, func() {
		op := w.beginGet(m)
		info, err := w.shard.Get(w.ctx, m.ID, true)
		m.Out--
		w.endGet(m, op, &info, err)
		w.trace(m, "get: %s %s", info.State, trace.Reason(err))
		w.checkLook(m, &info, err)
	})
}

func (w *World) checkLook(m *message, info *scheduler.Info, err error) {
	if m.Replaced > no || m.Forgiven || m.Accepted != yes || m.Deleted > no ||
		w.cfg.Options.DedupeWindow < forever {
		return
	}
	if wrong := m.Looked(info, err); wrong != "" {
		w.fail(m, "%s", wrong)
	}
	if err == nil && info.Body != nil && w.model.Find(m.ID, info.Body) != m {
		w.fail(m, "its body is another's: %q", info.Body)
	}
}

// purge cancels everything of a target.
func (w *World) purge() {
	target := w.target()
	f := scheduler.Filter{Target: target}
	switch w.rng.IntN(6) {
	case 0:
		f.DueFrom = w.due()
	case 1:
		f.DueTo = w.due()
	case 2:
		f.IDPrefix = "order-"
	}
	w.trace(nil, "purge %s %s due %d to %d", target, f.IDPrefix, f.DueFrom, f.DueTo)
	w.spawn("purge", swarm.Purge, func() {
		var sure []*message
		for _, m := range w.model.All {
			if m.Draft.Target != target || m.Cancelled != no || m.Done {
				continue
			}
			if m.Accepted == yes && !m.Aside && m.Untouched() && m.Out == 0 && m.Passes(&f) {
				sure = append(sure, m)
			}
			m.Cancelled = maybe
			m.Reg.Open(linear.Call{Kind: linear.Cancel})
		}
		done, err := w.shard.Purge(w.ctx, f, false)
		w.trace(nil, "purged %d, more %v: %s", done.Count, done.Cancelling, trace.Reason(err))
		for _, m := range sure {
			if err == nil && w.mustHaveGone(m) {
				m.Cancelled, m.CancelTier = yes, m.Tier
			}
		}
	})
}

// mustHaveGone reports whether a purge that has succeeded must have cancelled m: nobody can have
// claimed it, and nothing else was asked about it meanwhile.
func (w *World) mustHaveGone(m *message) bool {
	late := max(w.now(), w.hands.High).Add(3*w.cfg.Options.FlushInterval + 11*time.Second)
	m.Cancelled = no
	gone := m.Untouched() && m.Out == 0 && late < m.Earliest()
	m.Cancelled = maybe
	return gone
}

// pause stops or starts a target.
func (w *World) pause(on bool) {
	target := w.target()
	w.spawn("pause", swarm.Pause, func() { // unpausing too: the last one wins
		w.model.Paused(target)
		err := w.shard.SetPaused(w.ctx, target, on)
		w.trace(nil, "paused %s %v: %s", target, on, trace.Reason(err))
	})
}

// reserve takes ids for later.
func (w *World) reserve() {
	w.spawn("reserve", swarm.Reserve, func() {
		ids, err := w.shard.Reserve(w.ctx, 1+w.rng.IntN(3))
		w.trace(nil, "reserved %v: %s", ids, trace.Reason(err))
		w.model.Reserved = append(w.model.Reserved, ids...)
	})
}

// count reads the long way round.
func (w *World) count() {
	f := scheduler.Filter{Target: w.target()}
	w.spawn("count", swarm.Count, func() {
		n, err := w.shard.Count(w.ctx, f)
		w.trace(nil, "count %s: %d %s", f.Target, n, trace.Reason(err))
		list, _, err := w.shard.List(w.ctx, f, 1000, "")
		w.trace(nil, "list %s: %d %s", f.Target, len(list), trace.Reason(err))
	})
}
