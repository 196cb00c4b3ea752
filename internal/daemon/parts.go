// SPDX-License-Identifier: Apache-2.0

package daemon

import (
	"crypto/tls"
	"encoding/hex"
	"fmt"

	"go.uber.org/zap"

	"github.com/cicadamq/cicada/broker"
	"github.com/cicadamq/cicada/broker/logsink"
	"github.com/cicadamq/cicada/broker/webhook"
	"github.com/cicadamq/cicada/delay"
	"github.com/cicadamq/cicada/internal/config"
	"github.com/cicadamq/cicada/internal/server"
	"github.com/cicadamq/cicada/tiered/objstore"
)

// openSinks makes the sinks of the kinds of targets that this build has.
func (d *Daemon) openSinks() error {
	w := d.cfg.Webhooks
	secrets := make([]webhook.Secret, len(w.Secrets))
	for i, s := range w.Secrets {
		secrets[i] = webhook.Secret{ID: s.ID, Key: []byte(s.Key.Reveal())}
	}
	hooks, err := webhook.New(webhook.Options{
		Allow: w.Allow, AllowPrivate: w.AllowPrivate, Secrets: secrets, Timeout: w.Timeout,
		Version: d.opts.Version, Logger: d.log.Named("webhook"), Now: d.opts.Now,
	})
	if err != nil {
		return err
	}
	log := logsink.New(logsink.Options{Logger: d.log.Named("log")})
	d.sinks = map[string]broker.Sink{"http": hooks, "https": hooks, "log": log}
	return nil
}

// checkTarget asks the sink of a target whether it can ever work.
func (d *Daemon) checkTarget(t delay.Target) error {
	if c, ok := d.sinks[t.Kind()].(broker.Checker); ok {
		return c.Check(t)
	}
	return nil
}

func (d *Daemon) openServer() error {
	tokens, err := tokensOf(d.cfg.Tokens)
	if err != nil {
		return err
	}
	tier := d.tierInfo
	if d.tier == nil {
		tier = nil
	}
	d.server = server.New(d.shard, server.Options{
		Version: d.opts.Version, Durability: d.cfg.Durability,
		NoTier: d.cfg.Bucket.Kind == config.NoBucket, CheckTarget: d.checkTarget, Tokens: tokens,
		MaxInflightBytes: d.cfg.MaxInflight, Logger: d.log.Named("server"), Now: d.opts.Now,
		Metrics: d.counts.Handler(), Rejected: d.counts.Rejected, Tier: tier,
	})
	d.http = d.server.HTTPServer()
	if !d.cfg.TLS.Enabled() {
		return nil
	}
	pair, err := tls.LoadX509KeyPair(d.cfg.TLS.Cert, d.cfg.TLS.Key)
	if err != nil {
		return fmt.Errorf("api.tls: %w", err)
	}
	d.http.TLSConfig = &tls.Config{
		Certificates: []tls.Certificate{pair}, MinVersion: tls.VersionTLS12,
	}
	return nil
}

func tokensOf(configured []config.Token) ([]server.Token, error) {
	var tokens []server.Token
	for _, t := range configured {
		var token server.Token
		if _, err := hex.Decode(token.Hash[:], []byte(t.SHA256)); err != nil {
			return nil, fmt.Errorf("%w: api.tokens: %s: %w", delay.ErrInvalid, t.Name, err)
		}
		for _, word := range t.Scopes {
			scope, ok := server.ParseScope(word)
			if !ok {
				return nil, fmt.Errorf("%w: api.tokens: scope %q", delay.ErrInvalid, word)
			}
			token.Scopes |= scope
		}
		tokens = append(tokens, token)
	}
	return tokens, nil
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
	if d.cfg.OpenAPI {
		d.log.Warn("the api may be open to everybody: --insecure-open",
			zap.String("listen", d.cfg.Listen))
	}
}
