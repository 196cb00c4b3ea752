// SPDX-License-Identifier: Apache-2.0

// Package metrics counts what the scheduler, the tier and the front end tell, and shows it to
// Prometheus. It is the only package that knows that library.
//
//	scheduler.Events, tiered.Events, server.Options.Rejected -> Set -> counters, histograms
//	Status(), Targets(), State(), Metrics()  <- at each scrape <- Set.Watch
//
// # Invariants
//
//	P1  Labels are bounded: a lane is pull:<queue>, log:, or the kind and host (or broker) of a
//	    target, and beyond maxLanes lanes "other"; all other labels are words of the code.
//	P2  A scrape takes no lock of a hot path longer than Status() does, and a source that is not
//	    there is left out, never shown as zero.
//
// A Set is safe for concurrent use. Its methods return at once.
package metrics

import (
	"errors"
	"net/http"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/cicadamq/cicada/delay"
	"github.com/cicadamq/cicada/scheduler"
	"github.com/cicadamq/cicada/scheduler/maintain"
	"github.com/cicadamq/cicada/tiered"
)

const namespace = "cicada"

// Bounds of the native histograms, which refine the classic buckets.
const (
	nativeFactor   = 1.1
	nativeBuckets  = 100
	nativeInterval = time.Hour
)

// latenessBuckets go from 1 ms to 60 s: the promise is about milliseconds, the worst a restart.
var latenessBuckets = []float64{
	.001, .002, .005, .01, .02, .05, .1, .2, .5, 1, 2, 5, 10, 20, 30, 60,
}

// ioBuckets go from a write into a cache to a time limit.
var ioBuckets = []float64{
	.0001, .0005, .001, .002, .005, .01, .02, .05, .1, .2, .5, 1, 2, 5, 10, 30,
}

// Set is the metrics of one process.
type Set struct {
	registry *prometheus.Registry
	lanes    lanes
	watcher  *watcher

	accepted, rejected, duplicates  *prometheus.CounterVec
	delivered, attempts, dead       *prometheus.CounterVec
	settled                         *prometheus.CounterVec
	cancelled, expired, fallback    prometheus.Counter
	clockSteps, firings, missed     prometheus.Counter
	lateness                        *prometheus.HistogramVec
	commit, sync, offload, hydrate  prometheus.Histogram
	tierRequests, tierBytes, writes *prometheus.CounterVec
	compactions, collected          *prometheus.CounterVec
	compacted                       prometheus.Counter
	orphans                         *prometheus.GaugeVec
	tierSeconds                     *prometheus.HistogramVec
}

// New is an empty set. version and revision describe the build.
func New(version, revision string) *Set {
	s := &Set{registry: prometheus.NewRegistry()}
	s.counters()
	s.histograms()
	build := prometheus.NewGaugeVec(gauge("build_info", "Always 1; describes the build."),
		[]string{"version", "revision"})
	build.WithLabelValues(version, revision).Set(1)
	s.watcher = newWatcher()
	s.registry.MustRegister(build, s.watcher, collectors.NewGoCollector(),
		collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return s
}

func (s *Set) counters() {
	vec := func(name, help string, labels ...string) *prometheus.CounterVec {
		v := prometheus.NewCounterVec(counter(name, help), labels)
		s.registry.MustRegister(v)
		return v
	}
	one := func(name, help string) prometheus.Counter {
		c := prometheus.NewCounter(counter(name, help))
		s.registry.MustRegister(c)
		return c
	}
	s.accepted = vec("accepted_total", "Messages accepted.", "source")
	s.rejected = vec("rejected_total",
		"Messages refused, and requests without the right credentials.", "source", "code")
	s.duplicates = vec("duplicates_suppressed_total",
		"Messages answered as repeated and not stored again.", "source")
	s.delivered = vec("delivered_total", "Messages delivered.", "lane")
	s.attempts = vec("attempts_total", "Attempts to deliver, by result.", "lane", "result")
	s.settled = vec("settled_total", "Answers to receipts of pull queues.", "lane", "kind", "result")
	s.dead = vec("dead_total", "Messages given up.", "lane", "reason")
	s.cancelled = one("cancelled_total", "Messages cancelled.")
	s.expired = one("expired_total", "Messages that expired before they were delivered.")
	s.firings = one("schedule_firings_total", "Messages made by recurring schedules.")
	s.missed = one("schedule_missed_total",
		"Firings that were due and not made, by their misfire policy.")
	s.fallback = one("tier_fallback_reads_total",
		"Messages whose body was read from the tier at delivery.")
	s.clockSteps = one("clock_step_total", "Forward steps of the wall clock that were held.")
	s.tierRequests = vec("tier_requests_total", "Attempts at the bucket.", "op", "code")
	s.tierBytes = vec("tier_bytes_total", "Bytes read from and written to the bucket.", "op")
	s.writes = vec("manifest_commits_total", "Commits of the manifest.", "result")
	s.compactions = vec("tier_compactions_total", "Compactions in the bucket, by what they were for.",
		"job", "result")
	s.compacted = one("tier_compacted_bytes_total", "Bytes of objects that compactions replaced.")
	s.collected = vec("tier_collected_total",
		"Objects that left the lists of the manifest, or the bucket.", "what")
	s.orphans = prometheus.NewGaugeVec(gauge("tier_orphans",
		"What no manifest lists and is old, as the last sweep found it."), []string{"unit"})
	s.registry.MustRegister(s.orphans)
}

func (s *Set) histograms() {
	s.lateness = prometheus.NewHistogramVec(histogram("lateness_seconds",
		"First attempt minus due.", latenessBuckets), []string{"lane"})
	s.tierSeconds = prometheus.NewHistogramVec(histogram("tier_request_seconds",
		"Time of one attempt at the bucket.", ioBuckets), []string{"op"})
	s.registry.MustRegister(s.lateness, s.tierSeconds)
	one := func(name, help string) prometheus.Histogram {
		h := prometheus.NewHistogram(histogram(name, help, ioBuckets))
		s.registry.MustRegister(h)
		return h
	}
	s.commit = one("commit_seconds", "Time to build and apply one local batch.")
	s.sync = one("wal_sync_seconds", "Time to sync the local log.")
	s.offload = one("offload_seconds", "Time of one upload to the tier, its commit included.")
	s.hydrate = one("hydrate_seconds", "Time to read one range back from the tier.")
}

func counter(name, help string) prometheus.CounterOpts {
	return prometheus.CounterOpts{Namespace: namespace, Name: name, Help: help}
}

func gauge(name, help string) prometheus.GaugeOpts {
	return prometheus.GaugeOpts{Namespace: namespace, Name: name, Help: help}
}

func histogram(name, help string, buckets []float64) prometheus.HistogramOpts {
	return prometheus.HistogramOpts{Namespace: namespace, Name: name, Help: help, Buckets: buckets,
		NativeHistogramBucketFactor: nativeFactor, NativeHistogramMaxBucketNumber: nativeBuckets,
		NativeHistogramMinResetDuration: nativeInterval}
}

// Handler serves the metrics to Prometheus.
func (s *Set) Handler() http.Handler {
	return promhttp.HandlerFor(s.registry, promhttp.HandlerOpts{Registry: s.registry})
}

// Events are the callbacks of a shard.
func (s *Set) Events() scheduler.Events {
	return scheduler.Events{
		Accepted: s.Accepted, Rejected: s.Rejected, Duplicate: s.Duplicate, Attempts: s.Attempts,
		Settled: s.Settled, Recurred: s.Recurred,
		Finished: s.Finished, Lateness: s.Lateness, Commit: s.Commit, Sync: s.Sync,
		Offload: s.Offload, Hydrate: s.Hydrate, Fallback: s.Fallback, ClockStep: s.ClockStep,
		Maintain: maintain.Events{Compact: s.Compact, Collect: s.Collect, Sweep: s.Sweep},
	}
}

// TierEvents are the callbacks of a tier.
func (s *Set) TierEvents() tiered.Events {
	return tiered.Events{Request: s.TierRequest, Commit: s.ManifestCommit}
}

// Accepted counts accepted messages.
func (s *Set) Accepted(source string, n int) {
	s.accepted.WithLabelValues(source).Add(float64(n))
}

// Rejected counts refused messages; code is Connect's.
func (s *Set) Rejected(source, code string, n int) {
	s.rejected.WithLabelValues(source, code).Add(float64(n))
}

// Duplicate counts repeated messages.
func (s *Set) Duplicate(source string, n int) {
	s.duplicates.WithLabelValues(source).Add(float64(n))
}

// Attempts counts attempts with one result.
func (s *Set) Attempts(target delay.Target, result string, n int) {
	s.attempts.WithLabelValues(s.lanes.label(target), result).Add(float64(n))
}

// Settled counts answers to receipts; results are shown in lower case, like other labels.
func (s *Set) Settled(target delay.Target, kind, result string, n int) {
	s.settled.WithLabelValues(s.lanes.label(target), kind, strings.ToLower(result)).Add(float64(n))
}

// Finished counts messages that reached a final state. The reason is shown for dead ones, cut to
// its first word: a receiver's answer is no label (P1).
func (s *Set) Finished(target delay.Target, state delay.State, reason string, n int) {
	switch state {
	case delay.Delivered:
		s.delivered.WithLabelValues(s.lanes.label(target)).Add(float64(n))
	case delay.Cancelled:
		s.cancelled.Add(float64(n))
	case delay.Expired:
		s.expired.Add(float64(n))
	case delay.Dead:
		s.dead.WithLabelValues(s.lanes.label(target), reasonLabel(reason)).Add(float64(n))
	}
}

// Lateness records the lateness of first attempts.
func (s *Set) Lateness(target delay.Target, lateness []time.Duration) {
	h := s.lateness.WithLabelValues(s.lanes.label(target))
	for _, d := range lateness {
		h.Observe(d.Seconds())
	}
}

// Commit records one local batch.
func (s *Set) Commit(d time.Duration, _ int) { s.commit.Observe(d.Seconds()) }

// Sync records one sync of the local log.
func (s *Set) Sync(d time.Duration) { s.sync.Observe(d.Seconds()) }

// Offload records one upload that succeeded; those that did not show in manifest_commits_total.
func (s *Set) Offload(d time.Duration, _ int, err error) {
	if err == nil {
		s.offload.Observe(d.Seconds())
	}
}

// Hydrate records one range read back.
func (s *Set) Hydrate(d time.Duration, _ int, err error) {
	if err == nil {
		s.hydrate.Observe(d.Seconds())
	}
}

// Fallback counts bodies read from the tier at delivery.
func (s *Set) Fallback(n int) { s.fallback.Add(float64(n)) }

// Recurred counts what schedules did at their dues; firings are accepted messages too.
func (s *Set) Recurred(fired int, missed uint64) {
	s.Accepted("schedule", fired)
	s.firings.Add(float64(fired))
	s.missed.Add(float64(missed))
}

// ClockStep counts held steps of the clock.
func (s *Set) ClockStep(time.Duration) { s.clockSteps.Inc() }

// TierRequest records one attempt at the bucket.
func (s *Set) TierRequest(op, code string, d time.Duration, bytes int64) {
	s.tierRequests.WithLabelValues(op, code).Inc()
	s.tierSeconds.WithLabelValues(op).Observe(d.Seconds())
	s.tierBytes.WithLabelValues(op).Add(float64(max(bytes, 0)))
}

// ManifestCommit counts one commit of the manifest.
func (s *Set) ManifestCommit(result string) { s.writes.WithLabelValues(result).Inc() }

// Compact records one compaction that did something or failed.
func (s *Set) Compact(c tiered.Compacted, _ time.Duration, err error) {
	result := "ok"
	if err != nil {
		result = "error"
	}
	s.compactions.WithLabelValues(c.Job, result).Inc()
	s.compacted.Add(float64(c.Read))
}

// Collect counts what one collection took away.
func (s *Set) Collect(c tiered.Collected, _ error) {
	for what, n := range map[string]int{
		"segments": len(c.Segments), "kept": len(c.Kept), "marks": len(c.Marks),
		"deleted": len(c.Deleted),
	} {
		s.collected.WithLabelValues(what).Add(float64(n))
	}
}

// Sweep records what one sweep found and deleted.
func (s *Set) Sweep(w tiered.Swept, err error) {
	s.collected.WithLabelValues("orphans").Add(float64(len(w.Deleted)))
	if err == nil {
		s.orphans.WithLabelValues("objects").Set(float64(len(w.Orphans)))
		s.orphans.WithLabelValues("bytes").Set(float64(w.Bytes))
	}
}

// Watch adds the sources that are read at each scrape. It is called once.
func (s *Set) Watch(sources Sources) error {
	if !s.watcher.sources.CompareAndSwap(nil, &sources) {
		return errors.New("watch metrics: already watching")
	}
	return nil
}
