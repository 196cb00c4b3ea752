// SPDX-License-Identifier: Apache-2.0

package integration

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// ca makes certificates in a directory.
type ca struct {
	t    testing.TB
	dir  string
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
	next int64
}

func newCA(t testing.TB) *ca {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "ca"}, IsCA: true,
		BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	require.NoError(t, err)
	cert, err := x509.ParseCertificate(der)
	require.NoError(t, err)
	c := &ca{t: t, dir: t.TempDir(), cert: cert, key: key, next: 1}
	c.put("ca.pem", "CERTIFICATE", der)
	return c
}

func (c *ca) path(name string) string { return filepath.Join(c.dir, name) }

// put writes a PEM file as one step.
func (c *ca) put(name, kind string, der []byte) {
	body := pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der})
	require.NoError(c.t, os.WriteFile(c.path(name+".new"), body, 0o600))
	require.NoError(c.t, os.Rename(c.path(name+".new"), c.path(name)))
}

// issue writes name.pem and name.key.
func (c *ca) issue(name string) {
	c.t.Helper()
	c.next++
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(c.t, err)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(c.next), Subject: pkix.Name{CommonName: name},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, c.cert, &key.PublicKey, c.key)
	require.NoError(c.t, err)
	secret, err := x509.MarshalECPrivateKey(key)
	require.NoError(c.t, err)
	c.put(name+".key", "EC PRIVATE KEY", secret)
	c.put(name+".pem", "CERTIFICATE", der)
}

// pool trusts the authority.
func (c *ca) pool() *x509.CertPool {
	p := x509.NewCertPool()
	p.AddCert(c.cert)
	return p
}

// awaitReady waits for a daemon that does not answer to everybody, and makes scheme its URL's.
func (d *daemon) awaitReady(scheme string) {
	d.t.Helper()
	addr := ""
	eventually(d.t, "it is ready", func() bool { addr = d.readyLine(0); return addr != "" })
	base := scheme + "://" + addr
	d.base.Store(&base)
	d.t.Cleanup(d.kill)
}

// as makes a call with a token.
func (d *daemon) as(token, method, path string, body any) reply {
	d.t.Helper()
	req, err := http.NewRequest(method, *d.base.Load()+path, reader(body))
	require.NoError(d.t, err)
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("Authorization", "Bearer "+token)
	r := d.do(req)
	require.NoError(d.t, r.err, tail(d.logFrom(0)))
	return r
}

// Secrets must be in no log, metric, answer, dump or error, at the lowest level, with everything
// going wrong that has to do with them. Each of the canaries is planted where it belongs.
func TestSecretsStaySecret(t *testing.T) {
	t.Parallel()
	c := newCA(t)
	c.issue("api")
	key, err := os.ReadFile(c.path("api.key"))
	require.NoError(t, err)
	const (
		token, other  = "canary-token-7f3a9c1e", "canary-ops-5d2b8e4f"
		wrong, s3     = "canary-wrong-1a2b3c4d", "canary-s3-secret-9e8d7c"
		session, hook = "canary-session-6b5a4c", "canary-webhook-0f1e2d3c"
		basic, query  = "canary-basic-auth-3c4d", "canary-query-8a7b6c5d"
		body, header  = "canary-body-2e3f4a5b", "canary-header-7c8d9e0f"
		late          = "canary-late-token-4b5c6d"
	)
	canaries := []string{token, other, wrong, s3, session, hook, basic, query, body, header, late,
		strings.Split(string(key), "\n")[1]}
	dir := t.TempDir()
	file, audit := filepath.Join(dir, "c.yaml"), filepath.Join(dir, "audit.log")
	text := fmt.Sprintf("api:\n  tls: {cert: %q, key: %q}\n  tokens:\n"+
		"    - {name: app, token: %q, scopes: [read, send], targets: [\"pull:*\", \"http://*:*\"]}\n"+
		"    - {name: ops, token: %q, scopes: [admin]}\nwebhooks:\n  secrets: [{id: k1, key: %q}]\n"+
		"tier: {s3: {access_key_id: AK, secret_access_key: %q, session_token: %q}}\n",
		c.path("api.pem"), c.path("api.key"), token, other, hook, s3, session)
	require.NoError(t, os.WriteFile(file, []byte(text), 0o600))
	var out bytes.Buffer // everything that anybody gets to see, but for the message's owner
	refusing := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(http.StatusUnauthorized)
	}))
	t.Cleanup(refusing.Close)

	d := newDaemon(t, append([]string{"--config", file, "--log-level", "debug", "--audit-file", audit,
		"--webhook-allow", strings.TrimPrefix(refusing.URL, "http://")}, quick...)...)
	d.client.Transport.(*http.Transport).TLSClientConfig = &tls.Config{RootCAs: c.pool()}
	d.launch()
	d.awaitReady("https")
	note := func(r reply) reply { out.Write(r.body); fmt.Fprint(&out, r.header); return r }
	note(d.as(wrong, "GET", "/v1/status", nil)).refused(t, 401, "unauthenticated", "")
	note(d.as(token, "GET", "/v1/status", nil)).refused(t, 403, "permission_denied", "")
	note(d.as(token, "POST", "/v1/messages", obj{"target": "http://u:" + basic + "@x.example/", "delay": 0})).
		refused(t, 400, "invalid_argument", "target")
	note(d.as(other, "POST", "/v1/messages", obj{"target": "http://u:" + basic + "@x.example/", "delay": 0})).
		refused(t, 400, "invalid_argument", "target")
	note(d.as(other, "POST", "/v1/messages", obj{"id": "hook", "delay": 0, "body": body,
		"target": refusing.URL + "/x?key=" + query, "headers": obj{"authorization": header}})).ok(t)
	note(d.as(token, "POST", "/v1/messages", `{"target":"pull:q","delay":0,"body":"`+body+`",`)).
		refused(t, 400, "", "")
	eventually(t, "the webhook is refused", func() bool {
		return text2(d.as(other, "GET", "/v1/messages/hook", nil), "state") == "dead"
	})
	note(d.as(other, "POST", "/v1/dead-letters/hook/retry", nil)).ok(t)
	d.as(other, "POST", "/v1/targets/pause", obj{"target": refusing.URL + "/x?key=" + query}).ok(t)
	note(d.as(other, "POST", "/v1/pending/purge", obj{"target": "pull:q"})).ok(t)
	for _, broken := range []string{
		strings.Replace(text, "scopes: [admin]", "scopes: ["+late+"x]", 1) + "bad: [" + "\n",
		strings.Replace(text, "token: \""+other, "sha256: \""+late, 1),
		strings.Replace(text, "{id: k1, key: \""+hook+"\"}", "{id: k1, key: [\""+hook+"\"]}", 1) + "x: 1\n",
		strings.Replace(text, "[read, send]", "{"+"a: 1}", 1),
	} {
		from := d.logSize()
		require.NoError(t, os.WriteFile(file+".new", []byte(broken), 0o600))
		require.NoError(t, os.Rename(file+".new", file))
		require.NoError(t, d.cmd.Process.Signal(syscall.SIGHUP))
		eventually(t, "the broken file is refused", func() bool {
			return strings.Contains(d.logFrom(from), "reload refused")
		})
		r := cliRun{}.run(t, "config", "check", file)
		require.NotZero(t, r.code)
		out.WriteString(r.String())
	}
	require.NoError(t, os.WriteFile(file, []byte(text), 0o600))
	for _, path := range []string{"/v1/status", "/metrics", "/v1/targets", "/healthz", "/readyz", "/v1/tier"} {
		r := d.as(other, "GET", path, nil)
		if path != "/v1/targets" { // its owner may read the target
			note(r)
		}
	}
	r := cliRun{}.run(t, "config", "print", "--config", file)
	require.Zero(t, r.code)
	out.WriteString(r.String())
	env := []string{"AWS_ACCESS_KEY_ID=AK", "AWS_SECRET_ACCESS_KEY=" + s3, "AWS_SESSION_TOKEN=" + session}
	r = cliRun{env: env}.run(t, "doctor", "--bucket", "s3://no-such/x?endpoint=http://127.0.0.1:1")
	require.NotZero(t, r.code)
	out.WriteString(r.String())
	r = cliRun{env: env}.run(t, "serve", "--bucket", "s3://AK:"+s3+"@no-such/x", "--data-dir", dir+"/d")
	require.NotZero(t, r.code)
	out.WriteString(r.String())
	cmdline, _ := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", d.cmd.Process.Pid))
	out.Write(cmdline)
	// A crash with a dump of all goroutines prints pointers, not strings.
	require.NoError(t, d.cmd.Process.Signal(syscall.SIGQUIT))
	require.NotZero(t, d.wait())
	log := d.logFrom(0)
	require.Contains(t, log, "goroutine")
	lines, err := os.ReadFile(audit)
	require.NoError(t, err)
	require.Contains(t, string(lines), `"action":"purge"`)
	for name, text := range map[string]string{
		"log and dump": log, "audit": string(lines), "answers": out.String(),
	} {
		require.NotEmpty(t, text)
		for _, canary := range canaries {
			at := strings.Index(text, canary)
			require.Negative(t, at, "%s holds %s: …%s…", name, canary,
				text[max(0, at-200):min(len(text), max(at, 0)+100)])
		}
	}
	for _, dir := range []string{d.data, filepath.Join(d.data, "store")} {
		info, err := os.Stat(dir)
		require.NoError(t, err)
		require.Equal(t, fs.FileMode(0o700), info.Mode().Perm(), dir)
	}
	info, err := os.Stat(audit)
	require.NoError(t, err)
	require.Equal(t, fs.FileMode(0o600), info.Mode().Perm())
}

func text2(r reply, key string) string {
	var o obj
	_ = json.Unmarshal(r.body, &o)
	return text(o, key)
}

// Two clients of one daemon must not see each other, over certificates and tokens, with the command
// line too; a name that is taken away ends at once; certificates change under traffic; the audit
// knows who did what.
func TestClientsApart(t *testing.T) {
	t.Parallel()
	c := newCA(t)
	for _, name := range []string{"api", "shop", "stranger"} {
		c.issue(name)
	}
	dir := t.TempDir()
	file, audit := filepath.Join(dir, "c.yaml"), filepath.Join(dir, "audit.log")
	text := fmt.Sprintf("api:\n  tls: {cert: %q, key: %q, client_ca: %q, client_cert: optional}\n"+
		"  tokens:\n    - {name: ops, token: ops-token-0123456789, scopes: [admin]}\n"+
		"    - {name: bill, token: bill-token-0123456789, scopes: [send, read], targets: [\"pull:bill*\"]}\n"+
		"  clients:\n    - {name: shop, scopes: [send, read], targets: [\"pull:shop*\"]}\n",
		c.path("api.pem"), c.path("api.key"), c.path("ca.pem"))
	require.NoError(t, os.WriteFile(file, []byte(text), 0o600))
	d := newDaemon(t, append([]string{"--config", file, "--audit-file", audit}, quick...)...)
	d.client.Transport.(*http.Transport).TLSClientConfig = &tls.Config{RootCAs: c.pool()}
	d.launch()
	d.awaitReady("https")
	const ops, bill = "ops-token-0123456789", "bill-token-0123456789"
	cli := func(name string, args ...string) cliResult {
		return cliRun{env: []string{"CICADA_SERVER=" + *d.base.Load(), "CICADA_CACERT=" + c.path("ca.pem")}}.
			run(t, append(args, "--cert", c.path(name+".pem"), "--key-file", c.path(name+".key"))...)
	}
	r := cli("shop", "send", "--target", "pull:shop1", "--delay", "1h", "--id", "s-1", "x")
	require.Zero(t, r.code, "%s", r)
	require.Equal(t, 4, cli("shop", "send", "--target", "pull:bill1", "--delay", "1h", "x").code)
	require.Equal(t, 4, cli("stranger", "ls").code)
	d.as(bill, "POST", "/v1/messages", obj{"id": "b-1", "target": "pull:bill1", "delay": "1h"}).ok(t)
	for _, what := range [][2]string{{"GET", ""}, {"DELETE", ""}, {"POST", "/fire"}} {
		foreign := d.as(bill, what[0], "/v1/messages/s-1"+what[1], nil)
		absent := d.as(bill, what[0], "/v1/messages/x-1"+what[1], nil)
		require.Equal(t, http.StatusNotFound, foreign.status)
		require.Equal(t, strings.ReplaceAll(string(absent.body), "x-1", "s-1"), string(foreign.body))
	}
	d.as(bill, "POST", "/v1/messages", obj{"id": "s-1", "target": "pull:bill1", "delay": "1h",
		"replace": true}).refused(t, http.StatusConflict, "already_exists", "")
	require.EqualValues(t, 1, num(t, d.as(bill, "GET", "/v1/pending/count", nil).ok(t), "count"))
	require.Len(t, list(t, d.as(bill, "GET", "/v1/messages", nil).ok(t), "messages"), 1)
	require.EqualValues(t, 2, num(t, d.as(ops, "GET", "/v1/pending/count", nil).ok(t), "count"))
	require.Contains(t, cli("shop", "ls").out, "s-1")
	require.NotContains(t, cli("shop", "ls").out, "b-1")

	d.as(ops, "POST", "/v1/targets/pause", obj{"target": "pull:bill1"}).ok(t)
	d.as(bill, "POST", "/v1/targets/pause", obj{"target": "pull:bill1"}).refused(t, 403, "", "")
	d.as(ops, "DELETE", "/v1/messages/b-1", nil).ok(t)
	d.as(ops, "POST", "/v1/pending/purge", obj{"id_prefix": "s-"}).ok(t)
	var seen []string
	body, err := os.ReadFile(audit)
	require.NoError(t, err)
	for line := range bytes.Lines(body) {
		var e map[string]any
		require.NoError(t, json.Unmarshal(line, &e))
		seen = append(seen, fmt.Sprint(e["who"], " ", e["action"], " ", e["answer"]))
		require.Contains(t, e["from"], "127.0.0.1:")
	}
	require.Equal(t, []string{"token ops pause ok", "token bill pause permission_denied",
		"token ops cancel CANCELLED", "token ops purge ok"}, seen)

	// Rotation under traffic, and revocation by removal.
	var stop atomic.Bool
	var asked, failed atomic.Int64
	var wg sync.WaitGroup
	for range 2 {
		wg.Go(func() {
			hc := &http.Client{Timeout: 20 * time.Second, Transport: &http.Transport{
				TLSClientConfig: &tls.Config{RootCAs: c.pool()}}}
			defer hc.CloseIdleConnections()
			for !stop.Load() {
				req, _ := http.NewRequest(http.MethodGet, *d.base.Load()+"/v1/status", nil)
				req.Header.Set("Authorization", "Bearer "+ops)
				resp, err := hc.Do(req)
				if err != nil || resp.StatusCode != http.StatusOK {
					failed.Add(1)
				}
				if err == nil {
					_, _ = io.Copy(io.Discard, resp.Body)
					_ = resp.Body.Close()
				}
				if asked.Add(1)%10 == 0 {
					hc.CloseIdleConnections()
				}
			}
		})
	}
	old, err := os.ReadFile(c.path("api.pem"))
	require.NoError(t, err)
	c.issue("api")
	before, _, found := strings.Cut(text, "  clients:")
	require.True(t, found)
	without := before +
		"  clients:\n    - {name: nobody, scopes: [read]}\n"
	require.NoError(t, os.WriteFile(file+".new", []byte(without), 0o600))
	require.NoError(t, os.Rename(file+".new", file))
	require.NoError(t, d.cmd.Process.Signal(syscall.SIGHUP))
	eventually(t, "the name is taken away", func() bool { return cli("shop", "ls").code == 4 })
	conn, err := tls.Dial("tcp", strings.TrimPrefix(*d.base.Load(), "https://"),
		&tls.Config{RootCAs: c.pool()})
	require.NoError(t, err)
	block, _ := pem.Decode(old)
	require.NotEqual(t, block.Bytes, conn.ConnectionState().PeerCertificates[0].Raw)
	require.NoError(t, conn.Close())
	stop.Store(true)
	wg.Wait()
	require.Zero(t, failed.Load(), "of %d", asked.Load())
	require.Positive(t, asked.Load())
	d.term()
	require.Zero(t, d.wait(), tail(d.logFrom(0)))
}

// inward are targets that lead inside in one spelling or another; %d is the port of a canary on
// loopback, of both families. None may be connected to, whether it is refused at once or later.
var inward = []string{
	"http://127.0.0.1:%d/", "http://127.1:%d/", "http://127.0.1:%d/", "http://2130706433:%d/",
	"http://0x7f000001:%d/", "http://0X7F.1:%d/", "http://0177.0.0.1:%d/", "http://017700000001:%d/",
	"http://0:%d/", "http://0.0.0.0:%d/", "http://00:%d/", "http://0x0:%d/", "http://127.0.0.1.:%d/",
	"http://127.000.000.001:%d/", "http://127.0.0.0x1:%d/", "http://127.255.255.254:%d/",
	"http://localhost:%d/", "http://LocalHost:%d/", "http://localhost.:%d/", "http://a.localhost:%d/",
	"http://ip6-localhost:%d/", "http://localhost.localdomain:%d/", "http://[::1]:%d/",
	"http://[0:0:0:0:0:0:0:1]:%d/", "http://[::]:%d/", "http://[::127.0.0.1]:%d/",
	"http://[::ffff:127.0.0.1]:%d/", "http://[::ffff:7f00:1]:%d/", "http://[::ffff:0:127.0.0.1]:%d/",
	"http://[64:ff9b::7f00:1]:%d/", "http://[64:ff9b:1::7f00:1]:%d/", "http://[2002:7f00:1::]:%d/",
	"http://[2001:0:7f00:1::]:%d/", "http://[fe80::1]:%d/", "http://[fe80::1%%25lo]:%d/",
	"http://[::1%%25lo]:%d/", "http://[fc00::1]:%d/", "http://[fd00:ec2::254]:%d/",
	"http://10.0.0.1:%d/", "http://172.16.0.1:%d/", "http://192.168.0.1:%d/", "http://100.64.0.1:%d/",
	"http://169.254.169.254:%d/latest/meta-data/", "http://169.254.170.2:%d/", "http://100.100.100.200:%d/",
	"http://metadata.google.internal:%d/", "http://metadata:%d/", "http://instance-data:%d/",
	"http://224.0.0.1:%d/", "http://255.255.255.255:%d/", "http://x@127.0.0.1:%d/",
	"http://example.com@127.0.0.1:%d/", "http://127.0.0.1:%d@example.com/", "http://@127.0.0.1:%d/",
	"http://example.com\\@127.0.0.1:%d/", "http://127.0.0.1:%d\\.example.com/",
	"http://127.0.0.1:%d#.example.com/", "http://127。0。0。1:%d/", "http://127.0.0。1:%d/",
	"http://①②⑦.⓪.⓪.①:%d/", "http://ⓛⓞⓒⓐⓛⓗⓞⓢⓣ:%d/", "http://%%31%%32%%37.0.0.1:%d/",
	"http://%%6c%%6f%%63%%61%%6c%%68%%6f%%73%%74:%d/", "http://127.0.0.1%%00.example.com:%d/",
	"http://127.0.0.1%%0a:%d/", "http:127.0.0.1:%d/", "http:///127.0.0.1:%d/", "//127.0.0.1:%d/",
	"http://127.0.0.1 :%d/", "http://[127.0.0.1]:%d/", "https://127.0.0.1:%d/", "HTTP://127.0.0.1:%d/",
	"http://0x7f000001.:%d/", "http://localhost%%2e:%d/", "http://127.0.0.1:0%d/",
	"ftp://127.0.0.1:%d/", "unix:///127.0.0.1:%d", "http+unix://127.0.0.1:%d/",
}

// Nothing that a caller writes into a target may have the program connect to the inside: not in any
// spelling, not by a redirect, not by a proxy of the environment, not by a name that resolves there.
func TestHostileTargets(t *testing.T) {
	t.Parallel()
	require.GreaterOrEqual(t, len(inward), 60)
	var conns atomic.Int64
	canary := func(network, addr string) net.Listener {
		l, err := net.Listen(network, addr)
		if err != nil {
			return nil // this machine lacks the family
		}
		t.Cleanup(func() { _ = l.Close() })
		go func() {
			for {
				c, err := l.Accept()
				if err != nil {
					return
				}
				conns.Add(1)
				_ = c.Close()
			}
		}()
		return l
	}
	v4 := canary("tcp4", "0.0.0.0:0") // every address of this machine, link-local ones too
	require.NotNil(t, v4)
	port := v4.Addr().(*net.TCPAddr).Port
	canary("tcp6", fmt.Sprintf("[::]:%d", port))

	// One receiver is allowed, and sends on to the canary.
	redirect := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		code := map[string]int{"/301": 301, "/302": 302, "/303": 303, "/307": 307, "/308": 308}[r.URL.Path]
		w.Header().Set("Location", fmt.Sprintf("http://127.0.0.1:%d/latest/meta-data/", port))
		w.Header().Set("Refresh", fmt.Sprintf("0; url=http://127.0.0.1:%d/", port))
		w.WriteHeader(code)
	}))
	t.Cleanup(redirect.Close)
	d := newDaemon(t, append([]string{"--config", filepath.Join(t.TempDir(), "c.yaml")}, quick...)...)
	require.NoError(t, os.WriteFile(d.args[1], []byte("webhooks:\n  allow: [\"*.example\", \"*.localtest.me\","+
		"\""+strings.TrimPrefix(redirect.URL, "http://")+"\"]\n"), 0o600))
	proxy := fmt.Sprintf("http://127.0.0.1:%d", port)
	for _, name := range []string{"HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy"} {
		d.env = append(d.env, name+"="+proxy)
	}
	d.start()
	t.Cleanup(d.kill)
	open := newDaemon(t, quick...) // without a list: everything public
	open.env = d.env
	open.start()
	t.Cleanup(open.kill)
	for _, target := range inward {
		target = fmt.Sprintf(target, port)
		for _, d := range []*daemon{d, open} {
			r := d.call("POST", "/v1/messages", obj{"target": target, "delay": 0})
			require.Equal(t, http.StatusBadRequest, r.status, "%s: %s", target, r)
		}
	}
	for _, code := range []string{"301", "302", "303", "307", "308"} {
		d.send(obj{"id": code, "target": redirect.URL + "/" + code, "delay": 0})
	}
	d.send(obj{"id": "name", "target": fmt.Sprintf("http://x.localtest.me:%d/", port), "delay": 0, "ttl": "2s"})
	open.send(obj{"id": "name", "target": "http://x.invalid/", "delay": 0, "ttl": "2s"})
	for _, code := range []string{"301", "302", "303", "307", "308"} {
		eventually(t, "a redirect is an answer", func() bool { return d.state(code) == "dead" })
	}
	eventually(t, "the names are given up", func() bool {
		return slices.Contains([]string{"dead", "expired"}, d.state("name")) && open.state("name") == "expired"
	})
	require.Zero(t, conns.Load(), "connections to the inside")
}

// A receiver must be able to move from one signing key to the next without refusing a call, and a
// call that was changed, is old or was signed by another key must not verify.
func TestWebhookSigningRotation(t *testing.T) {
	t.Parallel()
	type call struct{ id, signature, body string }
	calls := make(chan call, 100)
	r := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, req *http.Request) {
		body, _ := io.ReadAll(req.Body)
		calls <- call{req.Header.Get("Cicada-Id"), req.Header.Get("Cicada-Signature"), string(body)}
	}))
	t.Cleanup(r.Close)
	file := filepath.Join(t.TempDir(), "c.yaml")
	keys := func(list ...string) {
		text := "webhooks:\n  secrets:\n"
		for i, k := range list {
			text += fmt.Sprintf("    - {id: k%d, key: %q}\n", i, k)
		}
		require.NoError(t, os.WriteFile(file+".new", []byte(text), 0o600))
		require.NoError(t, os.Rename(file+".new", file))
	}
	// verifies is written as a receiver would, from the documentation alone.
	verifies := func(c call, key string) bool {
		stamp, rest, _ := strings.Cut(c.signature, ",")
		mac := hmac.New(sha256.New, []byte(key))
		mac.Write([]byte(c.id + "." + strings.TrimPrefix(stamp, "t=") + "." + c.body))
		return slices.Contains(strings.Split(rest, ","), "v1="+hex.EncodeToString(mac.Sum(nil)))
	}
	const one, two = "first-key-0123456789", "second-key-0123456789"
	keys(one)
	d := newDaemon(t, append([]string{"--config", file,
		"--webhook-allow", strings.TrimPrefix(r.URL, "http://")}, quick...)...)
	d.start()
	t.Cleanup(d.kill)
	next := func() call {
		d.send(obj{"target": r.URL, "delay": 0, "body": "hello"})
		select {
		case c := <-calls:
			return c
		case <-time.After(20 * time.Second):
			require.FailNow(t, "no call")
			return call{}
		}
	}
	c := next()
	require.True(t, verifies(c, one))
	require.False(t, verifies(c, two))
	require.False(t, verifies(call{c.id, c.signature, "hellp"}, one))
	require.False(t, verifies(call{c.id + "x", c.signature, c.body}, one))
	for _, step := range [][]string{{one, two}, {two}} {
		keys(step...)
		require.NoError(t, d.cmd.Process.Signal(syscall.SIGHUP))
		eventually(t, "the keys are in use", func() bool {
			c := next()
			require.True(t, verifies(c, one) || verifies(c, two), "a call that no receiver takes")
			return verifies(c, two) && verifies(c, one) == (len(step) == 2)
		})
	}
}

// Clients that send their requests byte by byte, or too much, must lose their connections and cost
// others nothing; a stream that is alive goes on.
func TestSlowAndLargeRequests(t *testing.T) {
	t.Parallel()
	d := serve(t, quick...)
	addr := strings.TrimPrefix(*d.base.Load(), "http://")
	var slow []net.Conn
	for range 200 {
		c, err := net.Dial("tcp", addr)
		require.NoError(t, err)
		t.Cleanup(func() { _ = c.Close() })
		_, err = io.WriteString(c, "POST /v1/messages HTTP/1.1\r\nHost: x\r\nX-Slow: ")
		require.NoError(t, err)
		slow = append(slow, c)
	}
	began := time.Now()
	d.send(obj{"id": "beside", "target": "pull:q", "delay": "1h"})
	require.Less(t, time.Since(began), 8*time.Second, "others are held up until the slow ones are cut")

	huge, err := net.Dial("tcp", addr)
	require.NoError(t, err)
	defer huge.Close()
	_, _ = io.WriteString(huge, "GET /v1/status HTTP/1.1\r\nHost: x\r\nX-Large: "+strings.Repeat("x", 80<<10)+"\r\n\r\n")
	answer, _ := io.ReadAll(huge)
	require.Contains(t, string(answer), "431")

	// Each sends one byte a second: the time of the whole header counts, not that of a byte.
	deadline := time.Now().Add(30 * time.Second)
	alive := func(c net.Conn) bool {
		if _, err := io.WriteString(c, "x"); err != nil {
			return false
		}
		_ = c.SetReadDeadline(time.Now().Add(time.Millisecond))
		_, err := c.Read(make([]byte, 1))
		var n net.Error
		return err != nil && (errors.As(err, &n) && n.Timeout())
	}
	for len(slow) > 0 && time.Now().Before(deadline) {
		slow = slices.DeleteFunc(slow, func(c net.Conn) bool { return !alive(c) })
		time.Sleep(time.Second)
	}
	require.Empty(t, slow, "connections that never finish their header live on")
	m := d.pull("none", obj{"wait": "1s"})
	require.Empty(t, m)
}
