// SPDX-License-Identifier: Apache-2.0

package server

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/cicadamq/cicada/delay"
	"github.com/cicadamq/cicada/internal/server/tierjson"
	"github.com/cicadamq/cicada/tiered"
	"github.com/cicadamq/cicada/tiered/objstore/probe"
)

// fakeTier is a tier with something to tell in every field.
func fakeTier() tierjson.Info {
	at := time.UnixMilli(int64(fakeNow))
	segment := tiered.SegmentInfo{Name: "l0/x", First: delay.Key{Due: fakeNow, Seq: 1},
		Last: delay.Key{Due: fakeNow + 5, Seq: 2}, Count: 2, Bytes: 100, Stored: 40,
		CommittedAt: fakeNow - 9}
	return tierjson.Info{
		Bucket: "s3://cold/p", State: tiered.State{
			Version: 7, WrittenAt: fakeNow - 1, NotUploaded: 1,
			Segments: []tiered.SegmentInfo{segment}, Marks: []tiered.SegmentInfo{{Count: 1, Stored: 9}},
			Deletes: []tiered.PendingDelete{{Name: "a", NotBefore: fakeNow + 8},
				{Name: "b", NotBefore: fakeNow + 7}},
		},
		Stats: tiered.Stats{
			Since: at.Add(-time.Hour), Accepted: 11, ManifestBytes: 300, BytesIn: 1, BytesOut: 2,
			Commits: 3, Requests: map[string]int64{"put/ok": 4, "list/ok": 1, "put/unknown": 2},
			Health: []tiered.Health{{Limit: 64}, {Class: 1, Paused: true, Since: at, Limit: 1}},
		},
		Probed:    &tierjson.Probed{Verdict: probe.Verdict{Conditions: true}, At: at},
		StoreTime: at, LocalTime: at.Add(-1500 * time.Millisecond),
	}
}

// What an operator decides by must be there, in a stable order, and a cluster without a bucket must
// say so.
func TestTier(t *testing.T) {
	now := func() time.Time { return time.UnixMilli(int64(fakeNow)) }
	code, out, _ := ask(t, New(newFake(), Options{Tier: fakeTier, Now: now}), "GET", "/v1/tier", "")
	require.Equal(t, 200, code)
	require.Equal(t, "2027-01-15T08:00:00.007Z", out["pending_deletes"].(map[string]any)["next"])
	requests := out["requests"].(map[string]any)
	require.InDelta(t, 3600, requests["seconds"], 0)
	var counts []any
	for _, c := range requests["counts"].([]any) {
		counts = append(counts, c.(map[string]any)["op"], c.(map[string]any)["count"])
	}
	require.Equal(t, []any{"list", 1.0, "put", 4.0, "put", 2.0}, counts)
	require.InDelta(t, -1500, out["store_clock"].(map[string]any)["system_ahead_ms"], 0)
	require.Len(t, out["probe"].(map[string]any)["steps"], 5)
	level := out["levels"].([]any)[1].(map[string]any)
	require.Equal(t, []any{"marks", "", ""}, []any{level["kind"], level["first_due"], level["oldest"]})

	code, out, _ = ask(t, New(newFake(), Options{}), "GET", "/v1/tier", "")
	require.Equal(t, 404, code)
	require.Contains(t, out["message"], "no bucket")
	code, out, _ = ask(t, New(newFake(), Options{Tier: func() tierjson.Info { return tierjson.Info{} }}), "GET",
		"/v1/tier", "")
	require.Equal(t, 200, code)
	require.Equal(t, []any{}, out["levels"])
	require.NotContains(t, out, "probe")
}
