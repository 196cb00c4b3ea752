// SPDX-License-Identifier: Apache-2.0

package daemon

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"time"

	"go.uber.org/zap"
	"golang.org/x/sync/errgroup"

	"github.com/cicadamq/cicada/delay"
	"github.com/cicadamq/cicada/internal/metrics"
	"github.com/cicadamq/cicada/scheduler"
)

const (
	// readyEvery is how often a start looks whether the shard accepts.
	readyEvery = 5 * time.Millisecond
	// leasesEvery is how often a drain looks whether consumers have settled their leases.
	leasesEvery = 20 * time.Millisecond
	// closeWithin bounds the end of connections after the drain (M3).
	closeWithin = time.Second
)

// errFatal says that the store may have lost its promise; nothing is closed after it (M2).
var errFatal = errors.New("local store failed")

// Run works until ctx is done, then drains and returns nil; or until something fails: another
// owner (delay.ErrFenced), the store, the listener. It closes everything.
func (d *Daemon) Run(ctx context.Context) error {
	g, running := errgroup.WithContext(context.WithoutCancel(ctx))
	if err := d.watch(running); err != nil {
		return errors.Join(err, d.close())
	}
	done := make(chan struct{}) // the drain is over
	g.Go(func() error { return d.shard.Run(running) })
	watching, stopWatching := context.WithCancel(running)
	reading, stopReading := context.WithCancel(running)
	read := make(chan struct{}) // the sources have ended
	g.Go(func() error {
		defer close(read)
		return d.links.Run(reading, d.shard.Intake())
	})
	g.Go(func() error { return d.links.Watch(watching) })
	g.Go(d.serve)
	g.Go(func() error { return d.announce(running, done) })
	g.Go(func() error {
		d.reloads(running, done)
		return nil
	})
	failed := make(chan error, 1)
	g.Go(func() error {
		select {
		case err := <-d.fatal:
			err = fmt.Errorf("%w: %w", errFatal, err)
			failed <- err
			return err
		case <-running.Done():
		case <-done:
		}
		return nil
	})
	g.Go(func() error {
		defer close(done)
		defer stopWatching()
		defer stopReading()
		select {
		case <-ctx.Done():
			return d.drain(context.WithoutCancel(ctx), func() { stopReading(); <-read })
		case <-running.Done():
			return d.http.Close()
		}
	})
	err := await(g, failed)
	if errors.Is(err, errFatal) {
		return explain(err, d.cfg)
	}
	return errors.Join(explain(err, d.cfg), d.close())
}

// await waits for the group, but not for long after the store has failed: a disk that does not
// answer holds its callers for ever, and the process would go on owning the shard (M2).
func await(g *errgroup.Group, failed <-chan error) error {
	var result error
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		result = g.Wait()
	}()
	select {
	case <-ended:
		return result
	case err := <-failed:
		late := time.NewTimer(closeWithin)
		defer late.Stop()
		select {
		case <-ended:
		case <-late.C:
		}
		return err
	}
}

// guardians tells how the guardians do.
func (d *Daemon) guardians() map[string]metrics.Guardian {
	all := make(map[string]metrics.Guardian)
	for name, st := range d.links.Guarded() {
		all[name] = metrics.Guardian{
			Lag: st.Lag, AtRisk: st.AtRisk, Endangered: st.Endangered, Rescued: st.Rescued,
			Uncertain: st.Uncertain, Missed: st.Missed, Unguarded: st.Unguarded,
			Suppressed: map[string]uint64{"delivered": st.Delivered, "recalled": st.Recalled},
		}
	}
	return all
}

// watch lets a scrape ask the components.
func (d *Daemon) watch(running context.Context) error {
	sources := metrics.Sources{
		Status:  d.shard.Status,
		Targets: func() ([]scheduler.TargetStatus, error) { return d.shard.Targets(running) },
		Store:   d.store.Metrics,
		Stale:   d.stale.Load, SourceLag: d.links.Lag,
		Guardians: d.guardians,
	}
	if d.certs != nil {
		sources.Certificate = func() time.Duration { return d.certs.Expiry().Sub(d.opts.Now()) }
	}
	if d.tier != nil {
		sources.Tier, sources.TierStats = d.tier.State, d.tier.Stats
	}
	return d.counts.Watch(sources)
}

func (d *Daemon) serve() error {
	var err error
	if d.cfg.TLS.Enabled() {
		err = d.http.ServeTLS(d.listen, "", "")
	} else {
		err = d.http.Serve(d.listen)
	}
	if errors.Is(err, http.ErrServerClosed) {
		return nil
	}
	return fmt.Errorf("serve %s: %w", d.cfg.Listen, err)
}

// announce writes the one line that says that the daemon accepts.
func (d *Daemon) announce(running context.Context, done <-chan struct{}) error {
	d.warn()
	tick := time.NewTicker(readyEvery)
	defer tick.Stop()
	for !d.shard.Status().Accepting {
		select {
		case <-running.Done():
			return nil
		case <-done:
			return nil
		case <-tick.C:
		}
	}
	s := d.shard.Status()
	d.log.Info("ready", zap.String("listen", d.Addr()), zap.String("data_dir", d.cfg.DataDir),
		zap.Stringer("bucket", d.cfg.Bucket), zap.String("cluster", s.ClusterID),
		zap.Uint32("epoch", uint32(s.Epoch)), zap.Int64("pending", s.Books.Pending),
		zap.String("version", d.opts.Version))
	return nil
}

// drain ends the work in the order of the package comment (M3).
func (d *Daemon) drain(ctx context.Context, endSources func()) error {
	d.log.Info("draining", zap.Duration("at_most", d.cfg.ShutdownTimeout))
	ctx, cancel := context.WithTimeout(ctx, d.cfg.ShutdownTimeout)
	defer cancel()
	d.server.Drain()
	endSources()
	d.awaitLeases(ctx)
	err := d.shard.Drain(ctx)
	last, stop := context.WithTimeout(context.WithoutCancel(ctx), closeWithin)
	defer stop()
	if d.http.Shutdown(last) != nil {
		err = errors.Join(err, d.http.Close())
	}
	if err == nil {
		d.log.Info("drained")
	}
	return err
}

// awaitLeases gives consumers half of the time to settle what they hold. Leases survive a restart;
// waiting only saves their holders a repeated request.
func (d *Daemon) awaitLeases(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, d.cfg.ShutdownTimeout/2)
	defer cancel()
	tick := time.NewTicker(leasesEvery)
	defer tick.Stop()
	for d.leased(ctx) {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// leased reports whether a puller holds a message.
func (d *Daemon) leased(ctx context.Context) bool {
	targets, err := d.shard.Targets(ctx)
	if err != nil {
		return false
	}
	for _, t := range targets {
		if t.Target.IsPull() && t.InFlight > 0 {
			return true
		}
	}
	return false
}

// Fenced reports whether err of Run means that another daemon owns the shard now.
func Fenced(err error) bool { return errors.Is(err, delay.ErrFenced) }
