// SPDX-License-Identifier: Apache-2.0

package scheduler

import (
	"cmp"
	"time"

	"go.uber.org/zap"

	"github.com/cicadamq/cicada/broker"
	"github.com/cicadamq/cicada/delay"
	"github.com/cicadamq/cicada/localstore"
	"github.com/cicadamq/cicada/scheduler/clock"
	"github.com/cicadamq/cicada/scheduler/ledger"
	"github.com/cicadamq/cicada/tiered"
)

// Options are what an operator may tune; see docs/operations.md for the keys.
type Options struct {
	FlushInterval time.Duration // upload at least this often. Default 10 s
	MinWait       time.Duration // only messages that wait longer are uploaded. Default 60 s
	Horizon       time.Duration // how far ahead rows stay local. Default 24 h
	DropLag       time.Duration // a row is dropped this long after its upload. Default 15 min
	HotWindow     time.Duration // how far ahead the wheel is loaded. Default 60 s
	DedupeWindow  time.Duration // how long ids are remembered after the end. Default 24 h
	DeadRetention time.Duration // how long dead letters are kept. Default 30 d
	MaxAttempts   uint32        // default of messages that do not say; 0 is no limit
	Backoff       time.Duration // first pause between attempts. Default 1 s
	MaxBackoff    time.Duration // Default 10 min
	Window        int           // in flight per push lane. Default 1,000
	MaxPending    int64         // intake requests' bytes in the queue. Default 64 MiB
	IsolatedStop  bool          // tier.isolated: stop

	MaxPendingMessages int           // intake requests' messages in the queue. Default 200,000
	ClockMaxHold       time.Duration // a held clock step is followed after this. Default 5 min
	ClusterID          string        // of a new cluster without a bucket. Default: made

	CollectInterval time.Duration        // look for what the bucket need not hold. Default 10 min
	CompactRate     int64                // bytes a second; 0 is no limit
	Compact         tiered.CompactLimits // when to compact, and how much at once
}

// withDefaults fills what is zero.
func (o Options) withDefaults() Options {
	for _, d := range []struct {
		at    *time.Duration
		value time.Duration
	}{
		{&o.FlushInterval, 10 * time.Second},
		{&o.MinWait, time.Minute},
		{&o.Horizon, 24 * time.Hour},
		{&o.DropLag, 15 * time.Minute},
		{&o.HotWindow, time.Minute},
		{&o.DedupeWindow, 24 * time.Hour},
		{&o.DeadRetention, 30 * 24 * time.Hour},
		{&o.Backoff, time.Second},
		{&o.MaxBackoff, 10 * time.Minute},
		{&o.ClockMaxHold, 5 * time.Minute},
		{&o.CollectInterval, 10 * time.Minute},
	} {
		if *d.at == 0 {
			*d.at = d.value
		}
	}
	if o.Window == 0 {
		o.Window = 1000
	}
	if o.MaxPending == 0 {
		o.MaxPending = 64 << 20
	}
	o.MaxPendingMessages = cmp.Or(o.MaxPendingMessages, 200_000)
	return o
}

// Validate refuses what cannot work.
func (o Options) Validate() error {
	for _, d := range []struct {
		name  string
		value time.Duration
		least time.Duration
	}{
		{"tier.flush_interval", o.FlushInterval, 10 * time.Millisecond},
		{"tier.min_wait", o.MinWait, time.Millisecond},
		{"local.horizon", o.Horizon, time.Second},
		{"local.drop_lag", o.DropLag, time.Millisecond},
		{"local.hot_window", o.HotWindow, 100 * time.Millisecond},
		{"dedupe_window", o.DedupeWindow, time.Second},
		{"dead_letters.retention", o.DeadRetention, time.Second},
		{"delivery.backoff", o.Backoff, time.Millisecond},
		{"clock.max_hold", o.ClockMaxHold, time.Second},
		{"tier.collect_interval", o.CollectInterval, 10 * time.Millisecond},
	} {
		if d.value < d.least {
			return delay.Invalid(d.name, "%v is below the least value %v", d.value, d.least)
		}
	}
	if o.HotWindow > o.Horizon {
		return delay.Invalid("local.hot_window", "%v is above local.horizon %v", o.HotWindow,
			o.Horizon)
	}
	if o.MaxBackoff < o.Backoff {
		return delay.Invalid("delivery.max_backoff", "%v is below delivery.backoff %v",
			o.MaxBackoff, o.Backoff)
	}
	return nil
}

// Parts are the components a shard joins. Tier is nil for --bucket none, Boot may be nil in
// tests, Ledgers, Guardians, Check and Witness anywhere; the rest is required.
type Parts struct {
	Store  *localstore.Store
	Tier   *tiered.Tier
	Sinks  func(delay.Target) broker.Sink // nil result: no broker of that kind and name
	Logger *zap.Logger
	Now    func() time.Time     // the wall clock
	Boot   func() time.Duration // time since boot, suspend included (rule R21)
	Events Events
	// Ledgers are the sinks that deliver exactly once, by the part of a target before its slash.
	Ledgers map[string]ledger.Sink
	// Guardians judge the messages that belong to their brokers, by the part of a lane before its
	// slash, as in "guard:rmq"; those of other lanes wait.
	Guardians map[string]broker.Guardian
	// Check refuses what a source brings and can never be delivered, with a *delay.FieldError; nil
	// refuses nothing.
	Check func(*delay.Draft) error
	// Witness tells an independent time, such as the bucket's; nil is none (rule R21).
	Witness clock.Witness
}
