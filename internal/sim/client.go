// SPDX-License-Identifier: Apache-2.0

package sim

import (
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/cicadamq/cicada/delay"
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
		w.poll()
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
	all := w.model.all
	for range 4 {
		if len(all) == 0 {
			return nil
		}
		if w.chance(0.5) {
			all = all[max(0, len(all)-20):]
		}
		m := all[w.rng.IntN(len(all))]
		if m.id != "" && m.replaced == no && !m.aside {
			return m
		}
	}
	return nil
}

// target is one of the lanes.
func (w *World) target() delay.Target { return w.lane(w.rng.IntN(w.cfg.Pushes + w.cfg.Queues)) }

func (w *World) lane(n int) delay.Target {
	if n < w.cfg.Pushes {
		return delay.Target(fmt.Sprintf("https://receiver-%d.example/in", n))
	}
	return delay.Target(fmt.Sprintf("pull:queue-%d", n-w.cfg.Pushes))
}

// due draws an instant, with a liking for the edges of the levels.
func (w *World) due() delay.Due {
	o, now := &w.cfg.Options, w.now()
	if w.chance(w.cfg.FarShare) {
		return now.Add(w.between(o.Horizon, 3*o.Horizon))
	}
	near := func(d time.Duration) delay.Due {
		return now.Add(d + w.between(-20*time.Millisecond, 20*time.Millisecond))
	}
	switch w.rng.IntN(9) {
	case 0:
		return now.Add(-w.between(0, time.Minute))
	case 1:
		return now
	case 2:
		return now.Add(w.between(0, 50*time.Millisecond))
	case 3:
		return near(o.MinWait)
	case 4:
		return near(o.HotWindow)
	case 5:
		return near(o.Horizon)
	case 6:
		if n := len(w.model.all); n > 0 {
			return w.model.all[n-1].draft.Due
		}
		return now
	default:
		return now.Add(w.between(0, 20*time.Second))
	}
}

// draft makes a new message.
func (w *World) draft(id delay.ID) *message {
	m := &message{no: len(w.model.all), lastBoot: -1}
	d := delay.Draft{Message: delay.Message{
		Target: w.target(), Due: w.due(), AcceptedAt: w.shard.Now(), Body: swarm.Body(w.rng, m.no),
	}}
	w.model.all = append(w.model.all, m)
	if id == "" && w.chance(w.cfg.NamedShare) {
		id = delay.ID(fmt.Sprintf("order-%d", m.no))
		if n := len(w.model.reserved); n > 0 && w.chance(0.5) {
			id = w.model.reserved[n-1]
			w.model.reserved = w.model.reserved[:n-1]
		}
	}
	if id != "" {
		d.ID, m.id, m.named = id, id, true
	}
	if w.chance(w.cfg.TierShare) {
		d.Durability = delay.Tier
	}
	if w.chance(w.cfg.OnceShare) {
		d.Mode = delay.AtMostOnce
	}
	if w.chance(w.cfg.ExpiryShare) {
		d.TTL = w.between(time.Millisecond, 30*time.Second).Truncate(time.Millisecond)
	}
	if w.chance(0.2) {
		d.MaxAttempts = uint32(1 + w.rng.IntN(4))
	}
	if w.chance(0.3) {
		d.RoutingKey = fmt.Sprintf("key-%d", w.rng.IntN(5))
		d.Headers = []delay.Header{{Name: "n", Value: fmt.Sprint(m.no)}, {Name: "empty"}}
	}
	m.draft = d
	m.draft.Cold = d.Durability == delay.Tier || d.Due.Sub(d.AcceptedAt) > w.cfg.Options.MinWait
	m.may(d.Due)
	w.stats.Messages++
	return m
}

// send sends n new messages in one call.
func (w *World) send(n int) {
	batch := make([]*message, n)
	drafts := make([]delay.Draft, n)
	for i := range batch {
		m := w.draft("")
		batch[i], drafts[i] = m, m.draft
		w.trace(m, "send %q to %s due %d %s", m.id, m.draft.Target, m.draft.Due,
			m.draft.Durability)
	}
	w.spawn("send", swarm.Send, func() { w.accept(batch, drafts) })
}

// accept makes the call and notes its answers.
func (w *World) accept(batch []*message, drafts []delay.Draft) {
	first := make([]bool, len(batch))
	for i, m := range batch {
		first[i] = m.accepted == no
		m.accepted = max(m.accepted, maybe)
		m.out++
	}
	receipts := make([]scheduler.Receipt, len(drafts))
	err := w.shard.Accept(w.ctx, drafts, receipts)
	for i, m := range batch {
		m.out--
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
		if first && m.out == 0 {
			m.accepted, m.refused = no, true
		}
		return
	}
	w.trace(m, "accepted %q due %d %s duplicate %v", r.ID, r.Due, r.Durability, r.Duplicate)
	switch {
	case m.id != "" && m.id != r.ID:
		w.fail(m, "accepted as %q", r.ID)
	case r.Durability != m.draft.Durability:
		w.fail(m, "asked for durability %s, got %s", m.draft.Durability, r.Durability)
	case r.Due != m.draft.Due:
		w.fail(m, "asked for due %d, got %d", m.draft.Due, r.Due)
	case r.Duplicate && first:
		w.fail(m, "a new message is called a duplicate")
	}
	m.id, m.accepted = r.ID, yes
	m.tier = m.tier || r.Durability == delay.Tier
	w.noteKey(m)
}

// noteKey remembers the key under which m was stored first.
func (w *World) noteKey(m *message) {
	if m.moved || m.key.Seq > 0 {
		return
	}
	if !m.named {
		_, _, m.key = delay.NewIDMaker("simulated").Parse(m.id)
		return
	}
	if rec, ok, err := w.store.LookupID(string(m.id)); err == nil && ok {
		m.key = rec.Key
	}
}

// resend repeats a request, or sends another content under its id.
func (w *World) resend(m *message) {
	if !m.named || m.forgiven || m.out > 0 || w.cfg.Options.DedupeWindow < forever {
		return
	}
	if m.accepted == yes && w.chance(0.3) {
		other := w.draft(m.id)
		other.aside = true
		w.trace(m, "send other content (message %d)", other.no)
		m.out++
		w.spawn("conflict", swarm.Resend, func() {
			w.accept([]*message{other}, []delay.Draft{other.draft})
			m.out--
			if other.accepted == yes {
				w.fail(m, "another content was accepted under its id")
			}
		})
		return
	}
	sure := m.accepted == yes
	d := m.draft
	d.AcceptedAt = w.shard.Now()
	w.trace(m, "send again")
	w.spawn("resend", swarm.Resend, func() {
		m.out++
		m.accepted = max(m.accepted, maybe)
		var r [1]scheduler.Receipt
		err := w.shard.Accept(w.ctx, []delay.Draft{d}, r[:])
		m.out--
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
	if !m.named || m.accepted != yes || m.out > 0 || m.forgiven || m.cancelled == maybe ||
		w.cfg.Options.DedupeWindow < forever {
		return
	}
	next := w.draft(m.id)
	next.aside = true
	w.trace(m, "replace by message %d", next.no)
	m.replaced = maybe
	d := next.draft
	d.Replace = true
	w.spawn("replace", swarm.Replace, func() {
		m.out++
		w.accept([]*message{next}, []delay.Draft{d})
		m.out--
		switch {
		case next.accepted == yes:
			m.replaced, next.aside = yes, false
		case next.refused:
			m.replaced = no
		}
	})
}

// look reads a message and compares it with what is known.
func (w *World) look(m *message) {
	m.out++
	w.spawn("get", swarm.Get, func() {
		info, err := w.shard.Get(w.ctx, m.id, true)
		m.out--
		w.trace(m, "get: %s %s", info.State, trace.Reason(err))
		w.checkLook(m, &info, err)
	})
}

func (w *World) checkLook(m *message, info *scheduler.Info, err error) {
	if m.replaced > no || m.forgiven || m.accepted != yes || m.deleted > no ||
		w.cfg.Options.DedupeWindow < forever {
		return
	}
	switch {
	case errors.Is(err, delay.ErrNotFound):
		w.fail(m, "accepted, and not found")
	case err != nil:
		return
	case info.State == delay.Cancelled && m.cancelled == no:
		w.fail(m, "it is cancelled, and nobody asked for that")
	case info.State == delay.Delivered && !m.done && m.acked == no && m.cancelled == no &&
		m.draft.Mode != delay.AtMostOnce && !m.revived:
		w.fail(m, "it is called delivered, and no receiver has it")
	case info.Body != nil && w.model.find(info.Body) != m:
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
		for _, m := range w.model.all {
			if m.draft.Target != target || m.cancelled != no || m.done {
				continue
			}
			if m.accepted == yes && !m.aside && m.untouched() && m.out == 0 && m.passes(&f) {
				sure = append(sure, m)
			}
			m.cancelled = maybe
		}
		done, err := w.shard.Purge(w.ctx, f, false)
		w.trace(nil, "purged %d, more %v: %s", done.Count, done.Cancelling, trace.Reason(err))
		for _, m := range sure {
			if err == nil && w.mustHaveGone(m) {
				m.cancelled, m.cancelTier = yes, m.tier
			}
		}
	})
}

// passes reports whether a message that was only accepted passes a filter but for its target.
func (m *message) passes(f *scheduler.Filter) bool {
	due := m.earliest()
	return len(m.dues) == 1 && due >= f.DueFrom && (f.DueTo == 0 || due < f.DueTo) &&
		(f.IDPrefix == "" || m.named && strings.HasPrefix(string(m.id), f.IDPrefix))
}

// mustHaveGone reports whether a purge that has succeeded must have cancelled m: nobody can have
// claimed it, and nothing else was asked about it meanwhile.
func (w *World) mustHaveGone(m *message) bool {
	margin := 3*w.cfg.Options.FlushInterval + 11*time.Second
	m.cancelled = no
	gone := m.untouched() && m.out == 0 && w.now().Add(margin) < m.earliest()
	m.cancelled = maybe
	return gone
}

// pause stops or starts a target.
func (w *World) pause(on bool) {
	target := w.target()
	w.spawn("pause", swarm.Pause, func() { // unpausing too: the last one wins
		w.model.paused(target)
		err := w.shard.SetPaused(w.ctx, target, on)
		w.trace(nil, "paused %s %v: %s", target, on, trace.Reason(err))
	})
}

// reserve takes ids for later.
func (w *World) reserve() {
	w.spawn("reserve", swarm.Reserve, func() {
		ids, err := w.shard.Reserve(w.ctx, 1+w.rng.IntN(3))
		w.trace(nil, "reserved %v: %s", ids, trace.Reason(err))
		w.model.reserved = append(w.model.reserved, ids...)
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
