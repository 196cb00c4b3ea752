// SPDX-License-Identifier: Apache-2.0

package webhook

import (
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/cicadamq/cicada/broker"
	"github.com/cicadamq/cicada/delay"
)

// CheckHeaders tells at accept time whether a webhook can carry these headers: names of the
// characters HTTP allows, values without control characters but tab, so that no header can smuggle
// in another. It returns nil or a *delay.FieldError for field "headers".
func CheckHeaders(headers []delay.Header) error {
	for _, h := range headers {
		if reason := checkHeader(h.Name, h.Value); reason != "" {
			return delay.Invalid("headers", "%s", reason)
		}
	}
	return nil
}

func checkHeader(name, value string) string {
	if name == "" {
		return "a name is empty"
	}
	for i := range len(name) {
		c := name[i]
		letter := c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9'
		if !letter && strings.IndexByte("!#$%&'*+-.^_`|~", c) < 0 {
			return "a name holds a character that HTTP does not allow"
		}
	}
	for i := range len(value) {
		if c := value[i]; c < ' ' && c != '\t' || c == 0x7f {
			return "a value holds a control character"
		}
	}
	return ""
}

// owned reports whether a header, in lower case, is not the caller's to set (W4): ours, those that
// frame the message or belong to one hop, and the same with underscores, which many receivers read
// as hyphens.
func owned(name string) bool {
	name = strings.ReplaceAll(name, "_", "-")
	if strings.HasPrefix(name, "cicada-") || strings.HasPrefix(name, "proxy-") {
		return true
	}
	switch name {
	case "host", "content-length", "transfer-encoding", "te", "trailer", "connection",
		"keep-alive", "upgrade", "expect", "http2-settings", "user-agent", "idempotency-key",
		"x-idempotency-key":
		return true
	}
	return false
}

// headers are those of the request for d. Everything in them is a copy (W6). The keys are in lower
// case on purpose: under the name "Idempotency-Key" net/http would take it for a licence to send
// the request again by itself (W3).
func (s *Sink) headers(d *broker.Delivery) (h http.Header, reason string) {
	h = make(http.Header, len(d.Headers)+8)
	for _, c := range d.Headers {
		if reason = checkHeader(c.Name, c.Value); reason != "" {
			return nil, "headers: " + reason
		}
		name := strings.ToLower(strings.Clone(c.Name))
		if owned(name) || name == "content-type" && len(h[name]) > 0 {
			continue
		}
		h[name] = append(h[name], strings.Clone(c.Value))
	}
	if len(h["content-type"]) == 0 { //nolint:staticcheck // SA1008: lower case is meant, see above
		h["content-type"] = []string{"application/octet-stream"}
	}
	id := broker.HeaderText(string(d.ID))
	h["idempotency-key"] = []string{id}
	h["cicada-id"] = []string{id}
	h["cicada-due"] = []string{d.Due.String()}
	h["cicada-fired-at"] = []string{d.FiredAt.String()}
	h["cicada-attempt"] = []string{strconv.FormatUint(uint64(d.Attempt), 10)}
	if d.RoutingKey != "" {
		h["cicada-key"] = []string{broker.HeaderText(d.RoutingKey)}
	}
	if secrets := *s.secrets.Load(); len(secrets) > 0 {
		h["cicada-signature"] = []string{sign(secrets, id, s.now().Unix(), d.Body)}
	}
	h["User-Agent"] = []string{s.agent} // under this name, or net/http adds its own
	return h, ""
}

// retryAfter reads the header Retry-After, in seconds or as a date. It is 0 when absent or not
// understood, and at most an hour: a receiver may slow its target down, not stop it for a year.
func retryAfter(value string, now time.Time) time.Duration {
	value = strings.TrimSpace(value)
	if n := strings.Trim(value, "0123456789"); value != "" && n == "" {
		seconds, err := strconv.ParseInt(value, 10, 32)
		if err != nil {
			return maxRetryAfter
		}
		return min(time.Duration(seconds)*time.Second, maxRetryAfter)
	}
	at, err := http.ParseTime(value)
	if err != nil {
		return 0
	}
	return min(max(at.Sub(now), 0), maxRetryAfter)
}
