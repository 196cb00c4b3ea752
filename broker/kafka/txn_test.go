// SPDX-License-Identifier: Apache-2.0

package kafka

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"strconv"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/cicadamq/cicada/broker"
	"github.com/cicadamq/cicada/broker/kafka/ledger"
	"github.com/cicadamq/cicada/delay"
)

// life is one process: a sink in exactly_once mode and its network.
type life struct {
	*Exact

	g *gate
}

// begin opens a sink and takes the ledger; apply may be nil.
func (w *world) begin(after uint64, apply func(uint64, []broker.Done) error) (*life, error) {
	w.t.Helper()
	l := w.newLife()
	if apply == nil {
		apply = func(uint64, []broker.Done) error { return nil }
	}
	return l, l.Recover(w.t.Context(), after, apply)
}

func (w *world) newLife(change ...func(*SinkConfig)) *life {
	w.t.Helper()
	l := &life{g: newGate(w.net.DialContext)}
	cfg := w.sinkConfig(ExactlyOnce)
	cfg.Dial = l.g.dial
	for _, f := range change {
		f(&cfg)
	}
	s, err := NewSink(cfg)
	require.NoError(w.t, err)
	w.t.Cleanup(func() { require.NoError(w.t, s.Close()) })
	l.Exact = s.(*Exact)
	return l
}

func (w *world) mustBegin(after uint64) *life {
	w.t.Helper()
	l, err := w.begin(after, nil)
	require.NoError(w.t, err)
	return l
}

// kill ends the process: nothing of it reaches the cluster any more.
func (l *life) kill() {
	l.g.shut(true)
	l.Close()
}

// entries are those of the ledger, by number, as readers of committed messages find them.
func (w *world) entries() map[uint64][]broker.Done {
	w.t.Helper()
	all := map[uint64][]broker.Done{}
	for _, r := range w.read(DefaultLedgerTopic) {
		rec, ours, err := ledger.Read(ledger.Name("c-1", 0, "main"), r.Key, r.Value)
		require.NoError(w.t, err)
		require.True(w.t, ours)
		switch {
		case rec.Owner:
		case rec.Erased:
			delete(all, rec.Number)
		default:
			all[rec.Number] = rec.Done
		}
	}
	return all
}

// listed fails where the ledger does not list exactly what readers of topic see.
func (w *world) listed() {
	w.t.Helper()
	seen, said := map[string]int{}, map[string]int{}
	for _, r := range w.read(outTopic) {
		seen[headerOf(r, "cicada-id")]++
	}
	for _, done := range w.entries() {
		for _, d := range done {
			said[string(d.ID)]++
		}
	}
	require.Equal(w.t, seen, said)
}

// finish delivers batch again and again, without what was answered, and fails after a few minutes.
func finish(t *testing.T, sink broker.Sink, batch []broker.Delivery) {
	t.Helper()
	for range 60 {
		var again []broker.Delivery
		for i, r := range deliver(t, sink, batch) {
			require.NotEqual(t, broker.Rejected, r.Outcome)
			if r.Outcome != broker.Delivered {
				again = append(again, batch[i])
			}
		}
		if batch = again; len(batch) == 0 {
			return
		}
		time.Sleep(time.Second)
	}
	require.Fail(t, "some were never delivered", "%d left", len(batch))
}

// backer is what stands behind a sink: it delivers until every message is finished, remembers what
// is, and after a crash knows only what a manifest covers and what the ledger tells.
type backer struct {
	t       *testing.T
	pending []broker.Delivery
}

func (s *backer) apply(_ uint64, done []broker.Done) error {
	for _, d := range done {
		s.pending = slices.DeleteFunc(s.pending, func(m broker.Delivery) bool { return m.ID == d.ID })
	}
	return nil
}

// round delivers some of what is pending in some lanes.
func (s *backer) round(ctx context.Context, sink broker.Sink, rng *rand.Rand) {
	lanes := 1 + rng.IntN(3)
	each := 1 + rng.IntN(20)
	var mu sync.Mutex
	finished := map[delay.ID]bool{}
	var wg sync.WaitGroup
	for lane := range lanes {
		at := lane * each
		if at >= len(s.pending) {
			break
		}
		batch := slices.Clone(s.pending[at:min(at+each, len(s.pending))])
		wg.Go(func() {
			results := make([]broker.Result, len(batch))
			sink.Deliver(ctx, batch, results)
			mu.Lock()
			defer mu.Unlock()
			for i, r := range results {
				if r.Outcome == broker.Delivered {
					finished[batch[i].ID] = true
				}
			}
		})
	}
	wg.Wait()
	s.pending = slices.DeleteFunc(s.pending, func(m broker.Delivery) bool { return finished[m.ID] })
}

// Crashes, lost answers, refusals and takeovers at any moment of a transaction may lose a message or
// repeat it: readers of committed messages must see each exactly once. The seed is printed.
func TestExactModel(t *testing.T) {
	seeds := 40
	if testing.Short() {
		seeds = 8
	}
	for range seeds {
		seed := rand.Uint64()
		t.Run(strconv.FormatUint(seed, 10), func(t *testing.T) { exactModel(t, seed) })
	}
}

func exactModel(t *testing.T, seed uint64) {
	inBubble(t, func(t *testing.T, w *world) {
		rng := rand.New(rand.NewPCG(seed, 0))
		w.topic(outTopic, 2, nil)
		all := messages("m", 150)
		s := &backer{t: t, pending: slices.Clone(all)}
		var l *life
		for rounds := 0; len(s.pending) > 0; rounds++ {
			require.Less(t, rounds, 2000, "seed %d: it does not end", seed)
			if l == nil {
				s.pending = slices.Clone(all) // a crash forgets everything that is not covered
				var err error
				if l, err = w.begin(0, s.apply); err != nil {
					require.ErrorIs(t, err, delay.ErrUnavailable, "seed %d", seed)
					l.kill()
					l = nil
					continue
				}
			}
			stop := w.mischief(rng, l)
			ctx, cancel := context.WithTimeout(t.Context(), time.Duration(rng.IntN(8000))*time.Millisecond)
			s.round(ctx, l, rng)
			cancel()
			stop()
			l.g.lose(false)
			l.g.shut(false)
			select {
			case <-l.Fenced():
				l.kill()
				l = nil
			default:
			}
			if l != nil && rng.IntN(8) == 0 {
				l.kill()
				l = nil
			}
		}
		once(t, w.read(outTopic), all)
		w.listed()
		time.Sleep(time.Minute) // until nothing sleeps in the cluster any more
	})
}

// mischief arranges for something to go wrong soon, until stop.
func (w *world) mischief(rng *rand.Rand, l *life) (stop func()) {
	keys := []kmsg.Key{kmsg.Produce, kmsg.EndTxn, kmsg.InitProducerID, kmsg.ListOffsets, kmsg.Fetch}
	key := keys[rng.IntN(len(keys))]
	act := func(do func()) func() {
		return w.on(key, rng.IntN(4), func() (done, cut bool) {
			do()
			return true, false
		})
	}
	switch rng.IntN(7) {
	case 0: // the answer is lost
		return act(func() { l.g.lose(true) })
	case 1: // the process loses its network
		return act(func() { l.g.shut(true) })
	case 2: // a broker refuses
		errs := []*kerr.Error{
			kerr.NotEnoughReplicas, kerr.UnknownServerError, kerr.InvalidProducerEpoch,
			kerr.CoordinatorNotAvailable, kerr.ConcurrentTransactions, kerr.RequestTimedOut,
			kerr.TransactionAbortable, kerr.InvalidTxnState, kerr.InvalidProducerIDMapping,
		}
		return w.fault(errs[rng.IntN(len(errs))], 1+rng.IntN(3), "", key)
	case 3: // slow
		pause := time.Duration(rng.IntN(9)) * time.Second
		return act(func() { w.cluster.SleepControl(func() { time.Sleep(pause) }) })
	case 4: // the request is not carried out
		return w.on(key, rng.IntN(4), func() (done, cut bool) { return true, true })
	case 5: // a process that believes the ledger is its own
		go func() {
			o := w.newLife()
			_ = o.Recover(w.t.Context(), 0, func(uint64, []broker.Done) error { return nil })
			o.kill()
		}()
	}
	return func() {}
}

// A process that was shut out must not deliver, must say so, and must not shut its successor out.
func TestExactZombie(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		w.topic(outTopic, 2, nil)
		old := w.mustBegin(0)
		first := messages("first", 10)
		requireAll(t, broker.Delivered, deliver(t, old, first))
		var applied []broker.Done
		successor, err := w.begin(0, func(_ uint64, done []broker.Done) error {
			applied = append(applied, done...)
			return nil
		})
		require.NoError(t, err)
		require.Len(t, applied, 10)
		second := messages("second", 10)
		requireAll(t, broker.Delivered, deliver(t, successor, second))
		for range 3 {
			results := deliver(t, old, messages("late", 10))
			require.Zero(t, outcomes(results)[broker.Delivered])
		}
		select {
		case <-old.Fenced():
		case <-time.After(time.Minute):
			require.Fail(t, "it does not know that it was shut out")
		}
		results := deliver(t, old, messages("late", 10))
		requireAll(t, broker.Unknown, results)
		require.ErrorIs(t, old.Recover(t.Context(), 0, nil), delay.ErrFenced)
		third := messages("third", 10)
		requireAll(t, broker.Delivered, deliver(t, successor, third))
		select {
		case <-successor.Fenced():
			require.Fail(t, "the old process has shut its successor out")
		default:
		}
		once(t, w.read(outTopic), first, second, third)
		w.listed()
	})
}

// The commit may be applied and its answer lost: the ledger tells, and nothing is sent twice.
func TestExactLostCommit(t *testing.T) {
	for _, patient := range []bool{true, false} {
		inBubble(t, func(t *testing.T, w *world) {
			w.topic(outTopic, 2, nil)
			l := w.mustBegin(0)
			requireAll(t, broker.Delivered, deliver(t, l, messages("before", 2)))
			w.on(kmsg.EndTxn, 0, func() (done, cut bool) {
				l.g.lose(true) // and the request is carried out
				return true, false
			})
			var heal sync.WaitGroup
			heal.Go(func() {
				time.Sleep(12 * time.Second)
				l.g.lose(false)
			})
			batch := messages("m", 3)
			results := make([]broker.Result, 3)
			ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
			defer cancel()
			if patient {
				ctx = t.Context()
			}
			l.Deliver(ctx, batch, results)
			heal.Wait()
			if patient {
				requireAll(t, broker.Delivered, results)
			} else {
				requireAll(t, broker.Unknown, results)
				finish(t, l, batch)
			}
			once(t, w.read(outTopic), messages("before", 2), batch)
			w.listed()
			require.Zero(t, l.Stats().Settled)
		})
	}
}

// The commit may never arrive: the transaction is aborted and its messages are sent again.
func TestExactCommitNeverArrives(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		w.topic(outTopic, 2, nil)
		l := w.mustBegin(0)
		requireAll(t, broker.Delivered, deliver(t, l, messages("before", 2)))
		stop := w.on(kmsg.EndTxn, 0, func() (done, cut bool) { return false, true })
		batch := messages("m", 3)
		results := make([]broker.Result, 3)
		ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
		defer cancel()
		l.Deliver(ctx, batch, results)
		require.Zero(t, outcomes(results)[broker.Delivered])
		stop()
		finish(t, l, batch)
		once(t, w.read(outTopic), messages("before", 2), batch)
		w.listed()
		require.NotZero(t, l.Stats().Doubtful)
	})
}

// A code that a broker answers may be taken for a commit, or stop the sink for good.
func TestExactAnswers(t *testing.T) {
	for _, key := range []kmsg.Key{kmsg.Produce, kmsg.EndTxn, kmsg.InitProducerID} {
		for _, err := range []*kerr.Error{
			kerr.CoordinatorNotAvailable, kerr.CoordinatorLoadInProgress, kerr.NotCoordinator,
			kerr.ConcurrentTransactions, kerr.InvalidProducerEpoch, kerr.ProducerFenced,
			kerr.InvalidProducerIDMapping, kerr.InvalidTxnState, kerr.TransactionAbortable,
			kerr.TransactionalIDAuthorizationFailed, kerr.ClusterAuthorizationFailed,
			kerr.UnknownServerError, kerr.RequestTimedOut, kerr.OutOfOrderSequenceNumber,
			kerr.UnknownProducerID, kerr.TopicAuthorizationFailed, kerr.InvalidRecord,
		} {
			inBubble(t, func(t *testing.T, w *world) {
				w.topic(outTopic, 1, nil)
				var l *life
				if key == kmsg.InitProducerID {
					w.fault(err, 1, "", key)
					require.Eventually(t, func() bool {
						var e error
						if l, e = w.begin(0, nil); e != nil {
							require.ErrorIs(t, e, delay.ErrUnavailable, "%v", err)
						}
						return e == nil
					}, time.Minute, time.Second)
				} else {
					l = w.mustBegin(0)
					w.fault(err, 1, "", key)
				}
				batch := messages("m", 3)
				finish(t, l, batch)
				once(t, w.read(outTopic), batch)
				w.listed()
			})
		}
	}
}

// A transaction that the coordinator gave up while its commit was under way may count as committed.
func TestExactTimedOutAtTheCoordinator(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		w.topic(outTopic, 1, nil)
		l := w.mustBegin(0)
		w.on(kmsg.EndTxn, 0, func() (done, cut bool) {
			w.cluster.SleepControl(func() { time.Sleep(35 * time.Second) })
			return true, false
		})
		batch := messages("m", 3)
		finish(t, l, batch)
		once(t, w.read(outTopic), batch)
		w.listed()
		time.Sleep(time.Minute) // until nothing sleeps in the cluster any more
	})
}

// Entries that are missing must stop everything: what they list would be sent again (R17).
func TestExactGap(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		w.topic(outTopic, 1, nil)
		l := w.mustBegin(0)
		for i := range 4 {
			requireAll(t, broker.Delivered, deliver(t, l, messages(fmt.Sprint("m", i, "-"), 1)))
		}
		require.EqualValues(t, 4, l.Last())
		l.kill()
		for after := range uint64(5) {
			var seen []uint64
			l, err := w.begin(after, func(n uint64, done []broker.Done) error {
				seen = append(seen, n)
				require.Equal(t, []broker.Done{
					{ID: delay.ID(fmt.Sprint("m", n-1, "-0")), Generation: 1},
				}, done)
				return nil
			})
			require.NoError(t, err)
			require.Len(t, seen, int(4-after))
			require.EqualValues(t, 4, l.Last())
			l.kill()
		}
		// A second ledger of the same content but for entry 3, as if compaction had taken it.
		records := w.read(DefaultLedgerTopic)
		w.topic("torn", 1, map[string]string{"cleanup.policy": "compact"})
		for _, r := range records {
			if string(r.Key) != string(ledger.EntryKey(ledger.Name("c-1", 0, "main"), 3)) {
				w.produce(&kgo.Record{Topic: "torn", Key: r.Key, Value: r.Value})
			}
		}
		for after, bad := range map[uint64]bool{0: true, 2: true, 3: false, 4: false} {
			l := w.newLife(func(c *SinkConfig) { c.LedgerTopic = "torn" })
			err := l.Recover(t.Context(), after, func(uint64, []broker.Done) error { return nil })
			if bad {
				require.ErrorIs(t, err, delay.ErrCorrupt, "after %d", after)
				requireAll(t, broker.Retry, deliver(t, l, messages("never", 1)))
			} else {
				require.NoError(t, err, "after %d", after)
			}
			l.kill()
		}
	})
}

// A ledger that vanished, or whose topic was made anew, must not be taken for an empty one.
func TestExactLedgerLost(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		w.topic(outTopic, 1, nil)
		l := w.mustBegin(0)
		requireAll(t, broker.Delivered, deliver(t, l, messages("m", 1)))
		l.kill()
		_, err := w.adm.DeleteTopics(t.Context(), DefaultLedgerTopic)
		require.NoError(t, err)
		_, err = w.begin(1, nil)
		require.ErrorIs(t, err, delay.ErrCorrupt)
	})
}

// What a manifest covers is removed, and only that; a manifest that is too old is found out.
func TestExactForget(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		w.topic(outTopic, 1, nil)
		l := w.mustBegin(0)
		for i := range 5 {
			requireAll(t, broker.Delivered, deliver(t, l, messages(fmt.Sprint("m", i, "-"), 1)))
		}
		require.NoError(t, l.Forget(t.Context(), 3))
		requireAll(t, broker.Delivered, deliver(t, l, messages("last", 1)))
		require.Len(t, w.entries(), 3)
		require.Equal(t, 3, l.Stats().Entries)
		l.kill()
		_, err := w.begin(2, nil)
		require.ErrorIs(t, err, delay.ErrCorrupt)
		var seen []uint64
		l, err = w.begin(3, func(n uint64, _ []broker.Done) error {
			seen = append(seen, n)
			return nil
		})
		require.NoError(t, err)
		require.Equal(t, []uint64{4, 5, 6}, seen)
		require.NoError(t, l.Forget(t.Context(), 6))
		requireAll(t, broker.Delivered, deliver(t, l, messages("more", 1)))
		require.Len(t, w.entries(), 1)
		l.kill()
		l, err = w.begin(7, nil)
		require.NoError(t, err)
		require.EqualValues(t, 7, l.Last())
	})
}

// A topic that could lose entries must be refused as a ledger.
func TestExactUnfitTopic(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		for name, prepare := range map[string]func(){
			"policy":     func() { w.topic("policy", 1, map[string]string{"cleanup.policy": "delete"}) },
			"both":       func() { w.topic("both", 1, map[string]string{"cleanup.policy": "compact,delete"}) },
			"partitions": func() { w.topic("partitions", 2, map[string]string{"cleanup.policy": "compact"}) },
		} {
			prepare()
			l := w.newLife(func(c *SinkConfig) { c.LedgerTopic = name })
			require.ErrorIs(t, l.Recover(t.Context(), 0, nil), delay.ErrInvalid, name)
		}
	})
}

// One target's trouble must not be another's (S9): they share transactions.
func TestExactTargetsApart(t *testing.T) {
	for _, err := range []*kerr.Error{
		kerr.NotEnoughReplicas, kerr.TopicAuthorizationFailed, kerr.InvalidRecord,
		kerr.UnknownTopicOrPartition,
	} {
		inBubble(t, func(t *testing.T, w *world) {
			w.topic(outTopic, 1, nil)
			w.topic("sick", 1, nil)
			l := w.mustBegin(0)
			w.fault(err, -1, "sick", kmsg.Produce)
			sick := messages("sick", 5)
			for i := range sick {
				sick[i].Target = "kafka:main/sick"
			}
			var both sync.WaitGroup
			both.Go(func() { require.Zero(t, outcomes(deliver(t, l, sick))[broker.Delivered]) })
			begin := time.Now()
			batch := messages("m", 5)
			requireAll(t, broker.Delivered, deliver(t, l, batch))
			require.Less(t, time.Since(begin), 4*time.Second)
			both.Wait()
			once(t, w.read(outTopic), batch)
			require.Empty(t, w.read("sick"))
		})
	}
}

// A topic whose leader never answers must not hold up the others for long, nor for ever.
func TestExactStuckTarget(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		w.topic(outTopic, 1, nil)
		w.topic("stuck", 1, nil)
		l := w.mustBegin(0)
		stuck := messages("stuck", 2)
		for i := range stuck {
			stuck[i].Target = "kafka:main/stuck"
		}
		release := make(chan struct{})
		defer close(release)
		w.fault(kerr.RequestTimedOut, -1, "stuck", kmsg.Produce)
		var both sync.WaitGroup
		both.Go(func() { require.Zero(t, outcomes(deliver(t, l, stuck))[broker.Delivered]) })
		synctest.Wait()
		batch := messages("m", 5)
		begin := time.Now()
		requireAll(t, broker.Delivered, deliver(t, l, batch))
		require.Less(t, time.Since(begin), 9*time.Second)
		both.Wait()
	})
}

// A Deliver that begins after Last has answered must be listed above: else a manifest covers what
// it does not hold.
func TestExactLast(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		w.topic(outTopic, 1, nil)
		l := w.mustBegin(0)
		var mu sync.Mutex
		base := map[delay.ID]uint64{}
		var lanes sync.WaitGroup
		for lane := range 6 {
			lanes.Go(func() {
				for i := range 20 {
					batch := messages(fmt.Sprintf("%d-%d-", lane, i), 3)
					if i == 7 {
						w.fault(kerr.InvalidTxnState, 1, "", kmsg.EndTxn)
					}
					for len(batch) > 0 {
						before := l.Last()
						mu.Lock()
						for _, d := range batch {
							base[d.ID] = before
						}
						mu.Unlock()
						results := deliver(t, l, batch)
						var again []broker.Delivery
						for n, r := range results {
							if r.Outcome != broker.Delivered {
								again = append(again, batch[n])
							}
						}
						batch = again
					}
				}
			})
		}
		lanes.Wait()
		for n, done := range w.entries() {
			for _, d := range done {
				require.Greater(t, n, base[d.ID], "%s", d.ID)
			}
		}
		w.listed()
	})
}

// Many small batches must share transactions: a commit costs more than a message.
func TestExactWindow(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		w.topic(outTopic, 1, nil)
		l := w.mustBegin(0)
		before := l.Stats().Committed
		begin := time.Now()
		var lanes sync.WaitGroup
		for i := range 50 {
			lanes.Go(func() {
				time.Sleep(time.Duration(i) * 4 * time.Millisecond)
				requireAll(t, broker.Delivered, deliver(t, l, messages(fmt.Sprint(i, "-"), 1)))
			})
		}
		lanes.Wait()
		took := time.Since(begin)
		require.LessOrEqual(t, l.Stats().Committed-before, uint64(took/DefaultWindow)+2)
		require.Less(t, took, 400*time.Millisecond)
	})
}

// An entry must stay below what a topic takes, however long the ids are.
func TestExactLongIDs(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		w.topic(outTopic, 1, nil)
		l := w.mustBegin(0)
		batch := messages(string(slices.Repeat([]byte("x"), delay.MaxIDBytes-5)), 5000)
		requireAll(t, broker.Delivered, deliver(t, l, batch))
		once(t, w.read(outTopic), batch)
		for _, r := range w.read(DefaultLedgerTopic) {
			require.LessOrEqual(t, len(r.Value), ledger.MaxBytes+32)
		}
		w.listed()
	})
}

// Before the ledger was read nothing may be sent: it may list what is asked for.
func TestExactBeforeRecover(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		w.topic(outTopic, 1, nil)
		l := w.newLife()
		requireAll(t, broker.Retry, deliver(t, l, messages("m", 2)))
		require.Empty(t, w.read(outTopic))
		l = w.newLife(func(c *SinkConfig) { c.Cluster = func() string { return "" } })
		require.ErrorIs(t, l.Recover(t.Context(), 0, nil), delay.ErrUnavailable)
	})
}
