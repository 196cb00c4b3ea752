// SPDX-License-Identifier: Apache-2.0

package webhook

import (
	"net/netip"
	"net/url"
	"strconv"
	"strings"

	"github.com/cicadamq/cicada/delay"
)

// endpoint is a parsed target.
type endpoint struct {
	url *url.URL
	host
}

// host is who a URL or a dialer's address names.
type host struct {
	name string     // lower case; for a literal address its canonical text
	addr netip.Addr // valid for a literal address
	port uint16
}

// parseTarget is strict where parsers differ, since another spelling of an address is the classic
// way around a check: ASCII only, no userinfo, no fragment, no escapes in the host, and a host that
// is a dotted quad, a bracketed IPv6 address or a name that no resolver reads as a number.
// reason is empty when the target is good.
func parseTarget(target delay.Target) (e endpoint, reason string) {
	text := string(target)
	if len(text) > delay.MaxTargetBytes {
		return e, "longer than 4 KiB"
	}
	for i := range len(text) {
		if c := text[i]; c <= ' ' || c >= 0x7f || c == '\\' {
			return e, "holds a space, a backslash or a character that is not ASCII"
		}
	}
	scheme, rest, ok := strings.Cut(text, "://")
	if !ok || scheme != "http" && scheme != "https" {
		return e, "want http:// or https://"
	}
	if strings.Contains(rest, "#") {
		return e, "holds a fragment"
	}
	authority := rest
	if i := strings.IndexAny(rest, "/?"); i >= 0 {
		authority = rest[:i]
	}
	if strings.Contains(authority, "@") {
		return e, "holds a user name or password"
	}
	if e.host, reason = parseAuthority(authority, scheme); reason != "" {
		return e, reason
	}
	u, err := url.Parse(text)
	if err != nil || u.User != nil || u.Opaque != "" || u.Host != authority {
		return e, "not a valid URL"
	}
	e.url = u
	return e, ""
}

func parseAuthority(authority, scheme string) (h host, reason string) {
	name, port, hasPort, ok := splitHostPort(authority)
	if !ok {
		return h, "host is not valid"
	}
	h.port = 80
	if scheme == "https" {
		h.port = 443
	}
	if hasPort {
		if h.port, ok = parsePort(port); !ok {
			return h, "port is not a number from 1 to 65535"
		}
	}
	return parseHost(h, name, strings.HasPrefix(authority, "["))
}

// splitHostPort splits name, name:port, [v6] and [v6]:port. The brackets are removed.
func splitHostPort(s string) (name, port string, hasPort, ok bool) {
	if v6, ok := strings.CutPrefix(s, "["); ok {
		name, rest, closed := strings.Cut(v6, "]")
		port, hasPort = strings.CutPrefix(rest, ":")
		return name, port, hasPort, closed && (rest == "" || hasPort)
	}
	name, port, hasPort = strings.Cut(s, ":")
	return name, port, hasPort, true
}

func parsePort(s string) (uint16, bool) {
	n, err := strconv.ParseUint(s, 10, 16)
	return uint16(n), err == nil && n > 0 && s[0] != '0' && s[0] != '+'
}

func parseHost(h host, name string, bracketed bool) (host, string) {
	addr, err := netip.ParseAddr(name)
	switch {
	case bracketed && (err != nil || !addr.Is6() || addr.Zone() != ""):
		return h, "host in brackets is not an IPv6 address"
	case bracketed && addr.Is4In6():
		return h, "host is an IPv4 address in an IPv6 coat"
	case bracketed, err == nil && addr.Is4():
		h.name, h.addr = addr.String(), addr
		return h, ""
	}
	h.name = strings.ToLower(name)
	return h, badName(h.name)
}

// badName says what is wrong with a lower-case host name. A name that ends in a number is an
// address to some resolvers and a name to others (2130706433, 0x7f000001, 127.1, 0177.0.0.1).
func badName(name string) string {
	if name == "" {
		return "host is empty"
	}
	if len(name) > 253 {
		return "host is longer than 253 characters"
	}
	labels := strings.Split(name, ".")
	for _, label := range labels {
		if !goodLabel(label) {
			return "host is not a valid name"
		}
	}
	if isNumber(labels[len(labels)-1]) {
		return "host is a number but not a plain IPv4 address"
	}
	return ""
}

func goodLabel(label string) bool {
	if label == "" || len(label) > 63 || label[0] == '-' || label[len(label)-1] == '-' {
		return false
	}
	for i := range len(label) {
		c := label[i]
		if (c < 'a' || c > 'z') && (c < '0' || c > '9') && c != '-' && c != '_' {
			return false
		}
	}
	return true
}

func isNumber(label string) bool {
	digits := "0123456789"
	if hex, ok := strings.CutPrefix(label, "0x"); ok {
		label, digits = hex, "0123456789abcdef"
	}
	return strings.Trim(label, digits) == ""
}
