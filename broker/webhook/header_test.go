// SPDX-License-Identifier: Apache-2.0

package webhook

import (
	"bufio"
	"bytes"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/cicadamq/cicada/broker"
	"github.com/cicadamq/cicada/delay"
)

var update = flag.Bool("update", false, "rewrite the golden files")

var testSecrets = []Secret{
	{ID: "new", Key: []byte("0123456789abcdef-new")}, {ID: "old", Key: []byte("0123456789abcdef-old")},
}

func testNow() time.Time { return time.Unix(1_800_000_000, 999) }

// capture delivers d and returns the request as it was on the wire.
func capture(t *testing.T, opts Options, d broker.Delivery) string {
	t.Helper()
	var wire bytes.Buffer
	addr := rawServer(t, func(c net.Conn, r *bufio.Reader) {
		if _, err := readRequest(bufio.NewReader(io.TeeReader(r, &wire))); err == nil {
			io.WriteString(c, "HTTP/1.1 204 x\r\n\r\n")
		}
	})
	opts.AllowPrivate, opts.Now = true, testNow
	d.Target = delay.Target(fmt.Sprintf("http://%s%s", addr, d.Target))
	r := one(t, newSink(t, opts), d)
	require.Equal(t, broker.Delivered, r.Outcome, r.Reason)
	return strings.ReplaceAll(wire.String(), addr, "receiver:80")
}

// Receivers parse these bytes: a change must be seen in review.
func TestRequestGolden(t *testing.T) {
	d := sample("/hook/a%2Fb?x=y&z")
	d.RoutingKey = "customer-7"
	d.Headers = []delay.Header{
		{Name: "Content-Type", Value: "application/json"}, {Name: "X-Trace", Value: "a"},
		{Name: "x-trace", Value: "b"}, {Name: "Authorization", Value: "Bearer of-the-caller"},
	}
	got := capture(t, Options{Secrets: testSecrets, Version: "1.2.3"}, d)
	plain := sample("/")
	plain.Body = nil
	got += "\n----\n" + capture(t, Options{}, plain)
	got = strings.ReplaceAll(got, "\r\n", "\n")
	path := filepath.Join("testdata", "request.golden")
	if *update {
		require.NoError(t, os.WriteFile(path, []byte(got), 0o644))
	}
	want, err := os.ReadFile(path)
	require.NoError(t, err)
	require.Equal(t, string(want), got)
}

// A caller who could set these would forge a signature, an attempt or another request (W4).
func TestOwnedHeaders(t *testing.T) {
	d := sample("/")
	for _, name := range []string{
		"Host", "Content-Length", "Transfer-Encoding", "TE", "Trailer", "Connection", "Keep-Alive",
		"Proxy-Connection", "Proxy-Authorization", "Proxy-Authenticate", "Upgrade", "Expect",
		"HTTP2-Settings", "User-Agent", "Idempotency-Key", "X-Idempotency-Key", "cicada-id",
		"Cicada-Signature", "CICADA-ATTEMPT", "cicada-anything", "cicada_signature",
		"Transfer_Encoding", "content_length", "cicada-deliver-at",
	} {
		d.Headers = append(d.Headers, delay.Header{Name: name, Value: "0-canary"})
	}
	d.Headers = append(d.Headers, delay.Header{Name: "Content-Type", Value: "text/first"},
		delay.Header{Name: "content-type", Value: "text/second"})
	wire := capture(t, Options{Secrets: testSecrets}, d)
	require.NotContains(t, wire, "canary")
	require.Contains(t, wire, "content-type: text/first\r\n")
	require.NotContains(t, wire, "text/second")
	require.Equal(t, 1, strings.Count(strings.ToLower(wire), "content-length:"))
	require.Equal(t, 1, strings.Count(strings.ToLower(wire), "host:"))
	require.Contains(t, wire, "\r\nContent-Length: 5\r\n")
	require.Contains(t, wire, "\r\nUser-Agent: cicada\r\n")
}

// A line end in a header would begin another header or another request.
func TestHeaderSmuggling(t *testing.T) {
	c := newCanary(t)
	s := newSink(t, Options{AllowPrivate: true})
	for _, h := range []delay.Header{
		{Name: "", Value: "x"}, {Name: "a b", Value: "x"}, {Name: "a:", Value: "x"},
		{Name: "a\r\nb", Value: "x"}, {Name: "a\n", Value: "x"}, {Name: "ä", Value: "x"},
		{Name: "a", Value: "x\r\nb: c"}, {Name: "a", Value: "x\nb: c"}, {Name: "a", Value: "x\r"},
		{Name: "a", Value: "\x00"}, {Name: "a", Value: "\x7f"}, {Name: "(a)", Value: "x"},
		{Name: ":path", Value: "/"}, {Name: "cicada-id", Value: "x\r\n\r\nGET / HTTP/1.1"},
	} {
		d := sample(fmt.Sprintf("http://127.0.0.1:%d/", c.port))
		d.Headers = []delay.Header{{Name: "good", Value: "yes"}, h}
		var field *delay.FieldError
		require.ErrorAs(t, CheckHeaders(d.Headers), &field, "%q", h)
		require.Equal(t, "headers", field.Field)
		require.Equal(t, broker.Rejected, one(t, s, d).Outcome, "%q", h)
	}
	require.Zero(t, c.conns.Load())
	require.NoError(t, CheckHeaders([]delay.Header{{Name: "X-A_b.c~", Value: "tab\tü, \"q\""}}))
	require.NoError(t, CheckHeaders(nil))
}

// Receivers drop repeats by this text: two ids that look the same there lose a message.
func TestHeaderText(t *testing.T) {
	for in, want := range map[string]string{
		"": "", "01JABC": "01JABC", "order-7/a:b": "order-7/a:b", "a b": "a b", " a ": "%20a%20",
		"a  b": "a %20b", "50%": "50%25", "%20a": "%2520a", "ü": "%C3%BC", " ": "%20",
		"a\tb": "a%09b", "x\r\ny": "x%0D%0Ay",
	} {
		require.Equal(t, want, broker.HeaderText(in))
	}
}

// FuzzHeaderText: the text is safe in a header and gives the id back, so it is never ambiguous.
func FuzzHeaderText(f *testing.F) {
	for _, s := range []string{"", "a", " a  b ", "%20", "ü", "x\r\ny", "\xff"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		text := broker.HeaderText(s)
		require.Equal(t, strings.TrimSpace(text), text)
		require.Empty(t, checkHeader("x", text))
		back, err := url.PathUnescape(text)
		require.NoError(t, err)
		require.Equal(t, s, back)
	})
}

// The vectors are for receivers in other languages: they must not change.
func TestSignatureGolden(t *testing.T) {
	var lines []string
	for _, body := range []string{"", "hello", "\x00\xff"} {
		for n := range 2 {
			lines = append(lines, fmt.Sprintf("body %q secrets %d: %s", body, n+1,
				sign(testSecrets[:n+1], "01JSAMPLE", testNow().Unix(), []byte(body))))
		}
	}
	got := strings.Join(lines, "\n") + "\n"
	path := filepath.Join("testdata", "signatures.golden")
	if *update {
		require.NoError(t, os.WriteFile(path, []byte(got), 0o644))
	}
	want, err := os.ReadFile(path)
	require.NoError(t, err)
	require.Equal(t, string(want), got)
}

// While a secret is rotated, receivers that know either one must accept, and nothing else may pass.
func TestVerify(t *testing.T) {
	id, body, now := "01JSAMPLE", []byte("hello"), testNow()
	header := sign(testSecrets, id, now.Unix(), body)
	const window = 5 * time.Minute
	for _, s := range testSecrets {
		require.NoError(t, Verify(header, id, body, s.Key, now, window))
		require.NoError(t, Verify(header, id, body, s.Key, now.Add(window-time.Second), window))
		require.Error(t, Verify(header, id, body, s.Key, now.Add(window+time.Second), window))
		require.Error(t, Verify(header, id, body, s.Key, now.Add(-window-time.Second), window))
		require.Error(t, Verify(header, id+"x", body, s.Key, now, window))
		require.Error(t, Verify(header, id, []byte("hellO"), s.Key, now, window))
		moved := strings.Replace(header, "t=1800000000", "t=1800000001", 1)
		require.Error(t, Verify(moved, id, body, s.Key, now, window))
	}
	one := sign(testSecrets[:1], id, now.Unix(), body)
	require.Error(t, Verify(one, id, body, testSecrets[1].Key, now, window))
	for _, bad := range []string{
		"", "t=", "t=1800000000", "t=1800000000,v1=", "v1=00",
		"t=+1800000000", "t=-9223372036854775808,v1=00", "t=9223372036854775807,v1=00",
	} {
		require.ErrorIs(t, Verify(bad, id, body, testSecrets[0].Key, now, window), delay.ErrInvalid)
	}
}

// FuzzVerify: no header may crash the parser or pass without the secret.
func FuzzVerify(f *testing.F) {
	f.Add(sign(testSecrets, "other", testNow().Unix(), []byte("hello")))
	f.Add("t=1,v1=00")
	f.Fuzz(func(t *testing.T, header string) {
		err := Verify(header, "id", []byte("body"), testSecrets[0].Key, testNow(), time.Hour)
		require.ErrorIs(t, err, delay.ErrInvalid)
	})
}

// A secret must not leak through any of the ways a value is printed (W5).
func TestSecretPrints(t *testing.T) {
	opts := Options{Secrets: testSecrets}
	asJSON, err := json.Marshal(opts.Secrets)
	require.NoError(t, err)
	for _, text := range []string{
		fmt.Sprint(opts), fmt.Sprintf("%+v", opts), fmt.Sprintf("%#v", opts.Secrets),
		fmt.Sprintf("%v %s", &opts.Secrets[0], opts.Secrets[1]), string(asJSON),
	} {
		require.NotContains(t, text, "0123456789")
		require.NotContains(t, text, "48 49 50")
		require.NotContains(t, text, "MDEyMzQ1")
		require.NotContains(t, text, "0x30, 0x31")
		require.Contains(t, text, "***")
	}
}

// While a key is replaced each call must verify with a key that the receiver has; a bad set of keys
// must change nothing.
func TestRotation(t *testing.T) {
	one, two := []byte("first-key-0123456789"), []byte("second-key-0123456789")
	signed := strings.ToLower("Cicada-Signature") // as it is kept, see headers
	s := newSink(t, Options{Secrets: []Secret{{ID: "1", Key: one}}})
	d := sample("http://x.example/")
	verifies := func(key []byte) bool {
		h, reason := s.headers(&d)
		require.Empty(t, reason)
		return Verify(h[signed][0], string(d.ID), d.Body, key, time.Now(), 5*time.Minute) == nil
	}
	require.True(t, verifies(one) && !verifies(two))
	require.NoError(t, s.Use([]Secret{{ID: "1", Key: one}, {ID: "2", Key: two}}))
	require.True(t, verifies(one) && verifies(two))
	require.ErrorIs(t, s.Use([]Secret{{ID: "3", Key: []byte("short")}}), delay.ErrInvalid)
	require.True(t, verifies(one) && verifies(two))
	require.NoError(t, s.Use([]Secret{{ID: "2", Key: two}}))
	require.True(t, !verifies(one) && verifies(two))
	require.NoError(t, s.Use(nil))
	h, _ := s.headers(&d)
	require.Empty(t, h[signed])
	secret := Secret{ID: "1", Key: one}
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%d", "%t"} {
		require.NotContains(t, fmt.Sprintf(verb, secret), "102", verb) // the f of first
		require.NotContains(t, fmt.Sprintf(verb, secret), "first-key", verb)
		require.NotContains(t, fmt.Sprintf(verb, secret), "66697273742d", verb)
	}
}
