// SPDX-License-Identifier: Apache-2.0

package metrics

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/cicadamq/cicada/delay"
	"github.com/cicadamq/cicada/localstore"
	"github.com/cicadamq/cicada/scheduler"
	"github.com/cicadamq/cicada/tiered"
	"github.com/cicadamq/cicada/tiered/manifest"
)

// contract is section 6 of the contract: the names and labels that dashboards and alerts use.
const contract = `accepted_total{source} rejected_total{source,code} delivered_total{lane} attempts_total{lane,result}
cancelled_total expired_total dead_total{lane,reason} duplicates_suppressed_total{source} pending{tier}
pending_bytes{tier} lateness_seconds{lane} due_lag_seconds low_watermark_seconds commit_seconds
wal_sync_seconds offload_seconds hydrate_seconds hydrate_margin_seconds oldest_not_uploaded_seconds
tier_fallback_reads_total tier_segments{level} tier_requests_total{op,code} tier_request_seconds{op}
tier_bytes_total{op} manifest_commits_total{result} lane_inflight{lane} lane_backlog{lane}
source_lag{source} disk_free_bytes schedule_firings_total schedule_missed_total clock_step_total clock_hold build_info{version,revision}
rocketmq_mirror_lag_seconds{broker} rocketmq_at_risk_messages{broker} rocketmq_rescued_total{broker}
rocketmq_suppressed_total{broker,reason} rocketmq_uncertain_total{broker} rocketmq_missed_total{broker}`

// filled is a set in which everything has happened.
func filled(t *testing.T) *Set {
	s := New("v1", "abc")
	e, te := s.Events(), s.TierEvents()
	e.Accepted("api", 3)
	e.Rejected("api", "invalid_argument", 2)
	e.Duplicate("api", 1)
	e.Attempts("pull:q", "delivered", 4)
	e.Finished("pull:q", delay.Delivered, "", 4)
	e.Finished("pull:q", delay.Cancelled, "", 1)
	e.Finished("pull:q", delay.Expired, "", 1)
	e.Settled("pull:q", "ack", "SUPERSEDED", 2)
	e.Finished("https://h:8080/path?q=1", delay.Dead, "rejected: 404", 1)
	e.Lateness("pull:q", []time.Duration{time.Millisecond, 3 * time.Second})
	e.Commit(time.Millisecond, 10)
	e.Sync(time.Millisecond)
	e.Offload(time.Second, 1, nil)
	e.Offload(time.Hour, 1, errors.New("x"))
	e.Hydrate(time.Second, 1, nil)
	e.Fallback(2)
	e.Recurred(2, 1)
	e.ClockStep(time.Hour)
	te.Request("put", "ok", time.Millisecond, 100)
	te.Commit("ok")
	e.Maintain.Compact(tiered.Compacted{Job: "fresh", Read: 100}, time.Second, nil)
	e.Maintain.Collect(tiered.Collected{Deleted: []string{"x"}}, nil)
	e.Maintain.Sweep(tiered.Swept{Orphans: []string{"x"}, Bytes: 5}, nil)
	require.NoError(t, s.Watch(Sources{
		Status: func() scheduler.Status {
			return scheduler.Status{Hot: scheduler.LevelStatus{Messages: 1, Bytes: 2}, Watermark: delay.Key{Due: 5000},
				Boundary: delay.Key{Due: 65000}, OldestNotUploaded: time.Second, DiskFreeBytes: 7, Accepting: true,
				Clock: scheduler.ClockStatus{Now: 6000, Held: true, Reason: "step of 1h"}, Books: delay.Books{Accepted: 9, Suppressed: 2}}
		},
		Targets: func() ([]scheduler.TargetStatus, error) {
			return []scheduler.TargetStatus{{Target: "https://h/a", InFlight: 1, Backlog: 2},
				{Target: "https://h/b", InFlight: 2, Backlog: 3, Paused: true}}, nil
		},
		Tier: func() tiered.State {
			return tiered.State{Segments: []manifest.SegmentInfo{{Level: 0}, {Level: 1, Stored: 5}, {Level: 1, Stored: 6}}}
		},
		TierStats: func() tiered.Stats {
			return tiered.Stats{ManifestBytes: 12,
				Health: []tiered.Health{{Limit: 64}, {Class: 1, Paused: true, Limit: 2}}}
		},
		Store:     func() localstore.Metrics { return localstore.Metrics{DiskBytes: 11} },
		SourceLag: func() map[string]int64 { return map[string]int64{"kafka:main/t": 4} },
		Guardians: func() map[string]Guardian {
			return map[string]Guardian{"rmq": {
				Lag: 1500 * time.Millisecond, AtRisk: 1, Endangered: 2, Rescued: 3, Uncertain: 4,
				Missed: 5, Unguarded: 6, Suppressed: map[string]uint64{"delivered": 7, "recalled": 8},
			}}
		},
	}))
	return s
}

// Each metric of the contract must exist with its labels and a help text, or dashboards break.
func TestContract(t *testing.T) {
	families, err := filled(t).registry.Gather()
	require.NoError(t, err)
	got := map[string]string{}
	for _, f := range families {
		require.NotEmpty(t, f.GetHelp(), f.GetName())
		var labels []string
		for _, l := range f.GetMetric()[0].GetLabel() {
			labels = append(labels, l.GetName())
		}
		got[f.GetName()] = strings.Join(labels, ",")
	}
	for want := range strings.FieldsSeq(contract) {
		name, labels, _ := strings.Cut(strings.TrimSuffix(want, "}"), "{")
		have, ok := got["cicada_"+name]
		require.True(t, ok, "%s is not there", name)
		require.ElementsMatch(t, strings.Split(labels, ","), strings.Split(have, ","), name)
	}
}

// The numbers must arrive where they belong.
func TestValues(t *testing.T) {
	s := filled(t)
	rec := httptest.NewRecorder()
	s.Handler().ServeHTTP(rec, httptest.NewRequest(http.MethodGet, "/metrics", nil))
	require.Equal(t, 200, rec.Code)
	text, err := io.ReadAll(rec.Body)
	require.NoError(t, err)
	for _, want := range []string{
		`cicada_accepted_total{source="api"} 3`,
		`cicada_rejected_total{code="invalid_argument",source="api"} 2`,
		`cicada_settled_total{kind="ack",lane="pull:q",result="superseded"} 2`,
		`cicada_dead_total{lane="https://h:8080",reason="rejected"} 1`,
		`cicada_lateness_seconds_bucket{lane="pull:q",le="0.001"} 1`,
		`cicada_lateness_seconds_bucket{lane="pull:q",le="60"} 2`,
		`cicada_offload_seconds_count 1`,
		`cicada_pending{tier="hot"} 1`,
		`cicada_due_lag_seconds 1`,
		`cicada_hydrate_margin_seconds 59`,
		`cicada_low_watermark_seconds 5`,
		`cicada_lane_inflight{lane="https://h"} 3`,
		`cicada_lane_backlog{lane="https://h"} 5`,
		`cicada_lane_paused{lane="https://h"} 1`,
		`cicada_tier_segments{level="1"} 2`,
		`cicada_tier_segments{level="kept"} 0`,
		`cicada_tier_bytes_total{op="put"} 100`,
		`cicada_tier_stored_bytes{level="1"} 11`,
		`cicada_tier_stored_bytes{level="marks"} 0`,
		`cicada_tier_breaker{class="read"} 0`,
		`cicada_tier_breaker{class="write"} 1`,
		`cicada_tier_request_limit{class="write"} 2`,
		`cicada_manifest_bytes 12`,
		`cicada_clock_hold 1`,
		`cicada_clock_hold_reason{reason="step"} 1`,
		`cicada_books{outcome="accepted"} 9`,
		`cicada_books{outcome="suppressed"} 2`,
		`cicada_pebble_disk_bytes 11`,
		`cicada_source_lag{source="kafka:main/t"} 4`,
		`cicada_rocketmq_mirror_lag_seconds{broker="rmq"} 1.5`,
		`cicada_rocketmq_at_risk_messages{broker="rmq"} 1`,
		`cicada_rocketmq_endangered_queues{broker="rmq"} 2`,
		`cicada_rocketmq_rescued_total{broker="rmq"} 3`,
		`cicada_rocketmq_uncertain_total{broker="rmq"} 4`,
		`cicada_rocketmq_missed_total{broker="rmq"} 5`,
		`cicada_rocketmq_unguarded_total{broker="rmq"} 6`,
		`cicada_rocketmq_suppressed_total{broker="rmq",reason="delivered"} 7`,
		`cicada_rocketmq_suppressed_total{broker="rmq",reason="recalled"} 8`,
		`cicada_build_info{revision="abc",version="v1"} 1`,
	} {
		require.Contains(t, string(text), want+"\n")
	}
	require.Error(t, s.Watch(Sources{}), "watching twice would show one of two shards")
}

// Without sources a scrape must still work: the process may be starting (P2).
func TestNoSources(t *testing.T) {
	s := New("v1", "abc")
	require.NoError(t, s.Watch(Sources{Targets: func() ([]scheduler.TargetStatus, error) { return nil, delay.ErrClosed }}))
	families, err := s.registry.Gather()
	require.NoError(t, err)
	for _, f := range families {
		require.NotEqual(t, "cicada_pending", f.GetName())
	}
}

// Labels must stay bounded however many targets and reasons there are (P1).
func TestCardinality(t *testing.T) {
	for target, want := range map[delay.Target]string{
		"pull:orders": "pull:orders", "log:": "log:", "http://h:1/a?b": "http://h:1", "https://[::1]:80/": "https://[::1]:80",
		"kafka:main/topic": "kafka:main", "nats:n1/a.b": "nats:n1", "http://\x7f": "other", "": "", "pull:\xff": "pull:?",
	} {
		require.Equal(t, want, laneOf(target), string(target))
	}
	for reason, want := range map[string]string{"": "other", "rejected: 404": "rejected", "Stopped": "stopped",
		"404 not found": "other", strings.Repeat("x", 99): "other", "out of attempts": "out", "<html>": "other"} {
		require.Equal(t, want, reasonLabel(reason), reason)
	}
	s := New("v1", "abc")
	for i := range 3 * maxLanes {
		s.Attempts(delay.Target(fmt.Sprintf("http://h%d/x", i)), "delivered", 1)
		s.Attempts(delay.Target(fmt.Sprintf("http://h%d/x", i)), "delivered", 1)
	}
	families, err := s.registry.Gather()
	require.NoError(t, err)
	for _, f := range families {
		require.LessOrEqual(t, len(f.GetMetric()), maxLanes+1, f.GetName())
		if f.GetName() == "cicada_attempts_total" {
			for _, m := range f.GetMetric() {
				if m.GetLabel()[0].GetValue() == otherLane {
					require.Equal(t, float64(4*maxLanes), m.GetCounter().GetValue())
				}
			}
		}
	}
}

// Lateness is recorded on the fire path: 100,000 due at once must not be slowed down by it.
func BenchmarkLateness1000(b *testing.B) {
	s := New("v1", "abc")
	batch := make([]time.Duration, 1000)
	for i := range batch {
		batch[i] = time.Duration(i) * 100 * time.Microsecond
	}
	b.ReportAllocs()
	for b.Loop() {
		s.Lateness("pull:orders", batch)
	}
}
