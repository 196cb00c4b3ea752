// SPDX-License-Identifier: Apache-2.0

package scheduler

import (
	"fmt"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/cicadamq/cicada/broker"
	sink "github.com/cicadamq/cicada/broker/memory"
	"github.com/cicadamq/cicada/delay"
)

// schedule is a draft of a schedule whose firings go to the sink.
func (w *world) schedule(id delay.ID, expr string) delay.Draft {
	return delay.Draft{Message: delay.Message{
		ID: id, Target: "log:", Body: []byte("tick"), AcceptedAt: w.Now(),
		Headers:    []delay.Header{{Name: "x", Value: "y"}},
		Recurrence: &delay.Recurrence{Expr: expr},
	}}
}

// firing is what the sink got.
type firing struct {
	id     delay.ID
	due    delay.Due
	missed int
}

// firings are the deliveries of a schedule in their order. It fails on one that came early, twice
// or with another id than its due.
func (w *world) firings(id delay.ID) (out []firing) {
	w.t.Helper()
	seen := map[delay.ID]bool{}
	for _, a := range w.sink.Attempts() {
		from := ""
		f := firing{id: a.ID, due: a.Due}
		for _, h := range a.Headers {
			switch h.Name {
			case delay.HeaderScheduleID:
				from = h.Value
			case delay.HeaderMissed:
				f.missed, _ = strconv.Atoi(h.Value)
			}
		}
		if delay.ID(from) != id {
			continue
		}
		require.Equal(w.t, delay.FiringID(id, a.Due), a.ID)
		require.False(w.t, seen[a.ID], "%s came twice", a.ID)
		require.GreaterOrEqual(w.t, a.At, a.Due, "%s came early", a.ID)
		seen[a.ID] = true
		out = append(out, f)
	}
	return out
}

// dues are the dues of firings, in seconds after from.
func dues(fs []firing, from delay.Due) (out []int) {
	for _, f := range fs {
		out = append(out, int(f.due.Sub(from)/time.Second))
	}
	return out
}

// A schedule that loses count, drifts or fires twice is worse than none: every firing comes once,
// on time, as a message of its own, and the books know the firings only.
func TestScheduleFires(t *testing.T) {
	inWorld(t, quick(), func(w *world) {
		start := w.Now()
		r := w.send(w.schedule("tick", "@every 10s"))
		require.Equal(t, start.Add(10*time.Second), r.Due)
		require.Equal(t, delay.Books{Schedules: 1}, w.Status().Books)
		w.pass(65 * time.Second)
		fired := w.firings("tick")
		require.Equal(t, []int{10, 20, 30, 40, 50, 60}, dues(fired, start))
		require.Equal(t, delay.Books{Accepted: 6, Delivered: 6, Schedules: 1}, w.Status().Books)
		require.Less(t, w.sink.Attempts()[0].At.Sub(fired[0].due), 100*time.Millisecond)
		info := w.get("tick")
		require.Equal(t, start.Add(70*time.Second), info.Due)
		require.Equal(t, uint64(6), info.Recurrence.Fired)
		require.Equal(t, delay.Delivered, w.get(fired[0].id).State)

		require.Equal(t, Cancelled, w.change("tick", Cancel, 0).Verdict)
		require.Equal(t, Cancelled, w.change("tick", Cancel, 0).Verdict)
		w.pass(time.Minute)
		require.Len(t, w.firings("tick"), 6)
		require.Equal(t, delay.Books{Accepted: 6, Delivered: 6}, w.Status().Books)
	})
}

// A schedule ends by its count or its end, in the firing that is the last, and is then finished.
func TestScheduleEnds(t *testing.T) {
	inWorld(t, quick(), func(w *world) {
		start := w.Now()
		count := w.schedule("count", "@every 1s")
		count.Recurrence.Count = 3
		until := w.schedule("until", "@every 1s")
		until.Recurrence.Until = start.Add(4500 * time.Millisecond)
		w.send(count)
		w.send(until)
		w.pass(10 * time.Second)
		require.Equal(t, []int{1, 2, 3}, dues(w.firings("count"), start))
		require.Equal(t, []int{1, 2, 3, 4}, dues(w.firings("until"), start))
		require.Equal(t, delay.Delivered, w.get("count").State)
		require.Equal(t, delay.Books{Accepted: 7, Delivered: 7}, w.Status().Books)
		require.Equal(t, TooLate, w.change("count", Cancel, 0).Verdict)
		again := w.schedule("count", "@every 1s")
		again.Recurrence.Count = 3
		r := w.trySend(again)
		require.NoError(t, r.Err)
		require.True(t, r.Duplicate, "the same request names what has ended")
	})
}

// A request that is repeated after the end of its schedule has passed must be told what became of
// the schedule (S4): refused, a client whose first reply was lost would take it for never accepted.
// Other content, an unknown id and an id that is no longer remembered are refused by the field.
func TestRepeatedAfterUntil(t *testing.T) {
	opts := quick()
	opts.DedupeWindow = 30 * time.Second
	inWorld(t, opts, func(w *world) {
		end := w.Now().Add(2500 * time.Millisecond)
		draft := func(id delay.ID, expr string) delay.Draft {
			d := w.schedule(id, expr)
			d.Recurrence.Until, d.Durability = end, delay.Tier
			return d
		}
		first := w.send(draft("s", "@every 1s"))
		w.send(draft("paused", "@every 1s"))
		require.Equal(t, SchedulePaused, w.change("paused", PauseSchedule, 0).Verdict)
		w.pass(5 * time.Second)
		again := w.trySend(draft("s", "@every 1s"))
		require.NoError(t, again.Err)
		require.True(t, again.Duplicate)
		require.Equal(t, delay.Delivered, again.State)
		require.Equal(t, first.Generation, again.Generation)
		require.Equal(t, delay.Tier, again.Durability)
		paused := w.trySend(draft("paused", "@every 1s"))
		require.NoError(t, paused.Err)
		require.Equal(t, delay.Scheduled, paused.State)
		var wrong *delay.FieldError
		for name, d := range map[string]delay.Draft{
			"other content": draft("s", "@every 2s"), "unknown": draft("t", "@every 1s"),
			"no id": draft("", "@every 1s"),
		} {
			require.ErrorAs(t, w.trySend(d).Err, &wrong, name)
			require.Equal(t, "until", wrong.Field, name)
		}
		w.crash()
		w.open()
		require.True(t, w.trySend(draft("s", "@every 1s")).Duplicate)
		w.pass(opts.DedupeWindow)
		require.ErrorAs(t, w.trySend(draft("s", "@every 1s")).Err, &wrong)
	})
}

// A definition that can never fire, or that firings cannot carry, is refused by its field when it
// comes, and stores nothing.
func TestScheduleRefused(t *testing.T) {
	inWorld(t, quick(), func(w *world) {
		for field, change := range map[string]func(d *delay.Draft){
			"schedule":      func(d *delay.Draft) { d.Recurrence.Expr = "61 * * * *" },
			"time_zone":     func(d *delay.Draft) { d.Recurrence.Zone = "Mars/Olympus" },
			"until":         func(d *delay.Draft) { d.Recurrence.Until = w.Now() },
			"spread":        func(d *delay.Draft) { d.Spread = time.Second },
			"not_after":     func(d *delay.Draft) { d.NotAfter = w.Now() + 1 },
			"misfire_limit": func(d *delay.Draft) { d.Recurrence.MisfireLimit = 5 },
			"jitter":        func(d *delay.Draft) { d.Recurrence.Jitter = -1 },
			"headers":       func(d *delay.Draft) { d.Headers = make([]delay.Header, delay.MaxHeaders-1) },
			"id":            func(d *delay.Draft) { d.ID = delay.ID(make([]byte, 241)) },
		} {
			d := w.schedule("s", "@every 1m")
			change(&d)
			var wrong *delay.FieldError
			require.ErrorAs(t, w.trySend(d).Err, &wrong, field)
			require.Equal(t, field, wrong.Field)
		}
		require.Zero(t, w.Status().Books)
	})
}

// misfire runs a schedule that fires each second, loses ten seconds to stop, and returns what came
// of it, as seconds after the start, and the schedule.
func misfire(t *testing.T, policy delay.Misfire, limit uint32, stop func(w *world)) (
	[]int, []firing, *delay.Recurrence,
) {
	var fired []firing
	var start delay.Due
	var c *delay.Recurrence
	inWorld(t, quick(), func(w *world) {
		start = w.Now()
		d := w.schedule("tick", "@every 1s")
		d.Recurrence.Misfire, d.Recurrence.MisfireLimit = policy, limit
		w.send(d)
		w.pass(3500 * time.Millisecond)
		stop(w) // until 13.5 s
		w.pass(2 * time.Second)
		fired, c = w.firings("tick"), w.get("tick").Recurrence
		w.firingsAreFinished()
	})
	return dues(fired, start), fired, c
}

// firingsAreFinished checks the books against the sink.
func (w *world) firingsAreFinished() {
	w.t.Helper()
	w.pass(200 * time.Millisecond)
	books := w.Status().Books
	require.Equal(w.t, int64(len(w.sink.Attempts())), books.Accepted)
	require.Equal(w.t, books.Accepted, books.Delivered)
	require.Equal(w.t, int64(1), books.Schedules)
}

// What was due while nobody was there is made up for as the policy says, and told; nothing that was
// in time is lost or comes again.
func TestMisfire(t *testing.T) {
	crash := func(w *world) {
		w.crash()
		w.pass(10 * time.Second)
		w.open()
	}
	drained := func(w *world) {
		w.drain()
		w.pass(10 * time.Second)
		w.open()
	}
	paused := func(w *world) {
		require.Equal(w.t, SchedulePaused, w.change("tick", PauseSchedule, 0).Verdict)
		require.Equal(w.t, SchedulePaused, w.change("tick", PauseSchedule, 0).Verdict)
		w.pass(10 * time.Second)
		require.Equal(w.t, ScheduleResumed, w.change("tick", ResumeSchedule, 0).Verdict)
	}
	for name, stop := range map[string]func(w *world){
		"crash": crash, "drained": drained, "paused": paused,
	} {
		t.Run(name, func(t *testing.T) {
			got, fired, c := misfire(t, delay.FireOnce, 0, stop)
			require.Equal(t, []int{1, 2, 3, 13, 14, 15}, got)
			require.Equal(t, 9, fired[3].missed)
			require.Equal(t, uint64(9), c.Missed)
			require.Zero(t, fired[4].missed)

			got, fired, c = misfire(t, delay.FireAll, 4, stop)
			require.Equal(t, []int{1, 2, 3, 10, 11, 12, 13, 14, 15}, got)
			require.Equal(t, 6, fired[3].missed)
			require.Equal(t, uint64(6), c.Missed)

			got, fired, c = misfire(t, delay.SkipMissed, 0, stop)
			require.Equal(t, []int{1, 2, 3, 14, 15}, got)
			require.Equal(t, 10, fired[3].missed, "the next firing tells of those before it")
			require.Equal(t, uint64(10), c.Missed)
		})
	}
}

// A shard that is only busy misses nothing: firings wait in their lane and come all.
func TestBusyMissesNothing(t *testing.T) {
	inWorld(t, quick(), func(w *world) {
		start := w.Now()
		require.NoError(t, w.SetPaused(t.Context(), "log:", true))
		w.send(w.schedule("tick", "@every 1s"))
		w.pass(5500 * time.Millisecond)
		require.Empty(t, w.sink.Attempts())
		require.NoError(t, w.SetPaused(t.Context(), "log:", false))
		w.pass(time.Second)
		require.Equal(t, []int{1, 2, 3, 4, 5, 6}, dues(w.firings("tick"), start))
	})
}

// The disk is lost with all that came after the last flush. The schedule goes on where the manifest
// says, and what may come twice has its own id, by which it is known.
func TestScheduleOutlivesTheDisk(t *testing.T) {
	inWorld(t, quick(), func(w *world) {
		start := w.Now()
		d := w.schedule("tick", "@every 10s")
		d.Durability, d.Recurrence.Count, d.Recurrence.Misfire = delay.Tier, 30, delay.FireAll
		w.send(d)
		w.pass(95 * time.Second)
		require.Len(t, w.firings("tick"), 9)
		w.crash()
		w.loseDisk()
		w.pass(100 * time.Second)
		w.open()
		w.pass(time.Minute)
		all := map[delay.ID]bool{}
		for _, a := range w.sink.Attempts() {
			all[a.ID] = true
		}
		for n := 1; n <= 25; n++ {
			id := delay.FiringID("tick", start.Add(time.Duration(n)*10*time.Second))
			require.True(t, all[id], "firing %d of %d", n, len(all))
		}
		require.LessOrEqual(t, len(w.sink.Attempts())-len(all), 1, "what came since the last flush")
		w.pass(2 * time.Minute)
		require.Equal(t, delay.Delivered, w.get("tick").State)
		require.True(t, w.Status().Books.Balanced(), "%+v", w.Status().Books)
		require.Zero(t, w.Status().Books.Schedules)
	})
}

// Replacing a schedule moves it at once and keeps what it has done; a message can become a schedule
// and a schedule a message, and the books follow.
func TestScheduleReplaced(t *testing.T) {
	inWorld(t, quick(), func(w *world) {
		start := w.Now()
		w.send(w.schedule("tick", "@every 1s"))
		w.pass(2500 * time.Millisecond)
		other := w.schedule("tick", "@every 3s")
		require.ErrorIs(t, w.trySend(other).Err, delay.ErrExists)
		other.Replace = true
		require.NoError(t, w.trySend(other).Err)
		w.pass(6100 * time.Millisecond)
		require.Equal(t, []int{1, 2, 5, 8}, dues(w.firings("tick"), start))
		require.Equal(t, uint64(4), w.get("tick").Recurrence.Fired)
		few := w.schedule("tick", "@every 3s")
		few.Replace, few.Recurrence.Count = true, 4
		var wrong *delay.FieldError
		require.ErrorAs(t, w.trySend(few).Err, &wrong)
		require.Equal(t, "count", wrong.Field)

		m := w.named("tick", "log:", time.Hour)
		m.Replace = true
		require.NoError(t, w.trySend(m).Err)
		require.Equal(t, delay.Books{Accepted: 5, Pending: 1, Delivered: 4}, w.Status().Books)
		back := w.schedule("tick", "@every 3s")
		back.Replace = true
		require.NoError(t, w.trySend(back).Err)
		require.Equal(t, delay.Books{Accepted: 5, Delivered: 4, Cancelled: 1, Schedules: 1},
			w.Status().Books)
	})
}

// A paused schedule stays paused over restarts and the loss of the disk, can be cancelled, and is
// found by its id in between.
func TestPausedScheduleStays(t *testing.T) {
	inWorld(t, quick(), func(w *world) {
		w.send(w.schedule("a", "@every 1s"))
		w.send(w.schedule("b", "@every 1s"))
		for _, id := range []delay.ID{"a", "b"} {
			require.Equal(t, SchedulePaused, w.change(id, PauseSchedule, 0).Verdict)
		}
		w.pass(time.Minute)
		w.crash()
		w.loseDisk()
		w.open()
		w.pass(time.Minute)
		require.Empty(t, w.sink.Attempts())
		require.True(t, w.get("a").Recurrence.Paused)
		require.Equal(t, Fired, w.change("a", Fire, 0).Verdict)
		w.pass(time.Second)
		require.Len(t, w.sink.Attempts(), 1)
		require.Equal(t, Cancelled, w.change("b", Cancel, 0).Verdict)
		require.Equal(t, ScheduleResumed, w.change("a", ResumeSchedule, 0).Verdict)
		w.pass(1500 * time.Millisecond)
		require.Len(t, w.firings("a"), 3, "by hand, what was missed, and one in time")
		require.Equal(t, int64(1), w.Status().Books.Schedules)
	})
}

// What cannot be done with a schedule, or only with one, is refused in words.
func TestScheduleChanges(t *testing.T) {
	inWorld(t, quick(), func(w *world) {
		w.send(w.schedule("s", "@daily"))
		w.send(w.named("m", "log:", time.Hour))
		require.ErrorContains(t, w.tryChange("s", Reschedule, w.Now()).Err, "replace it")
		require.ErrorContains(t, w.tryChange("m", PauseSchedule, 0).Err, "no schedule")
		first := w.change("s", Fire, 0)
		second := w.change("s", Fire, 0)
		require.NotEqual(t, first.Due, second.Due, "both have an id of their own")
		w.pass(time.Second)
		require.Len(t, w.sink.Attempts(), 2)
	})
}

func (w *world) tryChange(id delay.ID, c Change, due delay.Due) ChangeResult {
	var r [1]ChangeResult
	require.NoError(w.t, w.Change(w.t.Context(), []ChangeRequest{{ID: id, Change: c, Due: due}}, r[:]))
	return r[0]
}

// A crash in the middle of many firings: each schedule and its firing are one batch, so that none
// fires twice or skips, wherever it stops.
func TestScheduleCrashes(t *testing.T) {
	inWorld(t, quick(), func(w *world) {
		w.sink = sink.New(sink.Options{Now: time.Now})
		const n = 40
		start := w.Now()
		for i := range n {
			d := w.schedule(delay.ID(fmt.Sprintf("s%d", i)), "@every 1s")
			d.Recurrence.Misfire = delay.FireAll
			w.send(d)
		}
		for i := range 12 {
			w.pass(990*time.Millisecond + time.Duration(i)*2*time.Millisecond)
			w.crash()
			w.open()
		}
		w.pass(3 * time.Second)
		end := int(w.Now().Sub(start) / time.Second)
		for i := range n {
			ids := map[delay.ID]int{}
			id := delay.ID(fmt.Sprintf("s%d", i))
			for _, a := range w.sink.Attempts() {
				if slices.ContainsFunc(a.Headers, func(h delay.Header) bool { return h.Value == string(id) }) {
					ids[a.ID]++
				}
			}
			for sec := 1; sec < end; sec++ {
				require.Positive(t, ids[delay.FiringID(id, start.Add(time.Duration(sec)*time.Second))],
					"%s at %d of %d", id, sec, end)
			}
		}
		w.pass(100 * time.Millisecond)
		require.True(t, w.Status().Books.Balanced())
		require.Equal(t, int64(n), w.Status().Books.Schedules)
	})
}

// A firing is a message like any other: it is retried, and dies, alone.
func TestFiringDies(t *testing.T) {
	inWorld(t, quick(), func(w *world) {
		w.sink = scripted(func(d broker.Delivery) sink.Answer {
			if d.Due%2000 < 1000 {
				return result(broker.Rejected)
			}
			return result(broker.Delivered)
		})
		w.send(w.schedule("tick", "@every 1s"))
		w.pass(4500 * time.Millisecond)
		books := w.Status().Books
		require.Equal(t, int64(4), books.Accepted)
		require.Equal(t, int64(2), books.Dead)
		require.Equal(t, int64(1), books.Schedules)
	})
}

// Its clock stands still while the machine sleeps: what was due meanwhile is missed, not made up
// for one by one. The first step is held, so that the shard confirms it.
func TestScheduleSleeps(t *testing.T) {
	inWorld(t, quick(), func(w *world) {
		w.sink = sink.New(sink.Options{Now: w.wall})
		w.send(w.schedule("tick", "@every 1s"))
		w.pass(1500 * time.Millisecond)
		w.skew.Store(int64(time.Hour))
		w.pass(time.Second)
		w.ConfirmClock()
		w.pass(1500 * time.Millisecond)
		fired := w.firings("tick")
		require.Less(t, len(fired), 10)
		missed := 0
		for _, f := range fired {
			missed += f.missed
		}
		require.Equal(t, uint64(missed), w.get("tick").Recurrence.Missed)
		require.InDelta(t, 3600, missed, 5)
	})
}
