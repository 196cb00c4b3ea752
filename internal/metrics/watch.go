// SPDX-License-Identifier: Apache-2.0

package metrics

import (
	"maps"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/cicadamq/cicada/localstore"
	"github.com/cicadamq/cicada/scheduler"
	"github.com/cicadamq/cicada/tiered"
	"github.com/cicadamq/cicada/tiered/manifest"
)

// Sources are asked at each scrape. A nil source is left out (P2).
type Sources struct {
	Status  func() scheduler.Status
	Targets func() ([]scheduler.TargetStatus, error)
	Tier    func() tiered.State
	// TierStats tells how the requests to the bucket do.
	TierStats func() tiered.Stats
	Store     func() localstore.Metrics
	// Certificate tells how long the certificate of the API is still valid.
	Certificate func() time.Duration
	// Stale tells whether the last reload was refused.
	Stale func() bool
	// SourceLag tells how far each intake source is behind, in messages, by its name.
	SourceLag func() map[string]int64
	// Guardians tells how the guardians do, by the names of their brokers.
	Guardians func() map[string]Guardian
}

// watcher reads the sources at each scrape.
type watcher struct {
	sources atomic.Pointer[Sources]
	descs   map[string]*prometheus.Desc
}

// watched are the metrics of the sources: name, help, label.
var watched = [...][3]string{
	{"pending", "Messages that wait, by storage level.", "tier"},
	{"pending_bytes", "Bytes of the messages that wait, by storage level.", "tier"},
	{"due_lag_seconds", "How far the low watermark is behind the clock."},
	{"low_watermark_seconds", "The instant below which every message is finished or parked, " +
		"as Unix time."},
	{"hydrate_margin_seconds", "How far ahead of the clock everything is held locally."},
	{"oldest_not_uploaded_seconds", "Age of the oldest message that is not in the tier yet."},
	{"disk_free_bytes", "Free space where the local store lies."},
	{"clock_hold", "1 while a step of the clock is held."},
	{"clock_hold_reason", "1 with the reason why the clock is held.", "reason"},
	{"lane_inflight", "Messages handed out and not settled.", "lane"},
	{"lane_backlog", "Messages due and waiting.", "lane"},
	{"lane_paused", "1 while the lane is paused.", "lane"},
	{"lane_open", "1 while the lane's breaker is open.", "lane"},
	{"tier_segments", "Objects that the manifest lists, by level.", "level"},
	{"tier_stored_bytes", "Bytes of the objects that the manifest lists, by level.", "level"},
	{"tier_breaker", "1 while requests of the class are refused, because the bucket does not " +
		"answer.", "class"},
	{"tier_request_limit", "How many requests of the class may be under way.", "class"},
	{"manifest_bytes", "Size of the manifest."},
	{"source_lag", "Messages a source has not read yet.", "source"},
	{"tls_expiry_seconds", "Time until the certificate of the API expires."},
	{"reload_failed", "1 while the last reload of the configuration was refused."},
	{"accepting", "1 while messages are accepted."},
	{"books", "Messages by outcome; accepted equals the sum of the others.", "outcome"},
}

func newWatcher() *watcher {
	w := &watcher{descs: map[string]*prometheus.Desc{}}
	add := func(name, help string, labels ...string) {
		w.descs[name] = prometheus.NewDesc(namespace+"_"+name, help, labels, nil)
	}
	for _, m := range watched {
		if m[2] != "" {
			add(m[0], m[1], m[2])
		} else {
			add(m[0], m[1])
		}
	}
	for _, m := range storeGauges(localstore.Metrics{}) {
		add(m.name, m.help)
	}
	maps.Copy(w.descs, guardianDescs())
	return w
}

// Describe implements prometheus.Collector.
func (w *watcher) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range w.descs {
		ch <- d
	}
}

// Collect implements prometheus.Collector.
func (w *watcher) Collect(ch chan<- prometheus.Metric) {
	src := w.sources.Load()
	if src == nil {
		return
	}
	gauge := func(name string, v float64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(w.descs[name], prometheus.GaugeValue, v, labels...)
	}
	if src.Status != nil {
		collectStatus(gauge, src.Status())
	}
	if src.Targets != nil {
		collectTargets(gauge, src.Targets)
	}
	if src.Tier != nil {
		collectTier(gauge, src.Tier())
	}
	if src.TierStats != nil {
		collectTierStats(gauge, src.TierStats())
	}
	if src.Certificate != nil {
		gauge("tls_expiry_seconds", src.Certificate().Seconds())
	}
	if src.Stale != nil {
		gauge("reload_failed", flag(src.Stale()))
	}
	if src.SourceLag != nil {
		for name, lag := range src.SourceLag() {
			gauge("source_lag", float64(lag), name)
		}
	}
	if src.Guardians != nil {
		for name, g := range src.Guardians() {
			collectGuardian(ch, w.descs, name, &g)
		}
	}
	if src.Store != nil {
		for _, m := range storeGauges(src.Store()) {
			kind := prometheus.GaugeValue
			if m.counter {
				kind = prometheus.CounterValue
			}
			ch <- prometheus.MustNewConstMetric(w.descs[m.name], kind, m.value)
		}
	}
}

type gaugeFunc func(name string, v float64, labels ...string)

func collectStatus(gauge gaugeFunc, st scheduler.Status) {
	for _, l := range [...]struct {
		name string
		scheduler.LevelStatus
	}{{"hot", st.Hot}, {"warm", st.Warm}, {"cold", st.Cold}} {
		gauge("pending", float64(l.Messages), l.name)
		gauge("pending_bytes", float64(l.Bytes), l.name)
	}
	now := st.Clock.Now
	gauge("low_watermark_seconds", float64(st.Watermark.Due)/1000)
	gauge("due_lag_seconds", max(0, now.Sub(st.Watermark.Due).Seconds()))
	gauge("hydrate_margin_seconds", st.Boundary.Due.Sub(now).Seconds())
	gauge("oldest_not_uploaded_seconds", st.OldestNotUploaded.Seconds())
	gauge("disk_free_bytes", float64(st.DiskFreeBytes))
	gauge("clock_hold", flag(st.Clock.Held))
	if st.Clock.Held {
		gauge("clock_hold_reason", 1, reasonLabel(st.Clock.Reason))
	}
	gauge("accepting", flag(st.Accepting))
	b := st.Books
	for _, v := range [...]struct {
		outcome string
		n       int64
	}{{"accepted", b.Accepted}, {"pending", b.Pending}, {"delivered", b.Delivered},
		{"cancelled", b.Cancelled}, {"expired", b.Expired}, {"dead", b.Dead},
		{"suppressed", b.Suppressed}, {"lost_with_disk", b.LostWithDisk}} {
		gauge("books", float64(v.n), v.outcome)
	}
}

// collectTargets adds up the targets that share a label: the paths of a host.
func collectTargets(gauge gaugeFunc, targets func() ([]scheduler.TargetStatus, error)) {
	list, err := targets()
	if err != nil {
		return // shutting down: nothing to show
	}
	type sum struct {
		inFlight, backlog float64
		paused, open      bool
	}
	sums := map[string]sum{}
	for _, t := range list {
		label := laneOf(t.Target)
		if _, ok := sums[label]; !ok && len(sums) >= maxLanes {
			label = otherLane
		}
		s := sums[label]
		sums[label] = sum{s.inFlight + float64(t.InFlight), s.backlog + float64(t.Backlog),
			s.paused || t.Paused, s.open || t.Open}
	}
	for label, s := range sums {
		gauge("lane_inflight", s.inFlight, label)
		gauge("lane_backlog", s.backlog, label)
		gauge("lane_paused", flag(s.paused), label)
		gauge("lane_open", flag(s.open), label)
	}
}

func collectTier(gauge gaugeFunc, st tiered.State) {
	objects := map[string]float64{"0": 0, "1": 0, "kept": 0, "marks": 0}
	stored := maps.Clone(objects)
	for _, g := range st.Groups() {
		level := g.Kind
		if g.Kind == manifest.KindSegment {
			level = strconv.Itoa(int(g.Level))
		}
		objects[level] += float64(g.Objects)
		stored[level] += float64(g.Stored)
	}
	for level, n := range stored {
		gauge("tier_stored_bytes", n, level)
	}
	objects["deleting"] = float64(len(st.Deletes)) // of those only the names are known
	for level, n := range objects {
		gauge("tier_segments", n, level)
	}
}

func collectTierStats(gauge gaugeFunc, st tiered.Stats) {
	for _, h := range st.Health {
		gauge("tier_breaker", flag(h.Paused), h.Class.String())
		gauge("tier_request_limit", float64(h.Limit), h.Class.String())
	}
	if st.ManifestBytes > 0 {
		gauge("manifest_bytes", float64(st.ManifestBytes))
	}
}

func flag(on bool) float64 {
	if on {
		return 1
	}
	return 0
}

// storeGauge is one number of the local store.
type storeGauge struct {
	name, help string
	value      float64
	counter    bool
}

func storeGauges(m localstore.Metrics) []storeGauge {
	g := func(name, help string, v int64) storeGauge {
		return storeGauge{"pebble_" + name, help, float64(v), false}
	}
	c := func(name, help string, v int64) storeGauge {
		return storeGauge{"pebble_" + name + "_total", help, float64(v), true}
	}
	return []storeGauge{
		g("disk_bytes", "Bytes on disk, log included.", m.DiskBytes),
		g("wal_bytes", "Bytes of live logs.", m.WALBytes),
		g("memtable_bytes", "Bytes of memtables.", m.MemTableBytes),
		g("cache_bytes", "Bytes of the block cache.", m.CacheBytes),
		c("cache_hits", "Reads answered by the block cache.", m.CacheHits),
		c("cache_misses", "Reads that went past the block cache.", m.CacheMisses),
		g("read_amplification", "Sorted runs a read may look at.", m.ReadAmplification),
		g("l0_files", "Files in the top level.", m.L0Files),
		g("compaction_debt_bytes", "Bytes that wait to be compacted.", m.CompactionDebt),
		c("compactions", "Compactions done.", m.Compactions),
		c("flushes", "Flushes of memtables.", m.Flushes),
		c("wal_in_bytes", "Bytes given to the log.", m.BytesIn),
		c("flushed_bytes", "Bytes written by flushes.", m.BytesFlushed),
		c("compacted_bytes", "Bytes written by compactions.", m.BytesCompacted),
		g("tombstones", "Deletions that are not compacted away yet.", m.Tombstones),
		c("write_stalls", "Times writes had to wait for compactions.", m.WriteStalls),
		c("slow_disk_events", "Disk operations that took very long.", m.SlowDiskEvents),
		c("background_errors", "Errors of background work.", m.BackgroundErrors),
		c("corruptions", "Reads that met damage.", m.Corruptions),
		c("id_reads", "Lookups of ids that the filter could not answer.", m.IDReads),
		g("id_filter_bytes", "Bytes of the filter of ids.", m.IDFilterBytes),
		g("witness_behind_batches", "Batches that the durability witness does not cover yet.",
			int64(m.WitnessBehindBatch)),
	}
}
