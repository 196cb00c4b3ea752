// SPDX-License-Identifier: Apache-2.0

package config

import (
	"bytes"
	"flag"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/cicadamq/cicada/delay"
)

var update = flag.Bool("update", false, "rewrite golden files and the table in the documentation")

// given makes sources of a file's text, variables and flags.
func given(file string, env, flags map[string]string) Sources {
	src := Sources{
		ReadFile: func(name string) ([]byte, error) {
			switch {
			case name == "c.yaml":
				return []byte(file), nil
			case name == "/run/secret":
				return []byte("from-file\n"), nil
			}
			return nil, fs.ErrNotExist
		},
		Env:   func(name string) (string, bool) { v, ok := env[name]; return v, ok },
		Flags: flags,
	}
	if file != "" {
		src.File = "c.yaml"
	}
	return src
}

// The documented defaults are what a daemon without file and flags gets.
func TestDefaults(t *testing.T) {
	c, err := Load(given("", nil, nil))
	require.NoError(t, err)
	require.Equal(t, "./cicada-data", c.DataDir)
	require.Equal(t, "127.0.0.1:7170", c.Listen)
	require.Equal(t, FileBucket, c.Bucket.Kind)
	require.True(t, c.Bucket.Derived)
	require.True(t, filepath.IsAbs(c.Bucket.Dir))
	require.Equal(t, 10*time.Second, c.Scheduler.FlushInterval)
	require.Equal(t, time.Minute, c.Scheduler.MinWait)
	require.Equal(t, 24*time.Hour, c.Scheduler.Horizon)
	require.Equal(t, 15*time.Minute, c.Scheduler.DropLag)
	require.Equal(t, time.Minute, c.Scheduler.HotWindow)
	require.Equal(t, 24*time.Hour, c.Scheduler.DedupeWindow)
	require.Equal(t, 30*delay.Day, c.Scheduler.DeadRetention)
	require.Equal(t, 10*time.Second, c.ShutdownTimeout)
	require.Equal(t, delay.Local, c.Durability)
}

// A weaker source must never win: flag over variable over file over default.
func TestPrecedence(t *testing.T) {
	file := "tier:\n  flush_interval: 2s\n  min_wait: 3s\nlocal: {horizon: 2h}\n"
	env := map[string]string{"CICADA_TIER_MIN_WAIT": "4s", "CICADA_LOCAL_HORIZON": "3h"}
	c, err := Load(given(file, env, map[string]string{"local-horizon": "1w"}))
	require.NoError(t, err)
	require.Equal(t, 2*time.Second, c.Scheduler.FlushInterval)
	require.Equal(t, 4*time.Second, c.Scheduler.MinWait)
	require.Equal(t, delay.Week, c.Scheduler.Horizon)
}

const wholeFile = `data_dir: /var/lib/cicada
cluster: {id: prod-1}
tier:
  bucket: s3://cold/cicada?endpoint=http://minio:9000&path_style=true
  flush_interval: 5s
  isolated: stop
  s3:
    access_key_id: AK
    secret_access_key: ${SECRET}
local: {horizon: 12h, drop_lag: 1m, hot_window: 30s, cache: 128MiB}
durability: {default: tier}
dedupe_window: 2d
api:
  listen: 0.0.0.0:7170
  tls: {cert: /c.pem, key: /k.pem}
  tokens:
    - {name: app, token: "0123456789abcdef", scopes: [read, send]}
webhooks:
  allow: [hooks.example.com, "*.example.org"]
  secrets:
    - {id: k1, key: "file:/run/secret"}
brokers:
  main:
    kind: kafka
    seeds: ["127.0.0.1:9092"]
    sasl: {mechanism: plain, user: u, password: topsecret}
    sources: [{topic: cicada.schedule, group: cicada, commit: tier, id_from: header}]
    sink: {mode: exactly_once, ledger_topic: cicada.ledger, window: 20ms}
  rmq:
    kind: rocketmq
    name_servers: ["127.0.0.1:9876"]
    guardian: {enabled: true, grace: 5s, delay_levels: true, timers: true}
  n1:
    kind: nats
    urls: ["nats://127.0.0.1:4222"]
    sources: [{stream: SCHEDULE, subject: "schedule.>"}]
`

// What config print writes must give the same configuration again (G4), and never a secret (G3).
func TestPrint(t *testing.T) {
	env := map[string]string{"SECRET": "s3cr3t-value"}
	c, err := Load(given(wholeFile, env, nil))
	require.NoError(t, err)
	require.Equal(t, "s3cr3t-value", c.S3.SecretAccessKey.Reveal())
	require.Equal(t, "from-file", c.Webhooks.Secrets[0].Key.Reveal())
	require.Equal(t, "prod-1", c.ClusterID)
	require.True(t, c.Scheduler.IsolatedStop)
	require.Len(t, c.Brokers, 3)

	var out bytes.Buffer
	require.NoError(t, c.Print(&out))
	for _, hidden := range []string{"s3cr3t-value", "from-file", "topsecret", "0123456789abcdef\""} {
		require.NotContains(t, out.String(), hidden)
		require.NotContains(t, fmt.Sprintf("%v %+v %#v", c.S3, c.Webhooks, *c), hidden)
	}
	golden(t, "print.yaml", out.String())

	again, err := Load(given(out.String(), nil, nil))
	require.NoError(t, err)
	var second bytes.Buffer
	require.NoError(t, again.Print(&second))
	require.Equal(t, out.String(), second.String())
}

func golden(t *testing.T, name, got string) {
	t.Helper()
	path := filepath.Join("testdata", name)
	if *update {
		require.NoError(t, os.MkdirAll("testdata", 0o755))
		require.NoError(t, os.WriteFile(path, []byte(got), 0o644))
	}
	want, err := os.ReadFile(path)
	require.NoError(t, err)
	require.Equal(t, string(want), got)
}

// Every mistake must be named with its line and key, not only the first (G1, G2).
func TestMistakes(t *testing.T) {
	file := `data_dir: ""
tier:
  flush_intervall: 5s
  min_wait: 5
  flush_interval: 5s
  flush_interval: 6s
  bucket: file://relative
local:
  horizon: 999999d
  hot_window: [1s]
log: {level: loud}
api:
  insecure_open: yes
  tokens:
    - {name: x, token: short, scopes: [root]}
brokers:
  main:
    kind: kafka
    sink: {mode: perhaps}
    typo: 1
  other: {kind: rabbit}
webhooks: 7
`
	_, err := Load(given(file, map[string]string{"CICADA_SHUTDOWN_TIMEOUT": "soon"},
		map[string]string{"listen": "nonsense"}))
	require.ErrorIs(t, err, delay.ErrInvalid)
	golden(t, "mistakes.txt", err.Error()+"\n")
}

// Values that would be dangerous together are refused although each is fine alone.
func TestCrossChecks(t *testing.T) {
	for name, tc := range map[string]struct {
		flags map[string]string
		want  string
	}{
		"open":     {map[string]string{"listen": "0.0.0.0:7170"}, "--listen: api.listen: "},
		"open any": {map[string]string{"listen": ":7170"}, "--listen: api.listen: "},
		"only tls": {
			map[string]string{"listen": "10.0.0.1:1", "api-tls-cert": "c", "api-tls-key": "k"},
			"is not a loopback",
		},
		"half tls": {map[string]string{"api-tls-cert": "c"}, "needs both cert and key"},
		"tier none": {
			map[string]string{"bucket": "none", "durability-default": "tier"},
			"tier needs a bucket",
		},
		"horizon":    {map[string]string{"local-horizon": "10s"}, "must not be below local.hot_window"},
		"backoff":    {map[string]string{"delivery-backoff": "1h"}, "must not be below delivery.backoff"},
		"bad window": {map[string]string{"delivery-window": "0"}, "from 1 to 100000"},
	} {
		_, err := Load(given("", nil, tc.flags))
		require.ErrorContains(t, err, tc.want, name)
	}
	_, err := Load(given("", nil, map[string]string{"listen": "0.0.0.0:1", "insecure-open": "true"}))
	require.NoError(t, err)
	_, err = Load(Sources{File: "gone.yaml", ReadFile: given("", nil, nil).ReadFile})
	require.ErrorContains(t, err, "there is no configuration file gone.yaml")
}

// A bucket URL that is read wrongly would put the only copy of far messages in another place.
func TestParseBucket(t *testing.T) {
	for in, want := range map[string]Bucket{
		"none":            {Kind: NoBucket},
		"file:///a/b":     {Kind: FileBucket, Dir: "/a/b"},
		"file:///a/../b/": {Kind: FileBucket, Dir: "/b"},
		"s3://bkt":        {Kind: S3Bucket, Name: "bkt"},
		"s3://bkt/p/q?region=us-east-1": {Kind: S3Bucket, Name: "bkt", Prefix: "p/q",
			Region: "us-east-1"},
		"s3://bkt?endpoint=http%3A%2F%2Fh%3A9000&path_style=true&create_bucket=true": {
			Kind: S3Bucket, Name: "bkt", Endpoint: "http://h:9000", PathStyle: true,
			CreateBucket: true},
	} {
		got, err := ParseBucket(in)
		require.NoError(t, err, in)
		require.Equal(t, want, got, in)
		again, err := ParseBucket(got.String())
		require.NoError(t, err, got.String())
		require.Equal(t, want, again)
	}
	for _, in := range []string{"", "/a", "file://host/a", "file:a", "file:///a?x=1", "s3://",
		"s3://B", "s3://u:p@bkt", "s3://bkt?regoin=x", "s3://bkt?path_style=1", "gs://bkt",
		"s3://bkt?region=a&region=b", "s3://bkt?endpoint=h:9000", "file:///a#x", "s3://bkt/%zz"} {
		_, err := ParseBucket(in)
		require.Error(t, err, in)
	}
}

// Two settings that share a flag, a variable or a key would shadow each other; a default that is
// not accepted would stop every start.
func TestTableIsSound(t *testing.T) {
	seen := make(map[string]string)
	for _, row := range Settings() {
		for _, name := range []string{row.Key, "--" + row.Flag, row.Env} {
			require.False(t, name != "--" && seen[name] != "", "%s twice", name)
			seen[name] = row.Key
		}
		require.NotEmpty(t, row.Help, row.Key)
		require.Falsef(t, strings.HasSuffix(row.Help, "."), "%s: help ends in a period", row.Key)
		var c Config
		require.NoError(t, row.set(&c, row.Default))
	}
}

// The documentation must list the settings as they are; -update rewrites its table.
func TestDocumentation(t *testing.T) {
	const begin, end = "<!-- settings: generated -->\n", "<!-- end of settings -->"
	path := filepath.Join("..", "..", "docs", "operations.md")
	body, err := os.ReadFile(path)
	require.NoError(t, err)
	head, rest, ok := strings.Cut(string(body), begin)
	require.True(t, ok)
	table, tail, ok := strings.Cut(rest, end)
	require.True(t, ok)
	if *update {
		require.NoError(t, os.WriteFile(path, []byte(head+begin+Table()+end+tail), 0o644))
		return
	}
	require.Equal(t, Table(), table, "run the test with -update")
}

// Any file must give a configuration or mistakes, never a panic.
func FuzzLoad(f *testing.F) {
	f.Add(wholeFile)
	f.Add("a: &x {b: *x}")
	f.Add("tier: [1, {2: 3}]\n---\n")
	f.Add("<<: {data_dir: x}\n? [1]\n: 2")
	f.Fuzz(func(t *testing.T, file string) {
		c, err := Load(given(file, nil, nil))
		require.True(t, (c == nil) != (err == nil))
	})
}
