// SPDX-License-Identifier: Apache-2.0

package scheduler

import (
	"context"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/cicadamq/cicada/broker"
	sink "github.com/cicadamq/cicada/broker/memory"
	"github.com/cicadamq/cicada/delay"
)

// The thirteen causes of duplicates that other queues are known for, and what is promised here in
// their place (S4, S6, S7). Each test is named after its cause, and fails when what protects from
// it is taken out: see package internal/planted.

// sendAll accepts n messages for target, due after d, and returns their ids.
func (w *world) sendAll(n int, target delay.Target, d time.Duration) []delay.ID {
	w.t.Helper()
	drafts, receipts := make([]delay.Draft, n), make([]Receipt, n)
	ids := make([]delay.ID, n)
	for i := range drafts {
		drafts[i] = w.draft(target, d, fmt.Sprint(i))
		drafts[i].AcceptedAt = w.Now()
	}
	require.NoError(w.t, w.Accept(w.t.Context(), drafts, receipts))
	for i := range receipts {
		require.NoError(w.t, receipts[i].Err)
		ids[i] = receipts[i].ID
	}
	return ids
}

// pullFor leases what is due, for a time of its own.
func (w *world) pullFor(most int, lease time.Duration) []Lease {
	w.t.Helper()
	out, err := w.Pull(w.t.Context(), "q", most, 10*time.Millisecond, lease)
	require.NoError(w.t, err)
	return out
}

func idsOf(leases []Lease) []delay.ID {
	ids := make([]delay.ID, len(leases))
	for i := range leases {
		ids[i] = leases[i].ID
	}
	slices.Sort(ids)
	return ids
}

// each is the answer to settling n receipts alike.
func each(r SettleResult, n int) []SettleResult { return slices.Repeat([]SettleResult{r}, n) }

// exactly demands that the sink took each of ids once, and nothing else.
func exactly(t *testing.T, s *sink.Sink, ids []delay.ID) {
	t.Helper()
	taken := s.Taken()
	require.Len(t, taken, len(ids))
	for _, id := range ids {
		require.Equal(t, 1, taken[id], id)
	}
}

// scripted is a sink that answers by the number of the attempt at each message.
func scripted(script func(d broker.Delivery) sink.Answer) *sink.Sink {
	return sink.New(sink.Options{Now: time.Now, Script: func(_ int, d broker.Delivery) sink.Answer {
		return script(d)
	}})
}

func result(o broker.Outcome) sink.Answer { return sink.Answer{Result: broker.Result{Outcome: o}} }

// A producer whose send got no answer sends again: with an id of its own, or a reserved one, the
// message is stored once, whether the answer was lost before or after a crash, and whatever became
// of the message meanwhile.
func TestDuplicateCause01SendRetry(t *testing.T) {
	inWorld(t, Options{}, func(w *world) {
		reserved, err := w.Reserve(w.t.Context(), 1)
		require.NoError(t, err)
		send := func(also ...delay.ID) (fresh int) {
			drafts := []delay.Draft{}
			for _, id := range slices.Concat([]delay.ID{"order-1", reserved[0]}, also) {
				d := w.draft("pull:q", 0, "x")
				d.Given, d.ID, d.AcceptedAt = 1, id, w.Now()
				drafts = append(drafts, d)
			}
			receipts := make([]Receipt, len(drafts))
			require.NoError(t, w.Accept(w.t.Context(), drafts, receipts))
			for i := range receipts {
				require.NoError(t, receipts[i].Err)
				if !receipts[i].Duplicate {
					fresh++
				}
			}
			return fresh
		}
		require.Equal(t, 2, send())
		require.Zero(t, send(), "while it is scheduled")
		w.crash()
		w.open()
		require.Zero(t, send(), "after a crash")
		require.Equal(t, 1, send("order-2"), "together with what did not arrive")
		got := w.pull(10, time.Second)
		require.Len(t, got, 3)
		require.Zero(t, send(), "while it is leased")
		w.ack(got...)
		require.Zero(t, send(), "after it was delivered")
		w.crash()
		w.open()
		require.Zero(t, send(), "after it was delivered, and a crash")
		require.Empty(t, w.drainQueue(time.Minute))
		require.Equal(t, delay.Books{Accepted: 3, Delivered: 3}, w.books())
	})
}

// A handler that fails for some of what one pull brought settles each by itself: what was acked
// never returns, what was given back returns alone and soon, the rest when the lease is over.
func TestDuplicateCause02HandlerFailureInABatch(t *testing.T) {
	inWorld(t, Options{}, func(w *world) {
		w.sendAll(10, "pull:q", 0)
		got := w.pull(10, time.Second)
		require.Len(t, got, 10)
		require.Equal(t, each(Acked, 4), w.ack(got[:4]...))
		require.Equal(t, each(Nacked, 2),
			w.settle(SettleRequest{Settlement: Nack, Delay: time.Second, HasDelay: true}, got[4:6]...))
		w.pass(2 * time.Second)
		again := w.pull(10, time.Second)
		require.Equal(t, idsOf(got[4:6]), idsOf(again), "only what was given back")
		require.Equal(t, each(Acked, 2), w.ack(again...))
		require.Equal(t, each(Acked, 2), w.ack(got[6:8]...), "its lease goes on")
		late := w.drainQueue(time.Minute)
		require.Len(t, late, 2)
		for _, l := range got[8:] {
			require.Equal(t, 1, late[l.ID])
		}
		require.Equal(t, delay.Books{Accepted: 10, Delivered: 10}, w.books())
	})
}

// Progress is not saved on a timer: an ack that was answered holds, also when the power fails in
// the same instant (S6).
func TestDuplicateCause03ProgressOnATimer(t *testing.T) {
	inWorld(t, Options{}, func(w *world) {
		w.sendAll(50, "pull:q", 0)
		for n := 50; n > 0; n -= 10 {
			got := w.pull(10, time.Second)
			require.Len(t, got, 10)
			require.Equal(t, each(Acked, 10), w.ack(got...))
			w.crash()
			w.open()
		}
		require.Empty(t, w.drainQueue(time.Minute))
		require.Equal(t, delay.Books{Accepted: 50, Delivered: 50}, w.books())
	})
}

// A restart begins where the last process was: nothing that is leased is handed out again before
// its lease is over, nothing that was pushed and noted is pushed again, and attempts go on counting.
func TestDuplicateCause04Restart(t *testing.T) {
	inWorld(t, Options{}, func(w *world) {
		pushed := w.sendAll(100, "log:", 0)
		w.sendAll(20, "pull:q", 0)
		leased := w.pullFor(20, time.Minute)
		require.Len(t, leased, 20)
		w.pass(100 * time.Millisecond) // a group commit is 20 ms
		for range 3 {
			w.crash()
			w.open()
			require.Empty(t, w.pull(20, 10*time.Second), "leased to another")
		}
		require.Equal(t, each(Acked, 15), w.ack(leased[:15]...), "receipts survive")
		w.crash()
		w.open()
		w.pass(30 * time.Second)
		back := w.pull(20, time.Second)
		require.Equal(t, idsOf(leased[15:]), idsOf(back))
		for _, l := range back {
			require.EqualValues(t, 2, l.Attempt)
		}
		w.ack(back...)
		exactly(t, w.sink, pushed)
		require.Equal(t, delay.Books{Accepted: 120, Delivered: 120}, w.books())
	})
}

// Another owner, on an empty disk, knows what was delivered from the manifest: what had ended by
// the last commit does not come again, also where one old message holds the watermark back (R12).
func TestDuplicateCause05OwnershipChange(t *testing.T) {
	inWorld(t, quick(), func(w *world) {
		held := w.sendAll(1, "pull:q", 3*time.Second)
		done := w.sendAll(200, "pull:q", 4*time.Second)
		w.pass(3 * time.Second)
		require.Equal(t, held, idsOf(w.pullFor(1, time.Hour)))
		w.pass(time.Second)
		got := w.pull(1000, time.Second)
		require.Len(t, got, len(done))
		w.ack(got...)
		w.pass(1500 * time.Millisecond) // a flush
		w.crash()
		w.loseDisk()
		w.open()
		require.Equal(t, map[delay.ID]int{held[0]: 1}, w.drainQueue(time.Minute))
		require.Equal(t, delay.Books{Accepted: 201, Delivered: 201}, w.books())
	})
}

// Consumers come and go without a rebalance: what one leased stays with it, and of what it leaves
// behind only that returns which it did not ack, when its lease is over.
func TestDuplicateCause06Rebalance(t *testing.T) {
	inWorld(t, Options{}, func(w *world) {
		w.sendAll(30, "pull:q", 0)
		a, b := w.pullFor(10, 20*time.Second), w.pullFor(10, time.Minute)
		require.Len(t, a, 10)
		require.Len(t, b, 10)
		require.Equal(t, each(Acked, 3), w.ack(a[:3]...)) // and a is gone
		c := w.pullFor(100, time.Minute)
		require.Len(t, c, 10, "a new consumer gets what nobody has")
		require.Empty(t, w.pull(100, 19*time.Second))
		d := w.pull(100, 2*time.Second)
		require.Equal(t, idsOf(a[3:]), idsOf(d))
		for _, leases := range [][]Lease{b, c, d} {
			require.Equal(t, each(Acked, len(leases)), w.ack(leases...))
		}
		require.Equal(t, each(Superseded, 7), w.ack(a[3:]...))
		require.Empty(t, w.drainQueue(2*time.Minute))
		require.Equal(t, delay.Books{Accepted: 30, Delivered: 30}, w.books())
	})
}

// A handler slower than its lease: if it extends, nobody else gets the message; if not, another
// does, and the late ack is refused and does not end the lease of the other (R9).
func TestDuplicateCause07SlowHandler(t *testing.T) {
	inWorld(t, Options{}, func(w *world) {
		w.sendAll(2, "pull:q", 0)
		got := w.pullFor(2, 10*time.Second)
		require.Len(t, got, 2)
		for range 10 {
			w.pass(8 * time.Second)
			require.Equal(t, []SettleResult{Extended},
				w.settle(SettleRequest{Settlement: Extend, Lease: 10 * time.Second}, got[0]))
			for _, l := range w.pullFor(2, time.Hour) {
				require.Equal(t, got[1].ID, l.ID)
			}
		}
		require.Equal(t, []SettleResult{Acked, Superseded}, w.ack(got...))
		require.Equal(t, []SettleResult{Superseded},
			w.settle(SettleRequest{Settlement: Nack}, got[1]))
		require.Equal(t, []SettleResult{Superseded},
			w.settle(SettleRequest{Settlement: Extend, Lease: time.Second}, got[1]))
		w.crash()
		w.open()
		require.Equal(t, []SettleResult{Superseded}, w.ack(got[1]))
		require.Equal(t, delay.Claimed, w.get(got[1].ID).State)
		back := w.pull(2, time.Hour)
		require.Equal(t, []delay.ID{got[1].ID}, idsOf(back), "the other did not ack: it returns")
		require.EqualValues(t, 3, back[0].Attempt)
		w.ack(back...)
		require.Equal(t, delay.Books{Accepted: 2, Delivered: 2}, w.books())
	})
}

// Of N leased together N-1 are acked, in any order; then everything is persisted, and the process
// may crash, before or after the lease expires: only the last one returns. Nothing joins the state
// of one message with that of another.
func TestDuplicateCause08AckAndCheckpoint(t *testing.T) {
	crash := func(w *world) { w.crash(); w.open() }
	flush := func(w *world) { w.pass(1500 * time.Millisecond) }
	expire := func(w *world) { w.pass(31 * time.Second) }
	for name, steps := range map[string][]func(*world){
		"expire":               {expire},
		"flush expire":         {flush, expire},
		"crash expire":         {crash, expire},
		"flush crash expire":   {flush, crash, expire},
		"flush expire crash":   {flush, expire, crash},
		"crash twice":          {crash, flush, crash, expire, crash},
		"expire without flush": {expire, crash},
	} {
		for _, last := range []int{0, 4} {
			t.Run(fmt.Sprint(name, last), func(t *testing.T) {
				inWorld(t, quick(), func(w *world) {
					w.sendAll(5, "pull:q", 3*time.Second)
					got := w.pull(5, 5*time.Second)
					require.Len(t, got, 5)
					for i := range 4 {
						require.Equal(t, []SettleResult{Acked}, w.ack(got[(last+1+i)%5]))
					}
					for _, step := range steps {
						step(w)
					}
					require.Equal(t, map[delay.ID]int{got[last].ID: 1}, w.drainQueue(time.Minute))
					require.Equal(t, delay.Books{Accepted: 5, Delivered: 5}, w.books())
				})
			})
		}
	}
}

// One batch to a sink with every outcome in it: each message follows its own. And one batch of
// intake with good and bad in it: each is answered by itself, and sent again it stores only what
// was missing.
func TestDuplicateCause09PartialBatch(t *testing.T) {
	inWorld(t, Options{}, func(w *world) {
		outcomes := []broker.Outcome{
			broker.Delivered, broker.Retry, broker.Rejected, broker.Unknown, broker.Delivered,
		}
		w.sink = scripted(func(d broker.Delivery) sink.Answer {
			if d.Attempt > 1 {
				return result(broker.Delivered)
			}
			return result(outcomes[int(d.Body[0]-'0')%len(outcomes)])
		})
		ids := w.sendAll(10, "log:", time.Second)
		w.pass(time.Minute)
		attempts := make(map[delay.ID]int)
		for _, a := range w.sink.Attempts() {
			attempts[a.ID]++
		}
		for i, id := range ids {
			want, state := 1, delay.Delivered
			switch outcomes[i%len(outcomes)] {
			case broker.Retry, broker.Unknown:
				want = 2
			case broker.Rejected:
				state = delay.Dead
			}
			require.Equal(t, want, attempts[id], "attempts at %d", i)
			require.Equal(t, state, w.get(id).State)
		}
		require.Equal(t, delay.Books{Accepted: 10, Delivered: 8, Dead: 2}, w.books())

		drafts, receipts := make([]delay.Draft, 4), make([]Receipt, 4)
		for i := range drafts {
			drafts[i] = w.draft("pull:q", time.Hour, "x")
			drafts[i].ID, drafts[i].AcceptedAt = delay.ID(fmt.Sprint("o-", i)), w.Now()
		}
		drafts[1].ID = ids[0] // looks server-made and was not reserved
		for _, again := range []bool{false, true} {
			require.NoError(t, w.Accept(w.t.Context(), drafts, receipts))
			for i := range receipts {
				if i == 1 {
					require.ErrorIs(t, receipts[i].Err, delay.ErrInvalid)
					continue
				}
				require.NoError(t, receipts[i].Err)
				require.Equal(t, again, receipts[i].Duplicate)
			}
		}
		require.EqualValues(t, 13, w.books().Accepted)
	})
}

// A shutdown in order repeats nothing, whatever is with the sinks and however often: what they have
// taken is noted before the process ends (S6).
func TestDuplicateCause10CleanShutdown(t *testing.T) {
	inWorld(t, quick(), func(w *world) {
		w.sink = scripted(func(broker.Delivery) sink.Answer {
			return sink.Answer{
				Result: broker.Result{Outcome: broker.Delivered}, ReplyDelay: time.Millisecond,
			}
		})
		var pushed []delay.ID
		for i := range 100 {
			pushed = append(pushed, w.sendAll(20, "log:", time.Duration(i)*50*time.Millisecond)...)
		}
		leased := w.sendAll(1, "pull:q", 0)
		got := w.pullFor(1, time.Minute)
		for i := range 40 {
			w.pass(time.Duration(103+7*i) * time.Millisecond)
			w.drain()
			w.open()
		}
		w.pass(5 * time.Second)
		exactly(t, w.sink, pushed)
		require.Equal(t, []SettleResult{Acked}, w.ack(got...))
		require.Equal(t, leased, idsOf(got))
		require.Zero(t, w.books().Pending)
	})
}

// Two processes that both believe to be the owner: the old one, which does not know yet, and the
// new one never deliver at the same time, and nothing comes a third time (R11).
func TestDuplicateCause11TwoDeliverers(t *testing.T) {
	inWorld(t, quick(), func(w *world) {
		slow := func(broker.Delivery) sink.Answer {
			return sink.Answer{
				Result: broker.Result{Outcome: broker.Delivered}, Delay: 10 * time.Millisecond,
			}
		}
		w.sink = scripted(slow)
		var ids []delay.ID
		for i := range 100 {
			ids = append(ids, w.sendAll(1, "log:", 3*time.Second+time.Duration(i)*100*time.Millisecond)...)
		}
		w.pass(5*time.Second + 30*time.Millisecond)
		second := w.beside()
		second.sink = scripted(slow)
		second.open()
		taken := w.Now()
		require.ErrorIs(t, <-w.ran, delay.ErrFenced)
		w.close()
		second.pass(20 * time.Second)
		old, fresh := w.sink.Attempts(), second.sink.Attempts()
		require.NotEmpty(t, old)
		require.NotEmpty(t, fresh)
		require.Less(t, old[len(old)-1].At, fresh[0].At, "both delivered at the same time")
		twice := 0
		for _, id := range ids {
			n := w.sink.Taken()[id] + second.sink.Taken()[id]
			require.GreaterOrEqual(t, n, 1, "lost")
			require.LessOrEqual(t, n, 2)
			if n == 2 {
				twice++
			}
		}
		// The old owner's last commit was at most an interval before it was fenced, and it went on
		// for at most another.
		require.LessOrEqual(t, twice, 21, "taken at %d", taken)
		second.drain()
	})
}

// The sink has applied a message, and its reply is lost: it is the only one of its batch that is
// sent again, once, under the same id.
func TestDuplicateCause12UnknownOutcome(t *testing.T) {
	inWorld(t, Options{}, func(w *world) {
		w.sink = scripted(func(d broker.Delivery) sink.Answer {
			if string(d.Body) == "7" && d.Attempt == 1 {
				return sink.Answer{Taken: true, Result: broker.Result{Outcome: broker.Unknown}}
			}
			return result(broker.Delivered)
		})
		ids := w.sendAll(100, "log:", time.Second)
		w.pass(time.Minute)
		for i, id := range ids {
			want := 1
			if i == 7 {
				want = 2
			}
			require.Equal(t, want, w.sink.Taken()[id], "message %d", i)
		}
		require.Equal(t, delay.Books{Accepted: 100, Delivered: 100}, w.books())
	})
}

// An ack that is refused is told to the client, receipt for receipt, and counted: it is the one
// sign that somebody works on a message of another.
func TestDuplicateCause13HiddenFailedAck(t *testing.T) {
	inWorld(t, Options{}, func(w *world) {
		counts := make(map[string]int)
		w.parts.Events.Settled = func(target delay.Target, kind, result string, n int) {
			counts[fmt.Sprint(target, " ", kind, " ", result)] += n
		}
		w.sendAll(3, "pull:q", 0)
		got := w.pullFor(3, time.Second)
		require.Len(t, got, 3)
		require.Equal(t, []SettleResult{Acked}, w.ack(got[0]))
		w.pass(2 * time.Second)
		other := w.pullFor(3, time.Minute)
		require.Len(t, other, 2)
		require.Equal(t, []SettleResult{Acked, Superseded, Superseded}, w.ack(got...))
		require.Equal(t, each(Acked, 2), w.ack(other...))
		require.Equal(t, []SettleResult{Acked, Superseded, Superseded}, w.ack(got...))
		var r [2]SettleResult
		require.NoError(t, w.Settle(context.WithoutCancel(w.t.Context()), SettleRequest{
			Queue: "another", Settlement: Ack, Receipts: []string{got[0].Receipt, "garbage"},
		}, r[:]))
		require.Equal(t, [2]SettleResult{SettleNotFound, SettleNotFound}, r)
		require.Equal(t, map[string]int{
			"pull:q ack ACKED": 5, "pull:q ack SUPERSEDED": 4, "pull:another ack NOT_FOUND": 2,
		}, counts)
	})
}
