// SPDX-License-Identifier: Apache-2.0

package config

import (
	"fmt"
	"io"
	"time"

	"github.com/cicadamq/cicada/delay"
	"github.com/cicadamq/cicada/scheduler"
)

// Config is the effective configuration of a daemon.
type Config struct {
	File string // the file it came from, or ""
	// Files are all files that it was read from, with those that secrets name, and SecretFiles those
	// with nothing but secrets in them, the key of the API included.
	Files, SecretFiles []string

	DataDir   string
	Bucket    Bucket
	S3        Credentials
	ClusterID string // "" is: adopt the bucket's, or make one
	Scheduler scheduler.Options
	// Durability is used for messages that do not ask for one (S3).
	Durability delay.Durability

	Listen      string
	TLS         TLS
	Tokens      []Token
	Clients     []Client
	AuditFile   string // "" is the ordinary log
	OpenAPI     bool   // --insecure-open: listen on a public address without TLS and tokens
	MaxInflight int64  // bytes of requests
	// MaxConnections and MaxPolls bound the connections, and the pulls that wait and the streams.
	MaxConnections, MaxPolls int

	Webhooks Webhooks
	Brokers  []Broker

	DeleteGrace     time.Duration // from "no longer listed" to deleted, in the bucket
	CacheBytes      int64         // block cache of the local store
	ReserveBytes    int64         // free disk space below which intake is refused
	MemoryLimit     int64         // soft limit of the Go heap; 0 is none
	ShutdownTimeout time.Duration
	Log             Log
}

// Credentials are the keys of an S3 store.
type Credentials struct {
	AccessKeyID     string
	SecretAccessKey Secret
	SessionToken    Secret
}

// TLS names the certificate and key of the API, PEM files. Both or none.
type TLS struct {
	Cert, Key string
	ClientCA  string // PEM file of the authorities of clients' certificates; "" asks for none
	Optional  bool   // clients may come without a certificate
}

// Enabled reports whether the API speaks TLS.
func (t TLS) Enabled() bool { return t.Cert != "" }

// Token lets a client in.
type Token struct {
	Name   string
	SHA256 string // hex of the token's hash; the token itself is not kept
	Scopes []string
	// Targets are patterns of the targets it is limited to; none is no limit.
	Targets []string
}

// Client is let in by the name in its certificate.
type Client struct {
	Name    string // common name, DNS name or URI
	Scopes  []string
	Targets []string // as of a Token
}

// Webhooks configures http and https targets.
type Webhooks struct {
	Allow        []string // host patterns; empty is every public address
	AllowPrivate bool
	Timeout      time.Duration
	Secrets      []SigningKey // all sign, at most two
}

// SigningKey signs webhook calls.
type SigningKey struct {
	ID  string
	Key Secret
}

// Guarded reports whether nobody gets in from elsewhere without credentials and TLS, or the
// operator said that everybody may.
func (c *Config) Guarded() bool {
	return c.OpenAPI || c.TLS.Enabled() && (len(c.Tokens) > 0 || len(c.Clients) > 0)
}

// Log says what is logged and how.
type Log struct {
	Level  string // debug, info, warn, error
	Format string // auto, json, console
}

// Secret is a value that is never printed (G3).
type Secret string

const stars = "********"

// String hides the value.
func (s Secret) String() string {
	if s == "" {
		return ""
	}
	return stars
}

// GoString hides the value from %#v.
func (s Secret) GoString() string { return s.String() }

// Format hides the value from every other verb: %d of a string prints the string.
func (s Secret) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, s.String()) }

// MarshalText hides the value from every encoder.
func (s Secret) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// Reveal is the value itself, for the one place that uses it.
func (s Secret) Reveal() string { return string(s) }
