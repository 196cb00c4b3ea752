// SPDX-License-Identifier: Apache-2.0

package scheduler

import (
	"testing"
	"testing/synctest"
	"time"
	"unsafe"

	"github.com/stretchr/testify/require"

	"github.com/cicadamq/cicada/delay"
)

// A core that ended by itself must not let a request go whose drafts the committer still reads: the
// server takes their memory for the next request, and the message would be stored half as that.
func TestRequestOutlivesTheCore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &Shard{closed: make(chan struct{}), settled: make(chan struct{})}
		close(s.closed)
		done := make(chan error, 1)
		time.AfterFunc(time.Second, func() { done <- nil })
		start := time.Now()
		require.NoError(t, s.outcome(done, s.settled))
		require.Equal(t, time.Second, time.Since(start))
		close(s.settled)
		require.ErrorIs(t, s.outcome(done, s.settled), delay.ErrClosed)
	})
}

// The reason of a nack lies in the memory of its request, which the next request gets: what the lane
// remembers must be its own, or people are shown what others sent.
func TestReasonIsKept(t *testing.T) {
	inWorld(t, Options{}, func(w *world) {
		w.sendAll(1, "pull:q", 0)
		got := w.pull(1, time.Second)
		text := []byte("it is broken")
		reason := unsafe.String(unsafe.SliceData(text), len(text))
		w.settle(SettleRequest{Settlement: Nack, Reason: reason}, got...)
		copy(text, "somebody's s")
		lanes, err := w.Targets(t.Context())
		require.NoError(t, err)
		require.Equal(t, "it is broken", lanes[0].LastError)
	})
}
