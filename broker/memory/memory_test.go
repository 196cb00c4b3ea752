// SPDX-License-Identifier: Apache-2.0

package memory

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/cicadamq/cicada/broker"
	"github.com/cicadamq/cicada/broker/brokertest"
	"github.com/cicadamq/cicada/delay"
)

func batchOf(n int) ([]broker.Delivery, []broker.Result) {
	batch := make([]broker.Delivery, n)
	for i := range batch {
		batch[i] = broker.Delivery{
			ID: delay.ID(fmt.Sprintf("m%d", i)), Target: "memory:", Attempt: 1,
			Headers: []delay.Header{{Name: "n", Value: fmt.Sprint(i)}}, Body: fmt.Append(nil, i),
		}
	}
	return batch, make([]broker.Result, n)
}

// A lost reply must be told apart from a lost message: the truth is what was taken (M2).
func TestGroundTruth(t *testing.T) {
	answers := []Answer{
		{Result: broker.Result{Outcome: broker.Delivered}},
		{Result: broker.Result{Outcome: broker.Unknown}, Taken: true},
		{Result: broker.Result{Outcome: broker.Unknown}},
		{Result: broker.Result{Outcome: broker.Rejected, Reason: "no"}},
	}
	s := New(Options{Script: func(n int, _ broker.Delivery) Answer { return answers[n] }})
	batch, results := batchOf(4)
	s.Deliver(t.Context(), batch, results)
	for i, a := range answers {
		require.Equal(t, a.Result, results[i])
	}
	require.Equal(t, map[delay.ID]int{"m0": 1, "m1": 1}, s.Taken())
	log := s.Attempts()
	require.Len(t, log, 4)
	require.True(t, log[1].Taken)
	require.False(t, log[2].Taken)
	require.NoError(t, s.Close())
}

// The scheduler reuses its buffers after Deliver: the log must hold copies (M1).
func TestCopies(t *testing.T) {
	s := New(Options{})
	batch, results := batchOf(1)
	s.Deliver(t.Context(), batch, results)
	batch[0].Body[0] = 'x'
	batch[0].Headers[0].Value = "x"
	require.Equal(t, "0", string(s.Attempts()[0].Body))
	require.Equal(t, "0", s.Attempts()[0].Headers[0].Value)
}

// The log is bounded, but nothing beyond the bound may go uncounted.
func TestKeep(t *testing.T) {
	s := New(Options{Keep: 2})
	batch, results := batchOf(5)
	s.Deliver(t.Context(), batch, results)
	require.Len(t, s.Attempts(), 2)
	require.Equal(t, 5, s.Reached())
	require.Len(t, s.Taken(), 5)
}

// A held gate keeps every delivery out; a context that ends there leaves Unknown and no record.
func TestGate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := New(Options{})
		s.Hold()
		s.Hold()
		batch, results := batchOf(3)
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		s.Deliver(ctx, batch, results)
		require.Equal(t, broker.Unknown, results[0].Outcome)
		require.Zero(t, s.Reached())

		var wg sync.WaitGroup
		wg.Go(func() { s.Deliver(t.Context(), batch, results) })
		synctest.Wait()
		require.Zero(t, s.Reached())
		s.Release()
		s.Release()
		require.NoError(t, s.Wait(t.Context(), 3))
		wg.Wait()
		require.Equal(t, broker.Delivered, results[2].Outcome)
	})
}

// A slow receiver takes a message after Delay, a slow reply leaves it taken but Unknown.
func TestDelays(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := New(Options{Script: func(n int, _ broker.Delivery) Answer {
			return Answer{
				Result: broker.Result{Outcome: broker.Delivered},
				Delay:  time.Second, ReplyDelay: time.Duration(n) * time.Minute,
			}
		}})
		start := delay.InstantOf(time.Now())
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		batch, results := batchOf(3)
		s.Deliver(ctx, batch, results)
		require.Equal(t, broker.Delivered, results[0].Outcome)
		require.Equal(t, broker.Unknown, results[1].Outcome)
		log := s.Attempts()
		require.Len(t, log, 2, "the third was never begun")
		require.Equal(t, start.Add(time.Second), log[0].At)
		require.Equal(t, start.Add(2*time.Second), log[1].At)
		require.True(t, log[1].Taken)
		require.ErrorIs(t, s.Wait(ctx, 3), context.DeadlineExceeded)
	})
}

// A script looks at the sink it belongs to: a lock held around it would deadlock (M3).
func TestScriptUsesSink(t *testing.T) {
	var s *Sink
	s = New(Options{Script: func(n int, _ broker.Delivery) Answer {
		return Answer{Taken: s.Reached() == n && len(s.Taken()) == n}
	}})
	batch, results := batchOf(3)
	s.Deliver(t.Context(), batch, results)
	require.Len(t, s.Taken(), 3)
}

// Delivers of several lanes run at once: every one must be counted once.
func TestConcurrent(t *testing.T) {
	s := New(Options{})
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			batch, results := batchOf(50)
			s.Deliver(t.Context(), batch, results)
		})
	}
	require.NoError(t, s.Wait(t.Context(), 400))
	wg.Wait()
	for id, n := range s.Taken() {
		require.Equal(t, 8, n, "%s", id)
	}
}

// The suite's promises hold for the memory sink.
func TestConformance(t *testing.T) {
	brokertest.Run(t, func(*testing.T) brokertest.Subject {
		s := New(Options{Script: func(_ int, d broker.Delivery) Answer {
			switch brokertest.AnswerTo(d.ID) {
			case brokertest.Later:
				return Answer{Result: broker.Result{Outcome: broker.Retry, Reason: "later"}}
			case brokertest.Never:
				return Answer{Result: broker.Result{Outcome: broker.Rejected, Reason: "never"}}
			case brokertest.Silent:
				return Answer{Taken: true, ReplyDelay: time.Hour}
			default:
				return Answer{Result: broker.Result{Outcome: broker.Delivered}}
			}
		}})
		return brokertest.Subject{
			Sink: s, Target: "memory:", Refuses: true, Hangs: true,
			Received: func() (out []brokertest.Received) {
				for _, a := range s.Attempts() {
					if a.Taken {
						r := brokertest.Received{ID: a.ID, Attempt: a.Attempt, Body: a.Body}
						out = append(out, r)
					}
				}
				return out
			},
		}
	})
}
