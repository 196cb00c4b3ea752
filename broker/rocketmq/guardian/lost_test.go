// SPDX-License-Identifier: Apache-2.0

package guardian

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/cicadamq/cicada/broker/rocketmq/fakebroker"
	"github.com/cicadamq/cicada/delay"
)

// guards are those of the pending messages, by their ids.
func (s *shard) guards() (out []*delay.Guard) {
	for _, id := range s.pending() {
		s.mu.Lock()
		out = append(out, s.rows[id].draft.Guard)
		s.mu.Unlock()
	}
	return out
}

// A user may change a message only when its broker has lost it undelivered: not while it holds it,
// not when it delivered it and lost the copy afterwards, and not when it does not answer (rule R19).
func TestLostToUsers(t *testing.T) {
	inWorld(t, fakebroker.Options{}, all(), func(t *testing.T, w *world) {
		w.send(0, 1, "level", level(4))
		w.send(0, 2, "timer", timerAt(w.now().Add(40*time.Second)))
		w.pass(5 * time.Second)
		guards := w.shard.guards()
		require.Len(t, guards, 2)
		require.Equal(t, []bool{false, false}, w.g.Lost(t.Context(), guards))
		w.expire(0)
		w.pass(time.Second)
		require.Equal(t, []bool{true, true}, w.g.Lost(t.Context(), guards))
		strange := &delay.Guard{Lane: "guard:other/broker-a", Entry: guards[0].Entry}
		garbage := &delay.Guard{Lane: guards[0].Lane, Entry: "?"}
		require.Equal(t, []bool{false, true, false},
			w.g.Lost(t.Context(), []*delay.Guard{strange, guards[1], garbage}))
	})
	inWorld(t, fakebroker.Options{}, all(), func(t *testing.T, w *world) {
		w.send(0, 1, "level", level(3))
		w.pass(5 * time.Second)
		guards := w.shard.guards()
		w.pass(5500 * time.Millisecond) // the broker delivers, the shard has not asked yet
		require.Len(t, w.copies("level"), 1)
		w.cluster.Broker(0).Expire(w.copies("level")[0].Physical)
		require.Equal(t, []bool{false}, w.g.Lost(t.Context(), guards))
		w.cluster.Broker(0).Stop()
		require.Equal(t, []bool{false}, w.g.Lost(t.Context(), guards))
	})
}
