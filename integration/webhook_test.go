// SPDX-License-Identifier: Apache-2.0

package integration

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// receiver remembers what it got and answers as the path says.
type receiver struct {
	*httptest.Server
	mu   sync.Mutex
	got  map[string][]post // by path
	next map[string][]int  // statuses to answer with, then 200
}

type post struct {
	at     time.Time
	header http.Header
	body   string
	query  string
}

func receive(t *testing.T) *receiver {
	t.Helper()
	r := &receiver{got: map[string][]post{}, next: map[string][]int{}}
	r.Server = httptest.NewServer(http.HandlerFunc(r.serve))
	t.Cleanup(r.Close)
	return r
}

func (r *receiver) serve(w http.ResponseWriter, req *http.Request) {
	at := time.Now()
	body, _ := io.ReadAll(req.Body)
	r.mu.Lock()
	defer r.mu.Unlock()
	p := req.URL.Path
	r.got[p] = append(r.got[p], post{at, req.Header, string(body), req.URL.RawQuery})
	status := http.StatusOK
	if len(r.next[p]) > 0 {
		status, r.next[p] = r.next[p][0], r.next[p][1:]
	}
	w.WriteHeader(status)
}

func (r *receiver) answer(path string, statuses ...int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.next[path] = statuses
}

func (r *receiver) posts(path string) []post {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.got[path]
}

func (r *receiver) host() string { return strings.TrimPrefix(r.URL, "http://") }

// A webhook gets the message, its control headers and a signature, once, and not early.
func TestWebhookRequest(t *testing.T) {
	t.Parallel()
	r := receive(t)
	const key = "0123456789abcdef0123456789abcdef"
	file := filepath.Join(t.TempDir(), "cicada.yaml")
	require.NoError(t, os.WriteFile(file, []byte("webhooks:\n  secrets:\n    - {id: k1, key: \""+key+
		"\"}\n"), 0o600))
	d := serve(t, "--config", file, "--webhook-allow", r.host(), "--tier-flush-interval", "500ms")
	sent := d.send(obj{
		"id": "w/1 ü", "target": r.URL + "/hook?a=1", "delay": "300ms", "body": "hello", "key": "k",
		"headers": obj{"X-Mine": "yes", "Content-Type": "text/x-mine"},
	})
	eventually(t, "the message is delivered", func() bool { return d.state("w/1 ü") == "delivered" })
	posts := r.posts("/hook")
	require.Len(t, posts, 1)
	p := posts[0]
	require.GreaterOrEqual(t, p.at.UnixMilli(), num(t, sent, "due_ms"), "early")
	require.Equal(t, "hello", p.body)
	require.Equal(t, "a=1", p.query)
	require.Equal(t, "yes", p.header.Get("X-Mine"))
	require.Equal(t, "text/x-mine", p.header.Get("Content-Type"))
	require.Equal(t, "1", p.header.Get("Cicada-Attempt"))
	require.NotEmpty(t, p.header.Get("Cicada-Due"))
	require.NotEmpty(t, p.header.Get("Cicada-Fired-At"))
	id := p.header.Get("Cicada-Id")
	require.NotEmpty(t, id)
	require.Equal(t, id, p.header.Get("Idempotency-Key"))

	at, signature, found := strings.Cut(p.header.Get("Cicada-Signature"), ",v1=")
	require.True(t, found, p.header.Get("Cicada-Signature"))
	mac := hmac.New(sha256.New, []byte(key))
	mac.Write([]byte(id + "." + strings.TrimPrefix(at, "t=") + ".hello"))
	require.Equal(t, hex.EncodeToString(mac.Sum(nil)), signature)
	require.NotContains(t, d.logFrom(0), key, "a secret in the log")
	require.NotContains(t, d.logFrom(0), "hello", "a payload in the log")

	plain := text(d.send(obj{"target": r.URL + "/plain", "delay": 0}), "id")
	eventually(t, "the message is delivered", func() bool { return d.state(plain) == "delivered" })
	require.Equal(t, plain, r.posts("/plain")[0].header.Get("Idempotency-Key"))
}

// What a status means decides between a lost message and one that is posted for ever.
func TestWebhookAnswers(t *testing.T) {
	t.Parallel()
	r := receive(t)
	d := serve(t, "--webhook-allow", r.host(), "--tier-flush-interval", "500ms",
		"--delivery-backoff", "20ms", "--delivery-max-backoff", "50ms")
	for path, c := range map[string]struct {
		statuses []int
		attempts int
		state    string
	}{
		"/200": {nil, 1, "delivered"},
		"/204": {[]int{204}, 1, "delivered"},
		"/500": {[]int{500, 503, 502}, 4, "delivered"},
		"/429": {[]int{429, 408, 425}, 4, "delivered"},
		"/404": {[]int{404}, 1, "dead"},
		"/400": {[]int{400}, 1, "dead"},
		"/410": {[]int{410}, 1, "dead"},
		"/max": {[]int{500, 500, 500, 500, 500, 500}, 3, "dead"},
	} {
		r.answer(path, c.statuses...)
		m := obj{"id": path, "target": r.URL + path, "delay": 0, "backoff": "20ms"}
		if path == "/max" {
			m["max_attempts"] = 3
		}
		d.send(m)
		eventually(t, path, func() bool { return d.state(path) == c.state })
		posts := r.posts(path)
		require.Len(t, posts, c.attempts, path)
		for i, p := range posts {
			require.Equal(t, string(rune('1'+i)), p.header.Get("Cicada-Attempt"), path)
			require.Equal(t, posts[0].header.Get("Idempotency-Key"), p.header.Get("Idempotency-Key"))
		}
	}
	rows := list(t, d.call("GET", "/v1/dead-letters", nil).ok(t), "messages")
	require.Len(t, rows, 4)
	b := d.books()
	require.EqualValues(t, 4, b["dead"])
	require.EqualValues(t, 4, b["delivered"])
	balanced(t, b)

	// A target that fails delays only itself (S9).
	many := make([]int, 1000)
	for i := range many {
		many[i] = 500
	}
	bad := receive(t)
	bad.answer("/bad", many...)
	d2 := serve(t, "--webhook-allow", r.host(), "--webhook-allow", bad.host())
	for range 50 {
		d2.send(obj{"target": bad.URL + "/bad", "delay": 0})
	}
	good := text(d2.send(obj{"target": r.URL + "/good", "delay": 0}), "id")
	eventually(t, "the good one", func() bool { return d2.state(good) == "delivered" })
	d2.send(obj{"target": "pull:q", "delay": 0})
	d2.pullOne("q", obj{})
}

// A webhook must not be a way into the network of the daemon.
func TestWebhookAddresses(t *testing.T) {
	t.Parallel()
	r := receive(t)
	_, port, _ := strings.Cut(r.host(), ":")
	// A name that resolves to loopback passes the accept and is refused when connecting.
	d := serve(t, "--delivery-backoff", "20ms", "--delivery-max-backoff", "50ms")
	sent := d.call("POST", "/v1/messages", obj{
		"id": "name", "target": "http://localhost:" + port + "/x", "delay": 0, "max_attempts": 2,
	})
	if sent.status == http.StatusOK {
		eventually(t, "the message is given up", func() bool { return d.state("name") == "dead" })
	} else {
		sent.refused(t, http.StatusBadRequest, "invalid_argument", "target")
	}
	require.Empty(t, r.posts("/x"))
	// With a list, nothing else is let in, public or not.
	d = serve(t, "--webhook-allow", "hooks.example.com")
	for _, target := range []string{
		"https://example.org/", r.URL + "/x", "https://evil.hooks.example.com.example.org/",
		"https://hooks.example.com@example.org/",
	} {
		d.call("POST", "/v1/messages", obj{"target": target, "delay": "1h"}).
			refused(t, http.StatusBadRequest, "invalid_argument", "target")
	}
	d.send(obj{"target": "https://hooks.example.com/x", "delay": "1h"})
	// A redirect is not followed.
	var hops sync.Map
	hop := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		hops.Store(req.URL.Path, true)
		http.Redirect(w, req, r.URL+"/redirected", http.StatusTemporaryRedirect)
	}))
	defer hop.Close()
	d = serve(t, "--webhook-allow", strings.TrimPrefix(hop.URL, "http://"))
	d.send(obj{"id": "hop", "target": hop.URL + "/a", "delay": 0, "max_attempts": 1})
	eventually(t, "a redirect is no delivery", func() bool { return d.state("hop") == "dead" })
	require.Empty(t, r.posts("/redirected"))
}
