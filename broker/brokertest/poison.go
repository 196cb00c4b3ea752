// SPDX-License-Identifier: Apache-2.0

package brokertest

import (
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/cicadamq/cicada/broker"
	"github.com/cicadamq/cicada/delay"
)

// What cannot be a request, and what the shard refuses for ever, must not stop the rest (B6).
func sourcePoison(t *testing.T, s *sourceRun) {
	poison := Sent{Value: []byte("nonsense"), Headers: []delay.Header{
		{Name: "cicada-nonsense", Value: "1"},
	}}
	refused := good(0, 0)
	refused.Headers[0].Value, refused.Value = RefusedPrefix+"1", []byte("refused")
	s.Append(t, 0, poison)
	s.send(t, 3)
	s.Append(t, 0, poison, refused)
	s.send(t, 2)
	s.Append(t, 0, poison)
	stop := s.start(t)
	s.awaitAll(t)
	const all = 3 + 5 + 1
	if s.Rejected != nil {
		require.Eventually(t, func() bool { return len(s.Rejected(t)) >= 4 }, patience,
			10*time.Millisecond)
	}
	if s.Acknowledged != nil {
		require.Eventually(t, func() bool { return s.Acknowledged(t, 0) == all }, patience,
			10*time.Millisecond, "the source does not go on behind the poison")
	}
	stop()
	s.check(t)
	if s.Rejected == nil {
		return
	}
	count := map[string]int{}
	for _, r := range s.Rejected(t) {
		count[string(r.Value)]++
		if string(r.Value) == "nonsense" {
			require.Contains(t, r.Error, "cicada-nonsense", "the error names the header")
		}
		require.NotEmpty(t, r.Error)
	}
	require.Equal(t, map[string]int{"nonsense": 3, "refused": 1}, count)
}

// A daemon that dies when the cursor has passed what was refused, and before it could do anything
// more, never sees those records again: their copies must be there (B6).
func sourcePoisonCrash(t *testing.T, s *sourceRun) {
	if s.Rejected == nil {
		t.Skip("no reject topic")
	}
	const n = 3
	for i := range n {
		refused := good(0, 0)
		refused.Headers[0].Value = fmt.Sprint(RefusedPrefix, i)
		refused.Value = []byte(refused.Headers[0].Value)
		s.Append(t, 0, refused)
	}
	s.send(t, 5)
	var dead atomic.Bool // with its answer on the way
	s.in.Script(func(_ int, b *broker.Batch) Fault {
		if dead.Load() {
			return Fault{Err: delay.ErrClosed}
		}
		for i := range b.Items {
			if b.Items[i].Err != nil {
				dead.Store(true)
				return Fault{Err: ErrUnknown, Stored: true}
			}
		}
		return Fault{}
	})
	stop := s.startFenced(t, delay.ErrClosed)
	require.Eventually(t, dead.Load, patience, time.Millisecond)
	stop()
	s.in.Script(nil)
	stop = s.start(t)
	s.awaitAll(t)
	stop()
	count := map[string]int{}
	for _, r := range s.Rejected(t) {
		count[string(r.Value)]++
	}
	for i := range n {
		require.NotZero(t, count[fmt.Sprint(RefusedPrefix, i)], "the copy of %d is lost", i)
	}
}
