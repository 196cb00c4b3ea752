// SPDX-License-Identifier: Apache-2.0

package sim

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/cicadamq/cicada/broker"
	"github.com/cicadamq/cicada/delay"
	"github.com/cicadamq/cicada/internal/sim/swarm"
	"github.com/cicadamq/cicada/localstore"
	"github.com/cicadamq/cicada/scheduler"
)

// calm is a world without trouble, opened, with one accepted message due in a second.
func calm(t *testing.T) (*World, *message) {
	t.Helper()
	cfg := swarm.Draw(3)
	cfg.Weights = [swarm.Ops]int{}
	cfg.Bucket, cfg.Pushes, cfg.Queues = true, 1, 1
	cfg.BucketFault, cfg.TargetFault, cfg.NamedShare, cfg.TierShare = 0, 0, 0, 0
	cfg.ExpiryShare, cfg.OnceShare, cfg.Schedules = 0, 0, 0
	cfg.Options.DedupeWindow = 1000 * time.Hour
	w := newWorld(t.Context(), cfg)
	t.Cleanup(w.end)
	w.open()
	for w.shard == nil {
		w.resumeAny()
	}
	w.send(1)
	m := w.model.All[0]
	for m.Accepted != yes {
		w.busy()
	}
	m.Dues = []delay.Due{w.now()}
	m.Every, m.Draft.Due = m.Dues, w.now()
	return w, m
}

// caught runs f and returns the violation it was caught at.
func caught(t *testing.T, f func()) (text string) {
	t.Helper()
	defer func() {
		v, ok := recover().(violation)
		require.True(t, ok, "nothing was reported")
		text = v.text
	}()
	f()
	return ""
}

// delivery is an attempt at m as it should be.
func delivery(m *message) *broker.Delivery {
	d := &m.Draft
	return &broker.Delivery{
		ID: m.ID, Target: d.Target, Due: m.Dues[0], FiredAt: m.Dues[0], Attempt: 1,
		RoutingKey: d.RoutingKey, Headers: d.Headers, Body: d.Body,
	}
}

// A checker that never speaks proves nothing: each is shown what it must not let pass.
func TestAttemptCheckers(t *testing.T) {
	for name, c := range map[string]struct {
		plant func(w *World, m *message, d *broker.Delivery)
		want  string
	}{
		"early":       {func(_ *World, _ *message, d *broker.Delivery) { d.Due += 5000 }, "early"},
		"fired early": {func(_ *World, _ *message, d *broker.Delivery) { d.FiredAt-- }, "early"},
		"moved": {func(w *World, m *message, _ *broker.Delivery) {
			m.Dues = []delay.Due{w.now() + 1000}
		}, "early: it was moved"},
		"another due": {func(_ *World, _ *message, d *broker.Delivery) {
			d.Due--
		}, "its due is"},
		"phantom": {func(_ *World, _ *message, d *broker.Delivery) {
			d.Body = []byte("m999;")
		}, "nobody sent"},
		"body": {func(_ *World, _ *message, d *broker.Delivery) {
			d.Body = append([]byte("m0;"), "something else"...)
		}, "delivered"},
		"headers": {func(_ *World, _ *message, d *broker.Delivery) {
			d.Headers = []delay.Header{{Name: "x"}, {Name: "y"}, {Name: "z"}}
		}, "delivered"},
		"target": {func(_ *World, _ *message, d *broker.Delivery) {
			d.Target = "log:"
		}, "delivered"},
		"id": {func(_ *World, _ *message, d *broker.Delivery) { d.ID = "other" }, "delivered as"},
		"refused": {func(_ *World, m *message, _ *broker.Delivery) {
			m.Accepted, m.Refused = no, true
		}, "refused"},
		"cancelled": {func(_ *World, m *message, _ *broker.Delivery) {
			m.Cancelled = yes
		}, "after CANCELLED"},
		"stopped": {func(_ *World, m *message, _ *broker.Delivery) {
			m.Stopped = yes
		}, "after STOPPED"},
		"replaced": {func(_ *World, m *message, _ *broker.Delivery) {
			m.Replaced = yes
		}, "replaced"},
		"delivered": {func(w *World, m *message, _ *broker.Delivery) {
			m.Told, m.ToldBoot = true, w.life
		}, "without a crash"},
		"durable": {func(_ *World, m *message, _ *broker.Delivery) {
			m.Final = true
		}, "durable"},
		"in the bucket": {func(_ *World, m *message, _ *broker.Delivery) {
			m.FinalTier = true
		}, "in the bucket"},
		"acked":   {func(_ *World, m *message, _ *broker.Delivery) { m.Acked = yes }, "ACKED"},
		"at once": {func(_ *World, m *message, _ *broker.Delivery) { m.Flying = true }, "another"},
		"number":  {func(_ *World, _ *message, d *broker.Delivery) { d.Attempt = 0 }, "number 0"},
		"counted": {func(w *World, m *message, _ *broker.Delivery) {
			m.Last, m.LastBoot = 1, w.life
		}, "attempt 1 after attempt 1"},
		"at most once": {func(_ *World, m *message, _ *broker.Delivery) {
			m.Draft.Mode, m.Attempts = delay.AtMostOnce, 1
		}, "at most once"},
	} {
		t.Run(name, func(t *testing.T) {
			w, m := calm(t)
			d := delivery(m)
			c.plant(w, m, d)
			text := caught(t, func() { w.attempted(d, true, w.turn+1) })
			require.Contains(t, text, c.want)
		})
	}
	t.Run("leased", func(t *testing.T) {
		w, m := calm(t)
		m.Leased = w.now() + 1000
		text := caught(t, func() { w.attempted(delivery(m), false, w.turn+1) })
		require.Contains(t, text, "leased again")
	})
	t.Run("nothing", func(t *testing.T) {
		w, m := calm(t)
		w.attempted(delivery(m), true, w.turn+1)
		require.Equal(t, 1, m.Attempts)
	})
}

// What clients are told must agree with what they were told before.
func TestAnswerCheckers(t *testing.T) {
	result := func(v scheduler.Verdict) *scheduler.ChangeResult {
		return &scheduler.ChangeResult{Verdict: v, State: delay.Claimed}
	}
	for name, c := range map[string]struct {
		plant func(w *World, m *message)
		want  string
	}{
		"cancelled late": {func(w *World, m *message) {
			m.Attempts = 1
			w.cancelAnswered(m, result(scheduler.Cancelled), nil, 0)
		}, "CANCELLED after"},
		"cancelled and not": {func(w *World, m *message) {
			m.Cancelled = yes
			w.cancelAnswered(m, result(scheduler.TooLate), nil, 0)
		}, "TOO_LATE after"},
		"too early for too late": {func(w *World, m *message) {
			m.Dues = []delay.Due{w.now().Add(time.Hour)}
			w.cancelAnswered(m, result(scheduler.TooLate), nil, 0)
		}, "due only at"},
		"durability": {func(w *World, m *message) {
			m.Tier = true
			w.cancelAnswered(m, result(scheduler.Cancelled), nil, 0)
		}, "durability"},
		"not found": {func(w *World, m *message) {
			w.cancelAnswered(m, result(scheduler.NotFound), nil, 0)
		}, "NOT_FOUND"},
		"get": {func(w *World, m *message) {
			w.checkLook(m, &scheduler.Info{}, delay.ErrNotFound)
		}, "not found"},
		"get delivered": {func(w *World, m *message) {
			w.checkLook(m, &scheduler.Info{State: delay.Delivered}, nil)
		}, "no receiver has it"},
		"get cancelled": {func(w *World, m *message) {
			w.checkLook(m, &scheduler.Info{State: delay.Cancelled}, nil)
		}, "nobody asked"},
		"get another's": {func(w *World, m *message) {
			w.checkLook(m, &scheduler.Info{Body: []byte("x")}, nil)
		}, "another's"},
		"accepted twice": {func(w *World, m *message) {
			w.accepted(m, &scheduler.Receipt{ID: m.ID, Due: m.Draft.Due, Duplicate: true,
				Durability: m.Draft.Durability}, nil, true)
		}, "duplicate"},
		"other due": {func(w *World, m *message) {
			w.accepted(m, &scheduler.Receipt{ID: m.ID, Due: 1,
				Durability: m.Draft.Durability}, nil, true)
		}, "asked for due"},
		"live lease": {func(w *World, m *message) {
			h := &held{m: m, attempt: 1, expires: w.now() + 1000}
			w.settled1(h, scheduler.Ack, scheduler.Superseded, no, true, 0)
		}, "live lease"},
		"old receipt": {func(w *World, m *message) {
			m.Last, m.LastBoot = 2, 1
			w.settled1(&held{m: m, attempt: 1}, scheduler.Ack, scheduler.Acked, no, true, 0)
		}, "ACKED after attempt 2"},
	} {
		t.Run(name, func(t *testing.T) {
			w, m := calm(t)
			require.Contains(t, caught(t, func() { c.plant(w, m) }), c.want)
		})
	}
}

// The state of the store and the bucket is compared with what must hold.
func TestStateCheckers(t *testing.T) {
	apply := func(t *testing.T, w *World, f func(b *localstore.Batch)) {
		t.Helper()
		w.settleDisk()
		b := w.store.NewBatch()
		f(b)
		p, err := w.store.Apply(b)
		require.NoError(t, err)
		_, err = p.Wait()
		require.NoError(t, err)
	}
	t.Run("books", func(t *testing.T) {
		w, _ := calm(t)
		apply(t, w, func(b *localstore.Batch) { b.SetBooks(delay.Books{Accepted: 2}) })
		require.Contains(t, caught(t, w.watch), "do not balance")
	})
	t.Run("books at the end", func(t *testing.T) {
		w, _ := calm(t)
		apply(t, w, func(b *localstore.Batch) {
			b.SetBooks(delay.Books{Accepted: 7, Delivered: 7})
		})
		require.Contains(t, caught(t, w.checkBooks), "books say 7")
	})
	t.Run("below the watermark", func(t *testing.T) {
		w, _ := calm(t)
		apply(t, w, func(b *localstore.Batch) {
			meta := w.store.Meta()
			meta.Watermark = delay.Key{Due: delay.MaxDue}
			b.SetMeta(meta)
		})
		require.Contains(t, caught(t, w.checkStore), "below the watermark")
	})
	t.Run("watermark", func(t *testing.T) {
		w, _ := calm(t)
		w.seenMark = delay.MaxKey
		require.Contains(t, caught(t, w.noteSynced), "went back")
		require.Contains(t, caught(t, w.checkOpened), "across a crash")
	})
	t.Run("resurrected", func(t *testing.T) {
		w, m := calm(t)
		m.Final = true
		require.Contains(t, caught(t, w.checkOpened), "pending again")
	})
	t.Run("bucket", func(t *testing.T) {
		w, _ := calm(t)
		m := w.draft("x")
		m.Draft.Durability = delay.Tier
		w.spawn("send", swarm.Send, func() { w.accept([]*message{m}, []delay.Draft{m.Draft}) })
		for m.Accepted != yes {
			if !w.busy() || !w.underWay(swarm.Flush) {
				w.do(swarm.Flush, scheduler.Task{Kind: scheduler.TaskFlush})
			}
		}
		w.checkBucket()
		state := w.tier.State()
		require.NotEmpty(t, state.Segments)
		m.FinalTier = true
		require.Contains(t, caught(t, w.checkBucket), "pending there again")
		m.FinalTier, m.Cancelled, m.CancelTier = false, yes, true
		require.Contains(t, caught(t, w.checkBucket), "its cancel was durable")
		m.Cancelled = no
		lost := w.draft("y")
		lost.Tier, lost.Accepted = true, yes
		lost.Dues[0] = w.now() + 1000
		require.Contains(t, caught(t, w.checkBucket), "does not have it")
	})
	t.Run("lost", func(t *testing.T) {
		w, m := calm(t)
		require.Contains(t, caught(t, func() { w.checkEnd(m) }), "lost")
	})
	t.Run("stuck", func(t *testing.T) {
		w, _ := calm(t)
		require.Contains(t, caught(t, w.stuck), "not finished")
	})
}
