// SPDX-License-Identifier: Apache-2.0

package sim

import (
	"fmt"
	"slices"
	"time"

	"github.com/cicadamq/cicada/broker"
	"github.com/cicadamq/cicada/delay"
	"github.com/cicadamq/cicada/internal/sim/linear"
	"github.com/cicadamq/cicada/internal/sim/model"
	"github.com/cicadamq/cicada/internal/sim/swarm"
	"github.com/cicadamq/cicada/internal/sim/trace"
	"github.com/cicadamq/cicada/scheduler"
)

// held is a lease in the hands of a consumer.
type held struct {
	m       *message
	queue   string
	receipt string
	attempt uint32
	expires delay.Due // not before this instant
	disks   int       // on which disk it was made
	used    bool      // it was settled before, or a crash left that open
	acked   bool      // and answered: another ack says nothing of what the id names by then
}

func (w *World) queue() string { return fmt.Sprintf("queue-%d", w.rng.IntN(w.cfg.Queues)) }

// poll leases messages of a queue.
func (w *World) poll(queue string) {
	most := 1 + w.rng.IntN(10)
	lease := [...]time.Duration{time.Second, 5 * time.Second, time.Minute}[w.rng.IntN(3)]
	if w.healed {
		most, lease = 100, time.Minute
	}
	w.spawn("poll", swarm.Poll, func() {
		least, began := w.shard.Now().Add(lease), w.turn
		leases, err := w.shard.Poll(w.ctx, queue, most, lease)
		w.trace(nil, "poll %s: %d %s", queue, len(leases), trace.Reason(err))
		for i := range leases {
			l := &leases[i]
			m := w.attempted(&broker.Delivery{
				ID: l.ID, Target: delay.Target("pull:" + queue), Due: l.Due, Attempt: l.Attempt,
				FiredAt: l.FiredAt, RoutingKey: l.RoutingKey, Headers: l.Headers, Body: l.Body,
			}, false, began)
			m.Leased = max(m.Leased, least)
			w.held = append(w.held, &held{
				m: m, queue: queue, receipt: l.Receipt, attempt: l.Attempt, expires: least,
				disks: w.disks,
			})
		}
	})
}

// settle settles some leases of one queue.
func (w *World) settle() {
	if len(w.held) == 0 {
		return
	}
	kind := [...]scheduler.Settlement{
		scheduler.Ack, scheduler.Ack, scheduler.Ack, scheduler.Nack, scheduler.Extend,
	}[w.rng.IntN(5)]
	if w.healed {
		kind = scheduler.Ack
	}
	queue := w.held[w.rng.IntN(len(w.held))].queue
	var batch []*held
	w.held = slices.DeleteFunc(w.held, func(h *held) bool {
		if h.queue != queue || !w.healed && (len(batch) >= 5 || w.chance(0.3)) {
			return false
		}
		batch = append(batch, h)
		return true
	})
	if !w.healed && w.chance(0.1) {
		for _, h := range batch {
			w.trace(h.m, "forgotten by its consumer")
		}
		return
	}
	if len(batch) > 0 {
		w.spawn("settle", swarm.Settle, func() { w.settleBatch(queue, kind, batch) })
	}
}

func (w *World) settleBatch(queue string, kind scheduler.Settlement, batch []*held) {
	q := scheduler.SettleRequest{Queue: queue, Settlement: kind, Lease: 5 * time.Second}
	if kind == scheduler.Nack && w.chance(0.5) {
		q.Delay, q.HasDelay, q.Reason = w.between(0, 5*time.Second), true, "not now"
	}
	least := w.shard.Now().Add(q.Lease)
	ops := make([]*linear.Op, len(batch))
	before := make([]answer, len(batch))
	fresh := make([]bool, len(batch))
	for i, h := range batch {
		q.Receipts = append(q.Receipts, h.receipt)
		fresh[i], h.used = !h.used, true
		before[i] = h.m.Acked
		switch kind {
		case scheduler.Ack:
			if h.disks == w.disks && !h.acked {
				ops[i] = h.m.Reg.Begin(linear.Call{Kind: linear.Ack})
			}
			h.m.Acked = max(h.m.Acked, maybe)
			h.m.Acks++
		case scheduler.Nack:
			h.m.Leased = 0
		case scheduler.Extend: // the new lease may be shorter
			h.m.Leased = min(h.m.Leased, least)
			h.expires = min(h.expires, least)
		}
	}
	results := make([]scheduler.SettleResult, len(batch))
	err := w.shard.Settle(w.ctx, q, results)
	for i, h := range batch {
		w.trace(h.m, "%s of attempt %d: %s %s", settleNames[kind], h.attempt, results[i],
			trace.Reason(err))
		if kind == scheduler.Ack {
			ops[i].End(linear.Acked(results[i], err))
			h.acked = h.acked || err == nil && results[i] == scheduler.Acked
			h.m.Acks--
		}
		if err == nil {
			w.settled1(h, kind, results[i], before[i], fresh[i], least)
		}
		if kind != scheduler.Nack && w.chance(0.3) && !w.healed {
			w.held = append(w.held, h) // it comes again
		}
	}
}

var settleNames = [...]string{"ack", "nack", "extend"}

// settled1 notes one answer to a consumer.
func (w *World) settled1(
	h *held, kind scheduler.Settlement, r scheduler.SettleResult, before answer, fresh bool,
	least delay.Due,
) {
	if h.m.Racing {
		return
	}
	now := max(w.now(), w.hands.High)
	wrong := h.m.Settled(&model.Settlement{
		Kind: kind, Result: r, Attempt: h.attempt, Before: before, Least: least, Expires: &h.expires,
		Live:     fresh && now < h.expires && h.disks == w.disks,
		SameDisk: h.disks == w.disks, Forgets: w.cfg.Options.DedupeWindow < forever,
		Life: w.life, Turn: w.turn,
	})
	if wrong != "" {
		w.fail(h.m, "%s", wrong)
	}
	if r == scheduler.Extended {
		h.used = false
	}
}
