// SPDX-License-Identifier: Apache-2.0

package scheduler

import (
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"
	"unsafe"

	"github.com/stretchr/testify/require"
	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"github.com/cicadamq/cicada/delay"
)

// A store that refuses every flush for days, or a range that cannot be read, must be one line in the
// log and another at its end: a line for each attempt hides all others. Each new trouble is told.
func TestTroubleIsToldOnce(t *testing.T) {
	core, logs := observer.New(zap.InfoLevel)
	work := trouble{log: zap.New(core), what: "flush"}
	for range 2 {
		for range 1000 {
			work.note(errors.New("status 403, ExpiredToken"))
			work.note(fmt.Errorf("%w: no answer", delay.ErrUnavailable)) // the tier tells this
		}
		work.note(nil)
		work.note(nil)
	}
	var lines []string
	for _, e := range logs.All() {
		lines = append(lines, e.Level.String()+" "+e.Message)
	}
	once := []string{
		"error background work fails, will be repeated", "info background work succeeds again",
	}
	require.Equal(t, append(once, once...), lines)
	require.Contains(t, logs.All()[0].ContextMap()["error"], "ExpiredToken")
}

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
