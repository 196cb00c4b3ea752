// SPDX-License-Identifier: Apache-2.0

package daemon

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"time"

	"go.uber.org/zap"

	"github.com/cicadamq/cicada/broker/webhook"
	"github.com/cicadamq/cicada/delay"
	"github.com/cicadamq/cicada/internal/config"
	"github.com/cicadamq/cicada/internal/daemon/certs"
	"github.com/cicadamq/cicada/internal/server/access"
	"github.com/cicadamq/cicada/internal/server/audit"
)

const (
	// reloadEvery is how often the files of the configuration are looked at. A change counts when
	// two looks in a row see the same, so that a file is not read while it is written.
	reloadEvery = 2 * time.Second
	// maxWatched bounds what is read of a file to see whether it has changed.
	maxWatched = 1 << 20
)

// reloads takes over changed tokens, certificates and signing keys until the daemon ends: at a
// hang-up signal, and when a file has changed (M6).
func (d *Daemon) reloads(running context.Context, done <-chan struct{}) {
	tick := time.NewTicker(d.opts.ReloadEvery)
	defer tick.Stop()
	names, used := d.watched(d.cfg), d.files
	before := used
	for {
		why := "files"
		select {
		case <-running.Done():
			return
		case <-done:
			return
		case <-d.opts.Hangup:
			why = "signal"
			if err := d.audit.Reopen(); err != nil {
				d.log.Error("audit not opened again", zap.Error(err))
			}
			before = fingerprint(names)
		case <-tick.C:
			now := fingerprint(names)
			steady := now == before
			if before = now; !steady || now == used {
				continue
			}
		}
		used = before
		if cfg, ok := d.reload(why); ok {
			if fresh := d.watched(cfg); !slices.Equal(fresh, names) {
				names = fresh
				used = fingerprint(names)
				before = used
			}
		}
	}
}

// watched are the files whose change counts.
func (d *Daemon) watched(cfg *config.Config) []string {
	names := slices.Clone(cfg.Files)
	for _, name := range []string{d.cfg.TLS.Cert, d.cfg.TLS.Key, d.cfg.TLS.ClientCA} {
		if name != "" {
			names = append(names, name)
		}
	}
	return names
}

// fingerprint changes with the contents of files. What is no ordinary file is not read: reading a
// pipe would take from it.
func fingerprint(names []string) string {
	sum := sha256.New()
	for _, name := range names {
		fmt.Fprintf(sum, "%q ", name)
		info, err := os.Stat(name)
		if err != nil || !info.Mode().IsRegular() {
			fmt.Fprint(sum, "none ")
			continue
		}
		f, err := os.Open(name)
		if err != nil {
			fmt.Fprint(sum, "closed ")
			continue
		}
		n, err := io.CopyN(sum, f, maxWatched)
		_ = f.Close()
		fmt.Fprintf(sum, " %d %t ", n, err == nil)
	}
	return hex.EncodeToString(sum.Sum(nil))
}

// reload takes over what may change while the daemon runs. A mistake is told once, and what was in
// use stays in use as a whole (M6).
func (d *Daemon) reload(why string) (*config.Config, bool) {
	cfg, err := d.tryReload()
	entry := audit.Entry{At: d.opts.Now(), Who: why, Action: "reload", Answer: "ok"}
	d.stale.Store(err != nil)
	if err != nil {
		entry.Answer, entry.Detail = "refused", err.Error()
		d.log.Error("reload refused, what was in use stays", zap.String("why", why), zap.Error(err))
	} else {
		d.log.Info("reloaded", zap.String("why", why), zap.Int("tokens", len(cfg.Tokens)),
			zap.Int("clients", len(cfg.Clients)))
		if keys := config.NeedRestart(d.cfg, cfg); len(keys) > 0 {
			d.log.Warn("changed settings that need a restart", zap.Strings("keys", keys))
		}
	}
	d.audit.Write(entry)
	return cfg, err == nil
}

// tryReload prepares everything before it exchanges anything.
func (d *Daemon) tryReload() (*config.Config, error) {
	cfg := d.cfg
	var err error
	if d.opts.Load != nil {
		if cfg, err = d.opts.Load(); err != nil {
			return nil, err
		}
	}
	var material *certs.Material
	if d.certs != nil {
		if material, err = certs.Read(tlsFiles(d.cfg)); err != nil {
			return nil, err
		}
		if err := material.Fresh(d.opts.Now()); err != nil {
			return nil, err
		}
	}
	may, err := credentials(cfg, material)
	if err != nil {
		return nil, err
	}
	if err := d.gate.Allows(may); err != nil {
		return nil, fmt.Errorf("api.tokens: %w", err)
	}
	if err := d.hooks.Use(signingKeys(cfg)); err != nil {
		return nil, err
	}
	if material != nil {
		d.certs.Use(material)
	}
	return cfg, d.gate.Set(may)
}

func tlsFiles(cfg *config.Config) certs.Files {
	t := cfg.TLS
	return certs.Files{Cert: t.Cert, Key: t.Key, ClientCA: t.ClientCA, Optional: t.Optional}
}

func signingKeys(cfg *config.Config) []webhook.Secret {
	secrets := make([]webhook.Secret, len(cfg.Webhooks.Secrets))
	for i, s := range cfg.Webhooks.Secrets {
		secrets[i] = webhook.Secret{ID: s.ID, Key: []byte(s.Key.Reveal())}
	}
	return secrets
}

// credentials are those of a configuration. material is nil without TLS.
func credentials(cfg *config.Config, material *certs.Material) (access.Credentials, error) {
	var c access.Credentials
	if material != nil {
		c.Authorities = material.Authorities
	}
	for _, t := range cfg.Tokens {
		token := access.Token{Name: t.Name}
		if n, err := hex.Decode(token.Hash[:], []byte(t.SHA256)); err != nil || n != len(token.Hash) {
			return c, fmt.Errorf("%w: api.tokens: %s: not a hash", delay.ErrInvalid, t.Name)
		}
		var err error
		if token.Scopes, token.Targets, err = grant(t.Scopes, t.Targets); err != nil {
			return c, fmt.Errorf("api.tokens: %s: %w", t.Name, err)
		}
		c.Tokens = append(c.Tokens, token)
	}
	for _, cl := range cfg.Clients {
		client := access.Client{Name: cl.Name}
		var err error
		if client.Scopes, client.Targets, err = grant(cl.Scopes, cl.Targets); err != nil {
			return c, fmt.Errorf("api.clients: %s: %w", cl.Name, err)
		}
		c.Clients = append(c.Clients, client)
	}
	return c, nil
}

func grant(words, patterns []string) (access.Scope, *delay.TargetSet, error) {
	var scopes access.Scope
	for _, word := range words {
		scope, ok := access.ParseScope(word)
		if !ok {
			return 0, nil, fmt.Errorf("%w: scope %q", delay.ErrInvalid, word)
		}
		scopes |= scope
	}
	targets, err := delay.NewTargetSet(patterns)
	return scopes, targets, err
}

// secretModes warns of files with secrets that others on the machine may read.
func (d *Daemon) secretModes() {
	var open []string
	for _, name := range d.cfg.SecretFiles {
		if info, err := os.Stat(name); err == nil && info.Mode().Perm()&0o004 != 0 {
			open = append(open, name)
		}
	}
	if len(open) > 0 {
		d.log.Warn("everybody on this machine can read these secrets; chmod 600",
			zap.String("files", strings.Join(open, " ")))
	}
}
