// SPDX-License-Identifier: Apache-2.0

package daemon

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"sync/atomic"
	"time"

	"go.uber.org/zap"

	"github.com/cicadamq/cicada/broker"
	"github.com/cicadamq/cicada/broker/webhook"
	"github.com/cicadamq/cicada/delay"
	"github.com/cicadamq/cicada/internal/config"
	"github.com/cicadamq/cicada/internal/daemon/brokers"
	"github.com/cicadamq/cicada/internal/daemon/certs"
	"github.com/cicadamq/cicada/internal/metrics"
	"github.com/cicadamq/cicada/internal/server"
	"github.com/cicadamq/cicada/internal/server/access"
	"github.com/cicadamq/cicada/internal/server/audit"
	"github.com/cicadamq/cicada/internal/server/limit"
	"github.com/cicadamq/cicada/internal/server/tierjson"
	"github.com/cicadamq/cicada/internal/server/wire"
	"github.com/cicadamq/cicada/localstore"
	"github.com/cicadamq/cicada/scheduler"
	"github.com/cicadamq/cicada/tiered"
	"github.com/cicadamq/cicada/tiered/objstore"
)

// StoreDir is where the local store of a data directory lives: beside the bucket, so that the
// one can be lost or set aside without the other.
func StoreDir(dataDir string) string { return filepath.Join(dataDir, "store") }

// Options are what a daemon needs besides its configuration.
type Options struct {
	Version  string
	Revision string // of the source, for build_info
	Logger   *zap.Logger
	Now      func() time.Time // the wall clock. Default time.Now
	// Load reads the configuration again. nil: it does not change, but the files of api.tls may.
	Load func() (*config.Config, error)
	// Hangup asks for a reload. nil: nobody does.
	Hangup <-chan os.Signal
	// ReloadEvery is how often files are looked at for changes. Default 2 s.
	ReloadEvery time.Duration
}

// Daemon is one process's worth of Cicada.
type Daemon struct {
	cfg    *config.Config
	opts   Options
	log    *zap.Logger
	listen net.Listener
	store  *localstore.Store
	bucket objstore.Bucket
	tier   *tiered.Tier
	probed atomic.Pointer[tierjson.Probed] // the trial of the bucket
	sinks  map[string]broker.Sink          // by the kind of target, of those that need no broker
	links  *brokers.Set
	rules  wire.Rules // of what sources bring
	shard  *scheduler.Shard
	counts *metrics.Set
	audit  *audit.Log
	gate   *access.Gate
	certs  *certs.Keeper // nil without TLS
	hooks  *webhook.Sink
	files  string      // the fingerprint of what was read at the start
	stale  atomic.Bool // the last reload was refused
	server *server.Server
	http   *http.Server
	fatal  chan error // capacity 1: the first fatal error of the store
	boot   func() time.Duration
}

// Open makes everything ready to run: it binds the listener, opens the store and the bucket, and
// takes the shard. The error names what to do.
func Open(ctx context.Context, cfg *config.Config, opts Options) (*Daemon, error) {
	if opts.Now == nil {
		opts.Now = time.Now
	}
	if opts.ReloadEvery == 0 {
		opts.ReloadEvery = reloadEvery
	}
	wall, boot, err := clocks(opts.Now)
	if err != nil {
		return nil, err
	}
	opts.Now = wall
	d := &Daemon{
		cfg: cfg, opts: opts, log: opts.Logger, fatal: make(chan error, 1), boot: boot,
		counts: metrics.New(opts.Version, opts.Revision),
	}
	d.files = fingerprint(d.watched(cfg)) // before a start that may take long
	if err := d.open(ctx); err != nil {
		return nil, errors.Join(explain(err, cfg), d.close())
	}
	return d, nil
}

func (d *Daemon) open(ctx context.Context) error {
	if err := d.openSinks(); err != nil {
		return err
	}
	var lc net.ListenConfig
	var err error
	if d.listen, err = lc.Listen(ctx, "tcp", d.cfg.Listen); err != nil {
		return fmt.Errorf("listen on %s: %w", d.cfg.Listen, err)
	}
	d.listen = limit.Listener(d.listen, d.cfg.MaxConnections)
	if err := private(d.cfg, d.listen.Addr()); err != nil {
		return err
	}
	if d.store, err = d.openStore(); err != nil {
		return err
	}
	if err := d.openTier(ctx); err != nil {
		return err
	}
	if err := d.openShard(ctx); err != nil {
		return err
	}
	return d.openServer()
}

// private refuses an address that others reach although the configuration took it for ours: the
// machine's names decide where localhost leads.
func private(cfg *config.Config, addr net.Addr) error {
	tcp, ok := addr.(*net.TCPAddr)
	if cfg.Guarded() || ok && tcp.IP.IsLoopback() {
		return nil
	}
	return fmt.Errorf("%w: api.listen: %s leads to %s, which is not a loopback address",
		delay.ErrInvalid, cfg.Listen, addr)
}

// ownDir makes the directory of the store the owner's alone, and refuses a link in place of its
// lock: opening it would make or cut a file elsewhere.
func ownDir(dir string) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("data directory: %w", err)
	}
	lock := filepath.Join(dir, "LOCK")
	if info, err := os.Lstat(lock); err == nil && !info.Mode().IsRegular() {
		return fmt.Errorf("%w: %s is no ordinary file", delay.ErrInvalid, lock)
	}
	return nil
}

func (d *Daemon) openStore() (*localstore.Store, error) {
	if err := ownDir(StoreDir(d.cfg.DataDir)); err != nil {
		return nil, err
	}
	reserve := d.cfg.ReserveBytes
	if reserve == 0 {
		reserve = -1 // the store's word for none
	}
	return localstore.Open(localstore.OS(), StoreDir(d.cfg.DataDir), localstore.Options{
		CacheBytes: d.cfg.CacheBytes, ReserveBytes: reserve,
		Logger: d.log.Named("localstore"),
		Fatal: func(err error) {
			select {
			case d.fatal <- err:
			default:
			}
		},
	})
}

// openTier opens the bucket. One that this data directory has used is not made when it is missing,
// and is not asked yet: the shard may start without its answer (rule R11).
func (d *Daemon) openTier(ctx context.Context) error {
	meta := d.store.Meta()
	known := meta.ManifestVersion > 0
	bucket, err := OpenBucket(ctx, d.cfg.Bucket, d.cfg.S3, !known)
	if err != nil || bucket == nil {
		return err
	}
	d.bucket = bucket
	opts := tiered.Options{
		ClusterID: d.cfg.ClusterID, Logger: d.log.Named("tiered"), Now: d.opts.Now,
		DeleteGrace: d.cfg.DeleteGrace, Events: d.counts.TierEvents(),
	}
	switch {
	case opts.ClusterID == "":
		opts.ClusterID = meta.ClusterID
	case meta.ClusterID != "" && opts.ClusterID != meta.ClusterID:
		return fmt.Errorf("%w: cluster.id is %s, and the data directory %s is of cluster %s",
			delay.ErrInvalid, opts.ClusterID, d.cfg.DataDir, meta.ClusterID)
	}
	if known {
		opts.Known, opts.TryOut = true, d.tryOut
	} else if err := d.tryOut(ctx); err != nil {
		return err
	}
	d.tier, err = tiered.Open(ctx, bucket, opts)
	return err
}

// openShard takes the shard. A store that the bucket has overtaken is set aside first (M4).
func (d *Daemon) openShard(ctx context.Context) error {
	opts := d.cfg.Scheduler
	opts.ClusterID = d.cfg.ClusterID
	var err error
	d.shard, err = scheduler.Open(ctx, d.parts(), opts)
	if !errors.Is(err, scheduler.ErrOldDisk) {
		return err
	}
	why := err
	if err := d.store.Close(); err != nil {
		return errors.Join(why, err)
	}
	d.store = nil
	dir := StoreDir(d.cfg.DataDir)
	suffix := ".set-aside-" + d.opts.Now().UTC().Format("20060102T150405.000Z")
	if err := localstore.SetAside(localstore.OS(), dir, suffix); err != nil {
		return errors.Join(why, err)
	}
	d.log.Warn("local store set aside, starting from the bucket", zap.String("dir", dir+suffix),
		zap.NamedError("reason", why),
		zap.String("never_uploaded", "cicada store import "+dir+suffix))
	if d.store, err = d.openStore(); err != nil {
		return err
	}
	d.shard, err = scheduler.Open(ctx, d.parts(), opts)
	return err
}

func (d *Daemon) parts() scheduler.Parts {
	var witness func() (remote, local time.Time, ok bool)
	if c, ok := d.bucket.(objstore.Clock); ok {
		witness = c.RemoteTime
	}
	return scheduler.Parts{
		Witness: witness, Store: d.store, Tier: d.tier, Logger: d.log.Named("scheduler"), Now: d.opts.Now,
		Boot: d.boot, Events: d.counts.Events(),
		Sinks: d.sinkOf, Check: d.checkTaken, Ledgers: d.links.Ledgers(),
		Guardians: d.links.Guardians(),
	}
}

// Addr is the address of the API.
func (d *Daemon) Addr() string { return d.listen.Addr().String() }

// close releases what open made, in the reverse order. It is used when nothing runs.
func (d *Daemon) close() error {
	var errs []error
	if d.listen != nil {
		if err := d.listen.Close(); !errors.Is(err, net.ErrClosed) {
			errs = append(errs, err)
		}
	}
	if d.tier != nil {
		errs = append(errs, d.tier.Close())
	}
	if d.bucket != nil {
		errs = append(errs, d.bucket.Close())
	}
	if d.store != nil {
		errs = append(errs, d.store.Close())
	}
	if d.audit != nil {
		errs = append(errs, d.audit.Close())
	}
	if d.links != nil {
		errs = append(errs, d.links.Close())
	}
	for _, kind := range []string{"https", "log"} { // http and https share one sink
		if s, ok := d.sinks[kind]; ok {
			errs = append(errs, s.Close())
		}
	}
	return errors.Join(errs...)
}
