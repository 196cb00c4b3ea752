// SPDX-License-Identifier: Apache-2.0

package daemon

import (
	"go.uber.org/zap"

	"github.com/cicadamq/cicada/broker"
	"github.com/cicadamq/cicada/broker/logsink"
	"github.com/cicadamq/cicada/broker/webhook"
	"github.com/cicadamq/cicada/delay"
	"github.com/cicadamq/cicada/internal/config"
	"github.com/cicadamq/cicada/internal/daemon/brokers"
	"github.com/cicadamq/cicada/internal/daemon/certs"
	"github.com/cicadamq/cicada/internal/server"
	"github.com/cicadamq/cicada/internal/server/access"
	"github.com/cicadamq/cicada/internal/server/audit"
	"github.com/cicadamq/cicada/internal/server/wire"
	"github.com/cicadamq/cicada/tiered/objstore"
)

// openSinks makes the sinks of the kinds of targets that this build has.
func (d *Daemon) openSinks() error {
	w := d.cfg.Webhooks
	hooks, err := webhook.New(webhook.Options{
		Allow: w.Allow, AllowPrivate: w.AllowPrivate, Secrets: signingKeys(d.cfg), Timeout: w.Timeout,
		Version: d.opts.Version, Logger: d.log.Named("webhook"), Now: d.opts.Now,
	})
	if err != nil {
		return err
	}
	d.hooks = hooks
	log := logsink.New(logsink.Options{Logger: d.log.Named("log")})
	d.sinks = map[string]broker.Sink{"http": hooks, "https": hooks, "log": log}
	d.rules = wire.Rules{
		HasBroker:   func(kind, name string) bool { return d.links.Has(kind, name) },
		CheckTarget: d.checkTarget,
		ExactlyOnce: func(t delay.Target) bool { return d.links.ExactlyOnce(t) },
	}
	d.links, err = brokers.Open(d.cfg.Brokers, d.cfg.Bucket.Kind != config.NoBucket,
		func() string { return d.store.Meta().ClusterID }, brokers.Options{
			Version: d.opts.Version, Logger: d.log.Named("broker"), Now: d.opts.Now,
			CheckTarget: d.rules.Target,
		})
	return err
}

// sinkOf is the sink of a target, nil if no broker has that name.
func (d *Daemon) sinkOf(t delay.Target) broker.Sink {
	if s, ok := d.sinks[t.Kind()]; ok {
		return s
	}
	return d.links.Sink(t)
}

// checkTarget asks the sink of a target whether it can ever work.
func (d *Daemon) checkTarget(t delay.Target) error {
	if c, ok := d.sinkOf(t).(broker.Checker); ok {
		return c.Check(t)
	}
	return nil
}

// checkTaken refuses what a source brings and the API would refuse, too. What is guarded is sent by
// its guardian, to whatever topic its broker would have.
func (d *Daemon) checkTaken(draft *delay.Draft) error {
	if draft.Guard != nil {
		return nil
	}
	if err := d.rules.Target(draft.Target); err != nil {
		return err
	}
	return d.rules.Mode(draft)
}

func (d *Daemon) openServer() error {
	if err := d.openAccess(); err != nil {
		return err
	}
	tier := d.tierInfo
	if d.tier == nil {
		tier = nil
	}
	d.server = server.New(d.shard, server.Options{
		Version: d.opts.Version, Durability: d.cfg.Durability,
		NoTier: d.cfg.Bucket.Kind == config.NoBucket, CheckTarget: d.checkTarget, Gate: d.gate,
		HasBroker: d.rules.HasBroker, ExactlyOnce: d.rules.ExactlyOnce,
		Audit: d.audit.Write, MaxInflightBytes: d.cfg.MaxInflight, MaxPolls: d.cfg.MaxPolls,
		Logger: d.log.Named("server"),
		Now:    d.opts.Now, Metrics: d.counts.Handler(), Rejected: d.counts.Rejected, Tier: tier,
	})
	d.http = d.server.HTTPServer()
	if d.certs != nil {
		d.http.TLSConfig = d.certs.Config()
	}
	return nil
}

// openAccess reads who may come in.
func (d *Daemon) openAccess() error {
	var material *certs.Material
	var err error
	if d.cfg.TLS.Enabled() {
		if material, err = certs.Read(tlsFiles(d.cfg)); err != nil {
			return err
		}
		d.certs = certs.NewKeeper(material)
		if err := material.Fresh(d.opts.Now()); err != nil {
			d.log.Warn("clients will refuse the certificate", zap.Error(err))
		}
	}
	may, err := credentials(d.cfg, material)
	if err != nil {
		return err
	}
	d.gate = access.NewGate(may, d.opts.Now)
	d.audit, err = audit.Open(d.cfg.AuditFile, d.log.Named("audit"))
	return err
}

// warn tells once what an operator should know of this configuration.
func (d *Daemon) warn() {
	b := d.cfg.Bucket
	switch {
	case b.Kind == config.NoBucket:
		d.log.Warn("there is no bucket: the loss of this disk loses every message")
	case b.Kind == config.FileBucket && sameDisk(d.cfg.DataDir, b.Dir):
		d.log.Warn("the bucket is on the same disk as the data: it survives no disk loss",
			zap.String("bucket", b.Dir))
	}
	if _, ok := d.bucket.(objstore.Clock); !ok {
		d.log.Info("the system clock is trusted: there is no remote bucket to compare it with")
	}
	d.secretModes()
	if d.cfg.OpenAPI {
		d.log.Warn("the api may be open to everybody: --insecure-open",
			zap.String("listen", d.cfg.Listen))
	}
}
