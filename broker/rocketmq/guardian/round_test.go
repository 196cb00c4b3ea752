// SPDX-License-Identifier: Apache-2.0

package guardian

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/cicadamq/cicada/broker"
	"github.com/cicadamq/cicada/broker/rocketmq/fakebroker"
	"github.com/cicadamq/cicada/broker/rocketmq/remoting"
)

// judgeEach asks about every pending message in a call of its own, all at once.
func (w *world) judgeEach(ctx context.Context) (fates map[broker.Fate]int) {
	var wg sync.WaitGroup
	var mu sync.Mutex
	fates = map[broker.Fate]int{}
	for _, batch := range w.shard.due() {
		for i := range batch {
			wg.Go(func() {
				judgments := make([]broker.Judgment, 1)
				w.g.Judge(ctx, batch[i:i+1], judgments)
				mu.Lock()
				defer mu.Unlock()
				fates[judgments[0].Fate]++
			})
		}
	}
	wg.Wait()
	return fates
}

// rounded is a world in which n messages are due that their broker has delivered.
func rounded(t *testing.T, n int, do func(w *world, looks *atomic.Int64)) {
	inWorld(t, fakebroker.Options{}, all(), func(_ *testing.T, w *world) {
		due := w.now().Add(10 * time.Second)
		for i := range n {
			w.send(0, int32(i%4), fmt.Sprint("m", i), timerAt(due))
		}
		w.idle(11 * time.Second)
		w.cluster.Broker(0).Deliver()
		w.idle(all().Grace)
		var looks atomic.Int64
		w.cluster.Broker(0).OnRequest(func(c *remoting.Command) fakebroker.Fault {
			if c.Code == remoting.RequestMinOffset && c.Fields["topic"] == remoting.TopicTimer {
				looks.Add(1)
			}
			return fakebroker.Fault{}
		})
		defer w.cluster.Broker(0).OnRequest(nil)
		do(w, &looks)
	})
}

// Messages become due millisecond by millisecond, a call for each: a broker that was asked about
// each would have nothing else to do. They share a look, and each gets its judgment.
func TestCallsShareALook(t *testing.T) {
	rounded(t, 300, func(w *world, looks *atomic.Int64) {
		start := time.Now()
		require.Equal(t, map[broker.Fate]int{broker.Suppressed: 300}, w.judgeEach(w.t.Context()))
		require.EqualValues(t, 1, looks.Load())
		require.Less(t, time.Since(start), 2*gatherFor)
	})
}

// A round has an end: what would wait behind thousands of others is looked for beside them.
func TestRoundsAreBounded(t *testing.T) {
	const n = 2*mostTogether + 1
	rounded(t, n, func(w *world, looks *atomic.Int64) {
		require.Equal(t, map[broker.Fate]int{broker.Suppressed: n}, w.judgeEach(w.t.Context()))
		require.EqualValues(t, 3, looks.Load())
	})
}

// The end of the shard ends the calls that gather, undecided.
func TestRoundEndsWithTheShard(t *testing.T) {
	rounded(t, 20, func(w *world, looks *atomic.Int64) {
		ctx, cancel := context.WithTimeout(w.t.Context(), gatherFor/2)
		defer cancel()
		start := time.Now()
		require.Equal(t, map[broker.Fate]int{broker.Held: 20}, w.judgeEach(ctx))
		require.Less(t, time.Since(start), gatherFor)
		require.Zero(t, looks.Load())
	})
}
