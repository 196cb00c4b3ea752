// SPDX-License-Identifier: Apache-2.0

package daemon

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"go.uber.org/zap/zaptest/observer"

	"github.com/cicadamq/cicada/delay"
	"github.com/cicadamq/cicada/internal/config"
)

// guarded is a daemon whose configuration is a file that a test writes again and again.
type guarded struct {
	t      *testing.T
	d      *Daemon
	file   string
	flags  map[string]string
	hangup chan os.Signal
	http   *http.Client
	logs   *observer.ObservedLogs
	stop   func() error
}

func (g *guarded) load() (*config.Config, error) {
	return config.Load(config.Sources{
		File: g.file, ReadFile: os.ReadFile, Flags: g.flags,
		Env: func(string) (string, bool) { return "", false },
	})
}

func (g *guarded) write(text string) {
	g.t.Helper()
	// As one step: between two steps of a test the daemon looks several times.
	replace(g.t, g.file, text)
}

func replace(t *testing.T, name, text string) {
	t.Helper()
	require.NoError(t, os.WriteFile(name+".new", []byte(text), 0o600))
	require.NoError(t, os.Rename(name+".new", name))
}

// startGuarded starts with a file. cert and key are those of the API.
func startGuarded(t *testing.T, file, cert, key string, pool *x509.CertPool) *guarded {
	t.Helper()
	g := openGuarded(t, file, cert, key, pool)
	g.run()
	return g
}

// openGuarded is startGuarded before the daemon runs.
func openGuarded(t *testing.T, file, cert, key string, pool *x509.CertPool) *guarded {
	t.Helper()
	dir := t.TempDir()
	g := &guarded{t: t, file: filepath.Join(dir, "c.yaml"), hangup: make(chan os.Signal, 1),
		flags: map[string]string{
			"listen": "127.0.0.1:0", "data-dir": filepath.Join(dir, "data"), "bucket": "none",
			"local-reserve": "0", "shutdown-timeout": "2s", "api-tls-cert": cert, "api-tls-key": key,
			"audit-file": filepath.Join(dir, "audit.log"),
		},
		http: &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool}}},
	}
	g.write(file)
	cfg, err := g.load()
	require.NoError(t, err)
	core, logs := observer.New(zapcore.InfoLevel)
	g.logs = logs
	g.d, err = Open(t.Context(), cfg, Options{Version: "test", Logger: zap.New(core),
		Load: g.load, Hangup: g.hangup, ReloadEvery: 5 * time.Millisecond})
	require.NoError(t, err)
	return g
}

func (g *guarded) run() {
	ctx, cancel := context.WithCancel(g.t.Context())
	end := make(chan error, 1)
	go func() { end <- g.d.Run(ctx) }()
	g.stop = sync.OnceValue(func() error {
		cancel()
		g.http.CloseIdleConnections()
		return <-end
	})
	g.t.Cleanup(func() { _ = g.stop() })
}

// status is the answer to a token.
func (g *guarded) status(token string) int {
	req, err := http.NewRequestWithContext(g.t.Context(), http.MethodGet,
		"https://"+g.d.Addr()+"/v1/status", nil)
	require.NoError(g.t, err)
	req.Header.Set("Authorization", "Bearer "+token)
	resp, err := g.http.Do(req)
	if err != nil {
		return 0
	}
	_, _ = io.Copy(io.Discard, resp.Body)
	_ = resp.Body.Close()
	return resp.StatusCode
}

func (g *guarded) becomes(token string, want int) {
	g.t.Helper()
	require.Eventually(g.t, func() bool { return g.status(token) == want }, 20*time.Second,
		5*time.Millisecond, "%s never answered %d", token, want)
}

func (g *guarded) told(message string) int { return g.logs.FilterMessage(message).Len() }

const tokenFile = "api:\n  tokens:\n    - {name: %s, token: %q, scopes: [read]}\n"

// A token that was taken away must be refused and a new one let in without a restart; a broken file
// must change nothing and be told once (M6).
func TestReloadTokens(t *testing.T) {
	cert, key, pool := selfSigned(t)
	g := startGuarded(t, fmt.Sprintf(tokenFile, "old", "old-token-0123456789"), cert, key, pool)
	g.becomes("old-token-0123456789", 200)
	g.write(fmt.Sprintf(tokenFile, "new", "new-token-0123456789"))
	g.becomes("new-token-0123456789", 200)
	require.Equal(t, 401, g.status("old-token-0123456789"))

	for _, broken := range []string{
		"api: [", fmt.Sprintf(tokenFile, "x", "short"), "", "api:\n  tokens: []\n",
		fmt.Sprintf(tokenFile, "x", "x-token-0123456789") + "  nonsense: 1\n",
	} {
		told := g.told("reload refused, what was in use stays")
		g.write(broken)
		require.Eventually(t, func() bool {
			return g.told("reload refused, what was in use stays") > told
		}, 20*time.Second, time.Millisecond, broken)
		require.Equal(t, 200, g.status("new-token-0123456789"), broken)
		require.True(t, g.d.stale.Load())
		require.Never(t, func() bool {
			return g.told("reload refused, what was in use stays") > told+1
		}, 50*time.Millisecond, 5*time.Millisecond, "told more than once")
	}
	g.write(fmt.Sprintf(tokenFile, "last", "last-token-0123456789") + "log: {level: warn}\n")
	g.becomes("last-token-0123456789", 200)
	var audit []byte
	require.Eventually(t, func() bool { // it is written last
		var err error
		audit, err = os.ReadFile(g.flags["audit-file"])
		return err == nil &&
			strings.Count(string(audit), `"action":"reload","answer":"ok"`) == 2
	}, 20*time.Second, time.Millisecond)
	require.False(t, g.d.stale.Load())
	require.Equal(t, 1, g.told("changed settings that need a restart"))
	require.Equal(t, 5, strings.Count(string(audit), `"action":"reload","answer":"refused"`))
	require.NotContains(t, string(audit), "token-0123456789")
	require.NoError(t, g.stop())
}

// What changes while the daemon starts, which takes long when much comes back from a bucket, must
// count as changed and not as what was read (M6).
func TestReloadOfTheStart(t *testing.T) {
	cert, key, pool := selfSigned(t)
	g := openGuarded(t, fmt.Sprintf(tokenFile, "old", "old-token-0123456789"), cert, key, pool)
	g.write(fmt.Sprintf(tokenFile, "new", "new-token-0123456789"))
	g.run()
	g.becomes("new-token-0123456789", 200)
	require.NoError(t, g.stop())
}

// A signal reads everything again at once, the audit's file too; a secret that the file only names
// counts as a change when it changes.
func TestReloadSignal(t *testing.T) {
	cert, key, pool := selfSigned(t)
	secret := filepath.Join(t.TempDir(), "token")
	require.NoError(t, os.WriteFile(secret, []byte("first-token-0123456789\n"), 0o600))
	file := fmt.Sprintf(tokenFile, "app", "file:"+secret)
	g := startGuarded(t, file, cert, key, pool)
	g.becomes("first-token-0123456789", 200)
	replace(t, secret, "second-token-0123456789\n")
	g.becomes("second-token-0123456789", 200)

	name := g.flags["audit-file"]
	require.NoError(t, os.Rename(name, name+".1"))
	g.hangup <- os.Interrupt
	require.Eventually(t, func() bool {
		audit, err := os.ReadFile(name)
		return err == nil && bytes.Contains(audit, []byte(`"who":"signal"`))
	}, 20*time.Second, 5*time.Millisecond)
	require.NoError(t, g.stop())
}

// Requests must not fail while certificates are exchanged, a broken or expired one must not be used,
// and the metrics must say when it expires (M6).
func TestReloadCertificate(t *testing.T) {
	cert, key, pool := selfSigned(t)
	g := startGuarded(t, fmt.Sprintf(tokenFile, "app", "app-token-0123456789"), cert, key, pool)
	g.becomes("app-token-0123456789", 200)
	serial := func() string {
		conn, err := tls.Dial("tcp", g.d.Addr(), &tls.Config{RootCAs: pool})
		require.NoError(t, err)
		defer conn.Close()
		leaf := conn.ConnectionState().PeerCertificates[0]
		return fmt.Sprintf("%x", leaf.Signature)
	}
	before := serial()
	fresh, freshKey, freshPool := selfSigned(t)
	move := func(from, to string) {
		require.NoError(t, os.Rename(from, to))
	}
	replace(t, cert, "broken")
	require.Eventually(t, func() bool {
		return g.told("reload refused, what was in use stays") == 1
	}, 20*time.Second, time.Millisecond)
	require.Equal(t, before, serial(), "what was in use stays")

	both := pool.Clone()
	body, err := os.ReadFile(fresh)
	require.NoError(t, err)
	require.True(t, both.AppendCertsFromPEM(body))
	g.http.CloseIdleConnections()
	g.http = &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: both}}}
	move(freshKey, key)
	move(fresh, cert)
	pool = both
	failed := 0
	require.Eventually(t, func() bool {
		if g.status("app-token-0123456789") != 200 {
			failed++
		}
		g.http.CloseIdleConnections()
		// The certificate is exchanged before the rest, and the reload is over when it is told.
		return serial() != before && g.told("reloaded") > 0
	}, 20*time.Second, time.Millisecond)
	require.Zero(t, failed, "a request failed")
	require.NotNil(t, freshPool)

	req, err := http.NewRequest(http.MethodGet, "https://"+g.d.Addr()+"/metrics", nil)
	require.NoError(t, err)
	req.Header.Set("Authorization", "Bearer app-token-0123456789")
	resp, err := g.http.Do(req)
	require.NoError(t, err)
	text, err := io.ReadAll(resp.Body)
	require.NoError(t, err)
	require.NoError(t, resp.Body.Close())
	require.Regexp(t, `cicada_tls_expiry_seconds 3[0-9.e+]+\n`, string(text))
	require.Contains(t, string(text), "cicada_reload_failed 0\n")
	require.NoError(t, g.stop())
}

// A name that was taken for this machine's and leads elsewhere must not open the API to others: the
// configuration cannot know what a name means, only the listener does.
func TestPrivate(t *testing.T) {
	cfg := conf(t, t.TempDir(), nil)
	require.NoError(t, private(cfg, &net.TCPAddr{IP: net.ParseIP("127.0.0.1")}))
	require.NoError(t, private(cfg, &net.TCPAddr{IP: net.ParseIP("::1")}))
	for _, ip := range []string{"0.0.0.0", "::", "192.168.1.5", "8.8.8.8", "fe80::1", "::ffff:10.0.0.1"} {
		require.ErrorIs(t, private(cfg, &net.TCPAddr{IP: net.ParseIP(ip)}), delay.ErrInvalid, ip)
	}
	cfg.OpenAPI = true
	require.NoError(t, private(cfg, &net.TCPAddr{IP: net.ParseIP("0.0.0.0")}))
}

// What waits for its time is nobody's business but the owner's, and a link that somebody put there
// must not have us cut another file.
func TestOwnDir(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "data", "store")
	require.NoError(t, ownDir(dir))
	for _, d := range []string{dir, filepath.Dir(dir)} {
		info, err := os.Stat(d)
		require.NoError(t, err)
		require.Equal(t, os.FileMode(0o700), info.Mode().Perm())
	}
	precious := filepath.Join(t.TempDir(), "precious")
	require.NoError(t, os.WriteFile(precious, []byte("x"), 0o600))
	require.NoError(t, os.Symlink(precious, filepath.Join(dir, "LOCK")))
	require.ErrorIs(t, ownDir(dir), delay.ErrInvalid)
}
