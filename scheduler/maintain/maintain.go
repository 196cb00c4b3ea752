// SPDX-License-Identifier: Apache-2.0

package maintain

import (
	"context"
	"errors"
	"fmt"
	"time"

	"go.uber.org/zap"

	"github.com/cicadamq/cicada/delay"
	"github.com/cicadamq/cicada/tiered"
	"github.com/cicadamq/cicada/tiered/upkeep"
)

const (
	// sweepEvery is the time between two sweeps, which list everything.
	sweepEvery = 24 * time.Hour
	// busyLook and busyMost: a compaction looks so often whether a flush is still under way, and
	// goes on after so long whatever it sees, or steady flushes would starve it.
	busyLook = 10 * time.Millisecond
	busyMost = 500 * time.Millisecond
	// burst is how much unused rate a compaction may use at once.
	burst = time.Second
)

// Config is what a Maintainer works with. All but Events and Stepped must be set.
type Config struct {
	Tier            *tiered.Tier
	Log             *zap.Logger
	Now             func() delay.Due
	Boot            func() time.Duration
	CompactInterval time.Duration
	CollectInterval time.Duration
	CompactRate     int64 // bytes of records a second; 0 is no limit
	DedupeWindow    time.Duration
	Limits          tiered.CompactLimits
	Around          func(ctx context.Context, do func(context.Context) error) error
	Busy            func() bool // a flush is under way
	Over            func() bool // the shard is drained: nothing may begin or be committed
	Stepped         bool        // a simulation: nothing waits
	Events          Events
}

// Events tell what was done, for metrics. Every func may be nil.
type Events struct {
	// Compact tells of a compaction that did something, or failed.
	Compact func(c tiered.Compacted, d time.Duration, err error)
	Collect func(c tiered.Collected, err error)
	Sweep   func(s tiered.Swept, err error)
}

// Maintainer does the work of one shard.
type Maintainer struct {
	c      Config
	tokens float64       // bytes that may be compacted now; below zero: owed
	filled time.Duration // by the boot clock: when tokens was right
	failed map[string]bool
}

// New makes a Maintainer.
func New(c Config) *Maintainer {
	return &Maintainer{c: c, filled: c.Boot(), failed: make(map[string]bool)}
}

// errOver ends a compaction when the shard is drained.
var errOver = errors.New("maintain: the shard is drained")

// Run works until ctx is done, the shard is drained, or it is fenced.
func (m *Maintainer) Run(ctx context.Context) error {
	tick := time.NewTicker(min(m.c.CompactInterval, m.c.CollectInterval))
	defer tick.Stop()
	start := m.c.Boot()
	compact, collect, sweep := start, start+m.c.CollectInterval, start+m.c.CollectInterval
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		for _, w := range [...]struct {
			name  string
			at    *time.Duration
			every time.Duration
			do    func(context.Context) error
		}{
			{"compact", &compact, m.c.CompactInterval, m.compactAll},
			{"collect", &collect, m.c.CollectInterval, m.Collect},
			{"sweep", &sweep, sweepEvery, m.Sweep},
		} {
			if m.c.Boot() < *w.at || m.c.Over() {
				continue
			}
			err := w.do(ctx)
			*w.at = m.c.Boot() + w.every
			if err != nil && ctx.Err() == nil && ends(err) {
				return fmt.Errorf("%s: %w", w.name, err)
			}
			if ctx.Err() == nil {
				m.tell(w.name, err)
			}
		}
	}
}

// ends reports whether nothing more will succeed.
func ends(err error) bool {
	return errors.Is(err, delay.ErrFenced) || errors.Is(err, delay.ErrClosed)
}

// tell logs once when work begins to fail and once when it succeeds again. That the bucket does not
// answer is told by the tier.
func (m *Maintainer) tell(name string, err error) {
	switch {
	case err == nil && m.failed[name]:
		m.c.Log.Info("maintenance of the tier succeeds again", zap.String("what", name))
	case errors.Is(err, delay.ErrUnavailable):
		m.c.Log.Debug("maintenance of the tier waits for the bucket", zap.String("what", name),
			zap.Error(err))
		return
	case err != nil && !m.failed[name]:
		m.c.Log.Error("maintenance of the tier fails, will be repeated",
			zap.String("what", name), zap.Error(err))
	}
	m.failed[name] = err != nil
}

func (m *Maintainer) compactAll(ctx context.Context) error {
	for !m.c.Over() && ctx.Err() == nil {
		if more, err := m.Compact(ctx); err != nil || !more {
			return err
		}
	}
	return nil
}

// Compact does one compaction, if one is due; more says that another may be.
func (m *Maintainer) Compact(ctx context.Context) (more bool, err error) {
	if m.c.Over() {
		return false, nil
	}
	u, start := m.upkeep(), m.c.Boot()
	if !m.c.Stepped {
		u.Wait = m.wait
	}
	done, err := m.c.Tier.Compact(ctx, u)
	if errors.Is(err, errOver) {
		return false, nil
	}
	more = done.Job != upkeep.None.String()
	if m.c.Events.Compact != nil && (more || err != nil) {
		m.c.Events.Compact(done, m.c.Boot()-start, err)
	}
	return more, err
}

// Collect retires and deletes what is not needed.
func (m *Maintainer) Collect(ctx context.Context) error {
	done, err := m.c.Tier.Collect(ctx, m.upkeep())
	if errors.Is(err, errOver) {
		return nil
	}
	if m.c.Events.Collect != nil {
		m.c.Events.Collect(done, err)
	}
	return err
}

// Sweep looks for orphans, and deletes those that the sweep before had found.
func (m *Maintainer) Sweep(ctx context.Context) error {
	done, err := m.c.Tier.Sweep(ctx, m.upkeep())
	if errors.Is(err, errOver) {
		return nil
	}
	if m.c.Events.Sweep != nil {
		m.c.Events.Sweep(done, err)
	}
	return err
}

func (m *Maintainer) upkeep() tiered.Upkeep {
	return tiered.Upkeep{
		Now: m.c.Now, DedupeWindow: m.c.DedupeWindow, Limits: m.c.Limits,
		Around: func(ctx context.Context, do func(context.Context) error) error {
			return m.c.Around(ctx, func(ctx context.Context) error {
				if m.c.Over() {
					return errOver
				}
				return do(ctx)
			})
		},
	}
}

// wait holds a compaction to its rate, and back while a flush is under way.
func (m *Maintainer) wait(ctx context.Context, bytes int64) error {
	for began := m.c.Boot(); m.c.Busy() && m.c.Boot()-began < busyMost; {
		if err := sleep(ctx, busyLook); err != nil {
			return err
		}
	}
	if m.c.Over() {
		return errOver
	}
	if m.c.CompactRate <= 0 {
		return ctx.Err()
	}
	rate, now := float64(m.c.CompactRate), m.c.Boot()
	m.tokens = min(m.tokens+rate*(now-m.filled).Seconds(), rate*burst.Seconds())
	m.filled = now
	if m.tokens -= float64(bytes); m.tokens >= 0 {
		return ctx.Err()
	}
	return sleep(ctx, time.Duration(-m.tokens/rate*float64(time.Second)))
}

func sleep(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}
