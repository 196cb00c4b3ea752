// SPDX-License-Identifier: Apache-2.0

package scheduler

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/cicadamq/cicada/delay"
	"github.com/cicadamq/cicada/tiered"
	"github.com/cicadamq/cicada/tiered/objstore"
)

// upkeepOften is quick with maintenance all the time.
func upkeepOften() Options {
	o := quick()
	o.DedupeWindow, o.CollectInterval = 20*time.Second, 3*time.Second
	o.Compact = tiered.CompactLimits{Objects: 2, Overlap: 2, TargetBytes: 4 << 10, LeastBytes: 1 << 10}
	return o
}

func levels(s tiered.State) (fresh, merged int) {
	for i := range s.Segments {
		if s.Segments[i].Level == 0 {
			fresh++
		} else {
			merged++
		}
	}
	return fresh, merged
}

// Marks come back in the order of their keys. What is remembered of an id must be what became of
// its last message, also when that was due before the first (S4).
func TestRestoreLastOfID(t *testing.T) {
	inWorld(t, quick(), func(w *world) {
		first := w.draft("pull:q", 200*time.Second, "first")
		first.ID = "x"
		w.send(first)
		require.Equal(t, Cancelled, w.change("x", Cancel, 0).Verdict)
		second := w.draft("pull:q", 100*time.Second, "second")
		second.ID, second.Replace = "x", true
		require.EqualValues(t, 2, w.send(second).Generation)
		require.Equal(t, Cancelled, w.change("x", Cancel, 0).Verdict)
		w.pass(3 * time.Second)
		w.crash()
		w.loseDisk()
		w.open()
		w.pass(5 * time.Second)
		second.Replace = false
		r := w.send(second)
		require.True(t, r.Duplicate)
		require.EqualValues(t, 2, r.Generation)
		require.Equal(t, delay.Cancelled, r.State)
	})
}

// A running shard must keep its bucket small, believe its own disk after each crash although
// maintenance writes manifests too (rule R10), and neither lose a message nor bring one back. In the
// end nothing is left but the manifest.
func TestMaintain(t *testing.T) {
	for name, disk := range map[string]bool{"crash": true, "disk lost": false} {
		t.Run(name, func(t *testing.T) {
			inWorld(t, upkeepOften(), func(w *world) {
				w.drain()
				w.grace = 70 * time.Second
				w.open()
				want := make(map[delay.ID]int)
				for i := range 40 {
					d := w.draft("pull:q", time.Duration(30+3*i)*time.Second, "x")
					d.Durability = delay.Tier
					if i%4 == 0 {
						d.ID = delay.ID("client-" + string(rune('a'+i)))
					}
					id := w.send(d).ID
					w.pass(400 * time.Millisecond)
					if i%5 == 3 {
						require.Equal(t, Cancelled, w.change(id, Cancel, 0).Verdict)
						continue
					}
					want[id] = 1
				}
				fresh, merged := levels(w.tier.State())
				require.LessOrEqual(t, fresh, 4)
				require.Positive(t, merged)
				for range 3 {
					w.crash()
					if !disk {
						w.loseDisk()
					}
					w.open()
					w.pass(2 * time.Second)
				}
				require.Equal(t, want, w.drainQueue(time.Minute))
				w.pass(w.grace)
				var names []string
				require.NoError(t, w.bucket.List(t.Context(), "", func(i objstore.Info) bool {
					names = append(names, i.Key)
					return true
				}))
				require.Len(t, names, 2, "%s", names) // the manifest, and which cluster's it is
				require.Empty(t, w.tier.State().Deletes)
				w.books()
			})
		})
	}
}
