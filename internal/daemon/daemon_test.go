// SPDX-License-Identifier: Apache-2.0

package daemon

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"math/big"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/zap"

	"github.com/cicadamq/cicada/delay"
	"github.com/cicadamq/cicada/internal/config"
	"github.com/cicadamq/cicada/localstore"
)

// conf is a configuration with its data in dir.
func conf(t *testing.T, dir string, flags map[string]string) *config.Config {
	t.Helper()
	all := map[string]string{
		"listen": "127.0.0.1:0", "data-dir": dir, "tier-flush-interval": "100ms",
		"tier-min-wait": "100ms", "local-reserve": "0", "shutdown-timeout": "2s",
	}
	maps.Copy(all, flags)
	cfg, err := config.Load(config.Sources{
		Env: func(string) (string, bool) { return "", false }, Flags: all,
	})
	require.NoError(t, err)
	return cfg
}

func open(t *testing.T, cfg *config.Config) *Daemon {
	t.Helper()
	d, err := Open(t.Context(), cfg, Options{Version: "test", Logger: zap.NewNop()})
	require.NoError(t, err)
	return d
}

// start runs a daemon until the returned func, which gives what Run gave.
func start(t *testing.T, cfg *config.Config) (*Daemon, func() error) {
	t.Helper()
	d := open(t, cfg)
	ctx, cancel := context.WithCancel(t.Context())
	end := make(chan error, 1)
	go func() { end <- d.Run(ctx) }()
	stop := sync.OnceValue(func() error {
		cancel()
		return <-end
	})
	t.Cleanup(func() { _ = stop() }) // before the directory goes, also when the test failed
	require.Eventually(t, func() bool {
		resp, err := http.Get("http://" + d.Addr() + "/readyz")
		if err != nil {
			return false
		}
		_ = resp.Body.Close()
		return resp.StatusCode == http.StatusOK
	}, 10*time.Second, 5*time.Millisecond)
	return d, stop
}

func call(t *testing.T, d *Daemon, method, path, body string, want int) map[string]any {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, "http://"+d.Addr()+path,
		strings.NewReader(body))
	require.NoError(t, err)
	req.Header.Set("Content-Type", "application/json")
	resp, err := http.DefaultClient.Do(req)
	require.NoError(t, err)
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	require.NoError(t, err)
	require.Equal(t, want, resp.StatusCode, "%s", text)
	var reply map[string]any
	require.NoError(t, json.Unmarshal(text, &reply), "%s", text)
	return reply
}

// restored waits until d knows the ids of the bucket; before, it answers none that it lacks.
func restored(t *testing.T, d *Daemon) {
	t.Helper()
	require.Eventually(t, func() bool {
		resp, err := http.Get("http://" + d.Addr() + "/v1/messages/in-the-bucket-or-not")
		if err != nil {
			return false
		}
		_ = resp.Body.Close()
		return resp.StatusCode == http.StatusNotFound
	}, 10*time.Second, 5*time.Millisecond)
}

// What was accepted must be there after an orderly end and a new start.
func TestRestart(t *testing.T) {
	cfg := conf(t, t.TempDir(), nil)
	d, stop := start(t, cfg)
	call(t, d, "POST", "/v1/messages", `{"id":"a","target":"pull:q","delay":"1h","body":"x"}`, 200)
	require.NoError(t, stop())
	d, stop = start(t, cfg)
	require.Equal(t, "scheduled", call(t, d, "GET", "/v1/messages/a", "", 200)["state"])
	resp, err := http.Get("http://" + d.Addr() + "/metrics")
	require.NoError(t, err)
	text, err := io.ReadAll(resp.Body)
	require.NoError(t, err)
	require.NoError(t, resp.Body.Close())
	for _, name := range []string{"cicada_pending{", "cicada_build_info{", "cicada_accepting 1",
		"cicada_tier_requests_total", "cicada_disk_free_bytes "} {
		require.True(t, strings.Contains(string(text), name), name)
	}
	require.NoError(t, stop())
}

// A consumer that works on a message while the daemon drains must be able to ack it (M3).
func TestDrainTakesAcks(t *testing.T) {
	cfg := conf(t, t.TempDir(), map[string]string{"shutdown-timeout": "30s"})
	d, stop := start(t, cfg)
	call(t, d, "POST", "/v1/messages", `{"target":"pull:q","delay":0,"body":"x"}`, 200)
	got := call(t, d, "POST", "/v1/queues/q/pull", `{"wait":"5s"}`, 200)
	receipt := got["messages"].([]any)[0].(map[string]any)["receipt"]
	end := make(chan error, 1)
	begun := time.Now()
	go func() { end <- stop() }()
	require.Eventually(t, d.server.Draining, 20*time.Second, time.Millisecond)
	call(t, d, "POST", "/v1/messages", `{"target":"pull:q","delay":0,"body":"x"}`, 503)
	acked := call(t, d, "POST", "/v1/queues/q/ack", fmt.Sprintf(`{"receipts":[%q]}`, receipt), 200)
	require.Contains(t, fmt.Sprint(acked), "ACKED")
	require.NoError(t, <-end)
	require.Less(t, time.Since(begun), cfg.ShutdownTimeout, "it ends when the lease is settled")
}

// A second process must be refused with words, and must not cost the first one its shard (M1).
func TestSecondProcess(t *testing.T) {
	cfg := conf(t, t.TempDir(), nil)
	d, stop := start(t, cfg)
	_, err := Open(t.Context(), cfg, Options{Logger: zap.NewNop()})
	require.ErrorIs(t, err, localstore.ErrLocked)
	require.ErrorContains(t, err, "choose another with --data-dir")

	other := conf(t, t.TempDir(), map[string]string{
		"listen": d.Addr(), "bucket": cfg.Bucket.String(),
	})
	_, err = Open(t.Context(), other, Options{Logger: zap.NewNop()})
	require.ErrorIs(t, err, syscall.EADDRINUSE)
	require.ErrorContains(t, err, "--listen")
	call(t, d, "POST", "/v1/messages",
		`{"target":"pull:q","delay":"1h","body":"x","durability":"tier"}`, 200)
	require.NoError(t, stop())
}

// The daemon whose bucket was taken must end by itself, and its directory must not be believed
// again (M4): what it had not uploaded is set aside, what is in the bucket goes on.
func TestTakeover(t *testing.T) {
	cfg := conf(t, t.TempDir(), nil)
	first := open(t, cfg)
	end := make(chan error, 1)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	go func() { end <- first.Run(ctx) }()
	other := conf(t, t.TempDir(), map[string]string{"bucket": cfg.Bucket.String()})
	second, stop := start(t, other)
	err := <-end
	require.True(t, Fenced(err), "%v", err)
	require.ErrorContains(t, err, "another daemon has taken over")
	call(t, second, "POST", "/v1/messages",
		`{"id":"kept","target":"pull:q","delay":"1h","body":"x","durability":"tier"}`, 200)
	require.NoError(t, stop())

	third, stop := start(t, cfg)
	restored(t, third)
	require.Equal(t, "scheduled", call(t, third, "GET", "/v1/messages/kept", "", 200)["state"])
	require.NoError(t, stop())
	aside, err := filepath.Glob(StoreDir(cfg.DataDir) + ".set-aside-*")
	require.NoError(t, err)
	require.Len(t, aside, 1)
}

// After a fatal error of the store the process must end at once and nothing may be closed (M2).
func TestFatal(t *testing.T) {
	d := open(t, conf(t, t.TempDir(), nil))
	end := make(chan error, 1)
	go func() { end <- d.Run(t.Context()) }()
	d.fatal <- errors.New("fsync: input/output error")
	err := <-end
	require.ErrorIs(t, err, errFatal)
	require.NoError(t, d.close())
}

// What the configuration can say and this build cannot do must stop the start with words.
func TestNotBuiltYet(t *testing.T) {
	cfg := conf(t, t.TempDir(), nil)
	cfg.Brokers = []config.Broker{{Name: "main", Kind: "pulsar", Line: 7}}
	_, err := Open(t.Context(), cfg, Options{Logger: zap.NewNop()})
	require.ErrorIs(t, err, delay.ErrUnimplemented)
	require.ErrorContains(t, err, "pulsar is not built yet; remove it")
}

// Without a bucket the daemon must run, and refuse what it cannot promise.
func TestNoBucket(t *testing.T) {
	d, stop := start(t, conf(t, t.TempDir(), map[string]string{"bucket": "none"}))
	call(t, d, "POST", "/v1/messages", `{"target":"pull:q","delay":"1h","body":"x"}`, 200)
	call(t, d, "POST", "/v1/messages",
		`{"target":"pull:q","delay":"1h","body":"x","durability":"tier"}`, 400)
	require.NoError(t, stop())
}

// A public address must speak TLS and ask for tokens.
func TestTLSAndTokens(t *testing.T) {
	cert, key, pool := selfSigned(t)
	cfg := conf(t, t.TempDir(), map[string]string{"api-tls-cert": cert, "api-tls-key": key})
	cfg.Tokens = []config.Token{{Name: "app", Scopes: []string{"read"},
		SHA256: "9f9f5111f7b27a781f1f1ddde5ebc2dd2b796bfc7365c9c28b548e564176929f"}}
	d := open(t, cfg)
	ctx, cancel := context.WithCancel(t.Context())
	end := make(chan error, 1)
	go func() { end <- d.Run(ctx) }()
	hc := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool}}}
	defer hc.CloseIdleConnections()
	for token, want := range map[string]int{"0123456789abcdef": 200, "wrong": 401, "": 401} {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "https://"+d.Addr()+
			"/v1/status", nil)
		require.NoError(t, err)
		req.Header.Set("Authorization", "Bearer "+token)
		resp, err := hc.Do(req)
		require.NoError(t, err)
		require.NoError(t, resp.Body.Close())
		require.Equal(t, want, resp.StatusCode, token)
	}
	cancel()
	require.NoError(t, <-end)
}

func selfSigned(t *testing.T) (cert, key string, pool *x509.CertPool) {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, IsCA: true, BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &private.PublicKey, private)
	require.NoError(t, err)
	keyDER, err := x509.MarshalECPrivateKey(private)
	require.NoError(t, err)
	dir := t.TempDir()
	cert, key = filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
	certPEM := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	require.NoError(t, os.WriteFile(cert, certPEM, 0o600))
	require.NoError(t, os.WriteFile(key, pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY",
		Bytes: keyDER}), 0o600))
	pool = x509.NewCertPool()
	require.True(t, pool.AppendCertsFromPEM(certPEM))
	return cert, key, pool
}

// Each kind of trouble at the start must name a remedy.
func TestHints(t *testing.T) {
	cfg := conf(t, "/data", map[string]string{"bucket": "file:///bkt"})
	for err, want := range map[error]string{
		localstore.ErrVersion:                        "another version of cicada wrote /data",
		fmt.Errorf("open /x: %w", fs.ErrPermission):  "needs to write to /data and file:///bkt",
		fmt.Errorf("write: %w", syscall.ENOSPC):      "the disk is full; make room below /data",
		fmt.Errorf("store: %w", delay.ErrCorrupt):    "cicada store check",
		fmt.Errorf("take: %w", delay.ErrUnavailable): "does not answer",
		fmt.Errorf("mkdir /data: %w", syscall.EROFS): "needs to write",
	} {
		got := explain(err, cfg)
		require.ErrorIs(t, got, err)
		require.ErrorContains(t, got, "\nhint: ")
		require.ErrorContains(t, got, want)
	}
	plain := errors.New("other")
	require.Equal(t, plain, explain(plain, cfg))
	require.NoError(t, explain(nil, cfg))
	path := filepath.Join(t.TempDir(), "file")
	require.NoError(t, os.WriteFile(path, nil, 0o600))
	_, err := Open(t.Context(), conf(t, t.TempDir(), map[string]string{
		"bucket": "file://" + path + "/bucket"}), Options{Logger: zap.NewNop()})
	require.ErrorContains(t, err, path)
}

// Logs for machines must be JSON; the level must be obeyed.
func TestLogger(t *testing.T) {
	var out bytes.Buffer
	log := NewLogger(config.Log{Level: "warn", Format: "auto"}, &out, false)
	log.Info("hidden")
	log.Warn("shown", zap.Int("n", 1))
	var line map[string]any
	require.NoError(t, json.Unmarshal(out.Bytes(), &line))
	require.Equal(t, "shown", line["msg"])
	out.Reset()
	NewLogger(config.Log{Level: "info", Format: "auto"}, &out, true).Info("for people")
	require.NotContains(t, out.String(), "{\"")
}
