// SPDX-License-Identifier: Apache-2.0

package config

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"path/filepath"
	"slices"
	"strings"

	"github.com/cicadamq/cicada/delay"
)

// FileVariable names the file when no --config flag does.
const FileVariable = "CICADA_CONFIG"

// Sources are where settings come from; weaker first: default, file, variables, flags.
type Sources struct {
	File     string // "" is none
	ReadFile func(name string) ([]byte, error)
	Env      func(name string) (string, bool)
	Flags    map[string]string // by flag name, only those that were given
}

// Mistake is one thing wrong with the configuration.
type Mistake struct {
	Source string // file:line, the variable or the flag
	Key    string // "" when it is not about one key
	Reason string
}

// Error is "cicada.yaml:3: tier.min_wait: reason".
func (m Mistake) Error() string {
	parts := []string{m.Source, m.Key, m.Reason}
	return strings.Join(slices.DeleteFunc(parts, func(s string) bool { return s == "" }), ": ")
}

// Mistakes are all that was found wrong (G2), in the order of the sources.
type Mistakes []Mistake

// Error is one mistake a line.
func (m Mistakes) Error() string {
	lines := make([]string, len(m))
	for i := range m {
		lines[i] = m[i].Error()
	}
	return strings.Join(lines, "\n")
}

// Unwrap makes errors.Is(err, delay.ErrInvalid) true.
func (Mistakes) Unwrap() error { return delay.ErrInvalid }

// loader collects values and mistakes. origin remembers where each key was last set.
type loader struct {
	src      Sources
	cfg      *Config
	rows     map[string]*Setting // by key
	origin   map[string]string
	tiers    []Mistake // places that ask for a bucket, without a reason yet
	mistakes Mistakes
}

// Load reads the configuration. The error is Mistakes, or the one of reading the file.
func Load(src Sources) (*Config, error) {
	l := &loader{
		src: src, cfg: &Config{File: src.File}, rows: make(map[string]*Setting),
		origin: make(map[string]string),
	}
	table := Settings()
	for i := range table {
		row := &table[i]
		l.rows[row.Key] = row
		if err := row.set(l.cfg, row.Default); err != nil {
			panic("BUG: default of " + row.Key + ": " + err.Error())
		}
	}
	if src.File != "" {
		body, err := l.read(src.File)
		if err != nil {
			return nil, fileError(src.File, err)
		}
		l.file(body)
	}
	for i := range table {
		row := &table[i]
		if v, ok := src.Env(row.Env); ok && v != "" {
			l.set(row, row.Env, v)
		}
	}
	for i := range table {
		row := &table[i]
		if v, ok := src.Flags[row.Flag]; ok && row.Flag != "" {
			l.set(row, "--"+row.Flag, v)
		}
	}
	l.finish()
	if len(l.mistakes) > 0 {
		return nil, l.mistakes
	}
	return l.cfg, nil
}

func fileError(name string, err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("%w: there is no configuration file %s", delay.ErrInvalid, name)
	}
	return fmt.Errorf("read configuration: %w", err)
}

func (l *loader) set(row *Setting, source, v string) {
	l.origin[row.Key] = source
	if row.Secret {
		resolved, err := l.resolve(v)
		if err != nil {
			l.wrong(source, row.Key, err.Error())
			return
		}
		v = resolved
	}
	if err := row.set(l.cfg, v); err != nil {
		l.wrong(source, row.Key, err.Error())
	}
}

// resolve reads a secret's reference: ${NAME} is a variable, file:PATH the content of a file;
// anything else is the secret itself.
func (l *loader) resolve(v string) (string, error) {
	if name, ok := strings.CutPrefix(v, "${"); ok && strings.HasSuffix(name, "}") {
		name = strings.TrimSuffix(name, "}")
		value, ok := l.src.Env(name)
		if !ok {
			return "", fmt.Errorf("the variable %s is not set", name)
		}
		return value, nil
	}
	if name, ok := strings.CutPrefix(v, "file:"); ok {
		body, err := l.read(name)
		l.cfg.SecretFiles = append(l.cfg.SecretFiles, name)
		if err != nil {
			return "", fmt.Errorf("cannot read the secret's file %s", name)
		}
		return strings.TrimRight(string(body), "\r\n"), nil
	}
	return v, nil
}

// read reads a file and remembers its name.
func (l *loader) read(name string) ([]byte, error) {
	if !slices.Contains(l.cfg.Files, name) {
		l.cfg.Files = append(l.cfg.Files, name)
	}
	return l.src.ReadFile(name)
}

func (l *loader) wrongf(source, key, format string, args ...any) {
	l.wrong(source, key, fmt.Sprintf(format, args...))
}

func (l *loader) wrong(source, key, reason string) {
	l.mistakes = append(l.mistakes, Mistake{Source: source, Key: key, Reason: reason})
}

// finish derives what follows from several settings and checks what must agree.
func (l *loader) finish() {
	c := l.cfg
	if c.Bucket.Derived {
		dir, err := filepath.Abs(filepath.Join(c.DataDir, "bucket"))
		if err != nil {
			l.wrong(l.origin["data_dir"], "data_dir", "has no absolute path")
		}
		c.Bucket.Dir = dir
	}
	if c.Bucket.Kind == NoBucket && c.Durability == delay.Tier {
		l.wrong(l.origin["durability.default"], "durability.default",
			"tier needs a bucket, and tier.bucket is none")
	}
	if c.Scheduler.Horizon < c.Scheduler.HotWindow {
		l.wrong(l.either("local.horizon", "local.hot_window"), "local.horizon",
			"must not be below local.hot_window")
	}
	if c.Scheduler.MaxBackoff < c.Scheduler.Backoff {
		l.wrong(l.either("delivery.max_backoff", "delivery.backoff"), "delivery.max_backoff",
			"must not be below delivery.backoff")
	}
	l.finishAPI()
	l.finishBrokers()
}

// finishAPI checks who may come in.
func (l *loader) finishAPI() {
	c := l.cfg
	if (c.TLS.Cert == "") != (c.TLS.Key == "") {
		l.wrong(l.either("api.tls.cert", "api.tls.key"), "api.tls",
			"needs both cert and key")
	}
	if c.TLS.ClientCA != "" && (!c.TLS.Enabled() || len(c.Clients)+len(c.Tokens) == 0) {
		l.wrong(l.origin["api.tls.client_ca"], "api.tls.client_ca",
			"needs api.tls.cert and api.tls.key, and api.clients or api.tokens")
	}
	if len(c.Clients) > 0 && c.TLS.ClientCA == "" {
		l.wrong(l.src.File, "api.clients", "needs api.tls.client_ca")
	}
	if c.TLS.Key != "" {
		c.SecretFiles = append(c.SecretFiles, c.TLS.Key)
	}
	if !loopback(c.Listen) && !c.Guarded() {
		l.wrong(l.origin["api.listen"], "api.listen", c.Listen+" is not a loopback address: set "+
			"api.tls and api.tokens or api.clients, or --insecure-open to let everybody in")
	}
}

// either is the origin of the first key that was set.
func (l *loader) either(keys ...string) string {
	for _, key := range keys {
		if o := l.origin[key]; o != "" {
			return o
		}
	}
	return ""
}

// loopback reports whether addr is certainly reachable from this machine only.
func loopback(addr string) bool {
	host, _, err := net.SplitHostPort(addr)
	if err != nil {
		return true // a mistake of its own
	}
	if host == "localhost" {
		return true
	}
	ip := net.ParseIP(host)
	return ip != nil && ip.IsLoopback()
}
