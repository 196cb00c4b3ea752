// SPDX-License-Identifier: Apache-2.0

package config

import (
	"errors"
	"fmt"
	"net"
	"strconv"
	"strings"
	"time"

	"github.com/cicadamq/cicada/delay"
)

// Setting is one row of the table: a value that a flag, a variable and a key of the file can give.
type Setting struct {
	Key     string // in the file, dotted: tier.flush_interval
	Flag    string // without dashes; "" when there is none (secrets)
	Env     string
	Default string // as text; "" is empty
	Help    string // one line for people, without a period at the end
	Bool    bool   // the flag alone means true
	List    bool   // repeatable; one string joins the items with commas
	Secret  bool   // masked in print

	set func(c *Config, v string) error
	get func(c *Config) string
}

// The bounds of durations and sizes that only guard against slips of the unit.
const (
	year     = 365 * delay.Day
	kibibyte = 1 << 10
	mebibyte = 1 << 20
	gibibyte = 1 << 30
)

// Settings is the table, in the order of the file. The caller owns the slice.
func Settings() []Setting {
	rows := [][]Setting{
		placeSettings(), tierSettings(), localSettings(), deliverySettings(), apiSettings(),
		processSettings(),
	}
	var all []Setting
	for _, group := range rows {
		all = append(all, group...)
	}
	for i := range all {
		all[i].name()
	}
	return all
}

// name derives the flag and the variable from the key where the row does not say them.
func (s *Setting) name() {
	word := strings.NewReplacer(".", "_").Replace(s.Key)
	if s.Env == "" {
		s.Env = "CICADA_" + strings.ToUpper(word)
	}
	switch s.Flag {
	case "":
		s.Flag = strings.ReplaceAll(word, "_", "-")
	case "-":
		s.Flag = ""
	}
}

func placeSettings() []Setting {
	return []Setting{
		text("data_dir", "./cicada-data", "directory of the local store; locked to one process",
			func(c *Config) *string { return &c.DataDir }, notEmpty),
		text("cluster.id", "", "identity of the cluster; empty adopts the bucket's or makes one",
			func(c *Config) *string { return &c.ClusterID }, clusterID),
	}
}

func tierSettings() []Setting {
	return []Setting{
		{
			Key: "tier.bucket", Flag: "bucket", Env: "CICADA_BUCKET",
			Help: "file:///dir, s3://bucket/prefix?endpoint=…, or none; " +
				"empty is file://<data_dir>/bucket",
			set: setBucket,
			get: func(c *Config) string {
				if c.Bucket.Derived {
					return ""
				}
				return c.Bucket.String()
			},
		},
		span("tier.flush_interval", "10s", "upload at least this often",
			10*time.Millisecond, time.Hour,
			func(c *Config) *time.Duration { return &c.Scheduler.FlushInterval }),
		span("tier.min_wait", "60s", "upload only messages that wait longer than this",
			time.Millisecond, year,
			func(c *Config) *time.Duration { return &c.Scheduler.MinWait }),
		size("tier.compact_rate", "32MiB",
			"bytes a second that compaction of the bucket may move; 0 is no limit",
			0, 64*gibibyte, func(c *Config) *int64 { return &c.Scheduler.CompactRate }),
		span("tier.collect_interval", "10m", "look this often for what the bucket need not hold",
			10*time.Millisecond, delay.Day,
			func(c *Config) *time.Duration { return &c.Scheduler.CollectInterval }),
		span("tier.delete_grace", "24h",
			"an object that is not listed any more is deleted after this",
			time.Millisecond, year,
			func(c *Config) *time.Duration { return &c.DeleteGrace }),
		choice("tier.isolated", "deliver",
			"what an owner does that gets no answer from the bucket: deliver or stop",
			[]string{"deliver", "stop"},
			func(c *Config, v string) { c.Scheduler.IsolatedStop = v == "stop" },
			func(c *Config) string {
				if c.Scheduler.IsolatedStop {
					return "stop"
				}
				return "deliver"
			}),
		{
			Key: "tier.s3.access_key_id", Flag: "-", Env: "AWS_ACCESS_KEY_ID",
			Help: "key of the S3 store",
			set:  func(c *Config, v string) error { c.S3.AccessKeyID = v; return nil },
			get:  func(c *Config) string { return c.S3.AccessKeyID },
		},
		secret("tier.s3.secret_access_key", "AWS_SECRET_ACCESS_KEY", "secret of the S3 store",
			func(c *Config) *Secret { return &c.S3.SecretAccessKey }),
		secret("tier.s3.session_token", "AWS_SESSION_TOKEN", "session token of the S3 store",
			func(c *Config) *Secret { return &c.S3.SessionToken }),
	}
}

func localSettings() []Setting {
	return []Setting{
		span("local.horizon", "24h", "how far ahead rows stay on the local disk",
			time.Second, 10*year,
			func(c *Config) *time.Duration { return &c.Scheduler.Horizon }),
		span("local.drop_lag", "15m", "a row is dropped no sooner than this after its upload",
			time.Millisecond, 30*delay.Day,
			func(c *Config) *time.Duration { return &c.Scheduler.DropLag }),
		span("local.hot_window", "60s", "how far ahead the timing wheel is loaded",
			100*time.Millisecond, delay.Day,
			func(c *Config) *time.Duration { return &c.Scheduler.HotWindow }),
		size("local.cache", "64MiB", "block cache of the local store", mebibyte, 64*gibibyte,
			func(c *Config) *int64 { return &c.CacheBytes }),
		size("local.reserve", "512MiB", "new messages are refused below this free disk space",
			0, 1024*gibibyte, func(c *Config) *int64 { return &c.ReserveBytes }),
		choice("durability.default", "local", "what a reply waits for: local or tier",
			[]string{"local", "tier"},
			func(c *Config, v string) {
				c.Durability = delay.Local
				if v == "tier" {
					c.Durability = delay.Tier
				}
			},
			func(c *Config) string { return c.Durability.String() }),
		span("dedupe_window", "24h", "how long an id is remembered after its message is finished",
			time.Second, year,
			func(c *Config) *time.Duration { return &c.Scheduler.DedupeWindow }),
		span("dead_letters.retention", "30d", "how long dead letters are kept",
			time.Second, 10*year,
			func(c *Config) *time.Duration { return &c.Scheduler.DeadRetention }),
	}
}

func deliverySettings() []Setting {
	return []Setting{
		{
			Key: "delivery.max_attempts", Default: "0",
			Help: "attempts of messages that do not say; 0 is no limit",
			set: func(c *Config, v string) error {
				n, err := strconv.ParseUint(v, 10, 31)
				if err != nil {
					return errors.New("want a whole number from 0 to 2147483647")
				}
				c.Scheduler.MaxAttempts = uint32(n)
				return nil
			},
			get: func(c *Config) string {
				return strconv.FormatUint(uint64(c.Scheduler.MaxAttempts), 10)
			},
		},
		span("delivery.backoff", "1s", "first pause between attempts; it doubles each time",
			time.Millisecond, delay.Day,
			func(c *Config) *time.Duration { return &c.Scheduler.Backoff }),
		span("delivery.max_backoff", "10m", "longest pause between attempts",
			time.Millisecond, 30*delay.Day,
			func(c *Config) *time.Duration { return &c.Scheduler.MaxBackoff }),
		count("delivery.window", "1000", "messages in flight per push target", 100_000,
			func(c *Config) *int { return &c.Scheduler.Window }),
		list("webhooks.allow", "webhook-allow",
			"host patterns of webhook targets; empty is every public address",
			func(c *Config) *[]string { return &c.Webhooks.Allow }),
		toggle("webhooks.allow_private", "",
			"let webhooks reach private, loopback and link-local addresses",
			func(c *Config) *bool { return &c.Webhooks.AllowPrivate }),
		span("webhooks.timeout", "15s", "time limit of one webhook call",
			10*time.Millisecond, 10*time.Minute,
			func(c *Config) *time.Duration { return &c.Webhooks.Timeout }),
	}
}

func apiSettings() []Setting {
	return []Setting{
		{
			Key: "api.listen", Flag: "listen", Env: "CICADA_LISTEN", Default: "127.0.0.1:7170",
			Help: "address of the API; one that is not loopback needs api.tls and api.tokens",
			set: func(c *Config, v string) error {
				_, port, err := net.SplitHostPort(v)
				if n, e := strconv.ParseUint(port, 10, 16); err != nil || e != nil || n > 65535 {
					return errors.New("want host:port")
				}
				c.Listen = v
				return nil
			},
			get: func(c *Config) string { return c.Listen },
		},
		text("api.tls.cert", "", "certificate chain of the API, a PEM file",
			func(c *Config) *string { return &c.TLS.Cert }, nil),
		text("api.tls.key", "", "private key of the API, a PEM file",
			func(c *Config) *string { return &c.TLS.Key }, nil),
		text("api.tls.client_ca", "", "authorities of clients' certificates, a PEM file",
			func(c *Config) *string { return &c.TLS.ClientCA }, nil),
		choice("api.tls.client_cert", "required",
			"with client_ca: whether clients need a certificate, required or optional",
			[]string{"required", "optional"},
			func(c *Config, v string) { c.TLS.Optional = v == "optional" },
			func(c *Config) string {
				if c.TLS.Optional {
					return "optional"
				}
				return "required"
			}),
		toggle("api.insecure_open", "insecure-open",
			"allow a public address without TLS and tokens",
			func(c *Config) *bool { return &c.OpenAPI }),
		size("api.max_inflight", "256MiB", "bytes of requests being read; more answer 429",
			mebibyte, 64*gibibyte, func(c *Config) *int64 { return &c.MaxInflight }),
		count("api.max_connections", "8192", "open connections; more wait to be accepted",
			1_000_000, func(c *Config) *int { return &c.MaxConnections }),
		count("api.max_polls", "10000", "pulls that wait, and streams; more answer 429",
			1_000_000, func(c *Config) *int { return &c.MaxPolls }),
	}
}

func processSettings() []Setting {
	return []Setting{
		size("intake.max_pending", "64MiB", "bytes of messages waiting for their commit",
			mebibyte, 64*gibibyte, func(c *Config) *int64 { return &c.Scheduler.MaxPending }),
		count("intake.max_pending_messages", "200000", "messages waiting for their commit",
			100_000_000, func(c *Config) *int { return &c.Scheduler.MaxPendingMessages }),
		span("clock.max_hold", "5m", "longest hold of a clock step that nobody confirms",
			time.Second, delay.Day,
			func(c *Config) *time.Duration { return &c.Scheduler.ClockMaxHold }),
		span("shutdown_timeout", "10s", "how long SIGTERM waits for what is in flight",
			10*time.Millisecond, time.Hour,
			func(c *Config) *time.Duration { return &c.ShutdownTimeout }),
		size("memory_limit", "1GiB", "soft limit of the heap unless GOMEMLIMIT says; 0 is none",
			0, 1024*gibibyte, func(c *Config) *int64 { return &c.MemoryLimit }),
		text("audit.file", "", "file of the audit, JSON lines; empty is the ordinary log",
			func(c *Config) *string { return &c.AuditFile }, nil),
		choice("log.level", "info", "debug, info, warn or error",
			[]string{"debug", "info", "warn", "error"},
			func(c *Config, v string) { c.Log.Level = v },
			func(c *Config) string { return c.Log.Level }),
		choice("log.format", "auto", "json, console, or auto: console on a terminal",
			[]string{"auto", "json", "console"},
			func(c *Config, v string) { c.Log.Format = v },
			func(c *Config) string { return c.Log.Format }),
	}
}

// setBucket accepts an empty value as "derive it from data_dir", which finish does.
func setBucket(c *Config, v string) error {
	if v == "" {
		c.Bucket = Bucket{Kind: FileBucket, Derived: true}
		return nil
	}
	b, err := ParseBucket(v)
	if err != nil {
		return err
	}
	c.Bucket = b
	return nil
}

func notEmpty(v string) error {
	if v == "" {
		return errors.New("must not be empty")
	}
	return nil
}

// maxClusterID bounds the cluster's id; it is a label, not a text.
const maxClusterID = 64

func clusterID(v string) error {
	if len(v) > maxClusterID || !delay.ValidText(v) {
		return fmt.Errorf("want at most %d bytes without control characters", maxClusterID)
	}
	return nil
}
