// SPDX-License-Identifier: Apache-2.0

package webhook

import (
	"fmt"
	"net/netip"
	"strings"

	"github.com/cicadamq/cicada/delay"
)

// policy says which hosts may be reached, and how far inside. It is read-only.
type policy struct {
	patterns     []pattern
	allowPrivate bool
}

// pattern is one entry of the allow list.
type pattern struct {
	suffix string     // of "*.example.com": ".example.com"
	name   string     // exact, lower case
	addr   netip.Addr // literal
	port   uint16     // 0 is every port
}

func parsePattern(text string) (pattern, error) {
	bad := func(reason string) (pattern, error) {
		return pattern{}, fmt.Errorf("%w: webhooks.allow: %q: %s", delay.ErrInvalid, text, reason)
	}
	// A bare IPv6 address needs no brackets when it has no port.
	if addr, err := netip.ParseAddr(text); err == nil && addr.Zone() == "" {
		return pattern{addr: addr.Unmap()}, nil
	}
	name, port, hasPort, ok := splitHostPort(text)
	if !ok {
		return bad("want host, *.domain or either with :port")
	}
	var p pattern
	if hasPort {
		if p.port, ok = parsePort(port); !ok {
			return bad("port is not a number from 1 to 65535")
		}
	}
	domain, wild := strings.CutPrefix(name, "*.")
	h, reason := parseHost(host{}, domain, strings.HasPrefix(text, "["))
	switch {
	case reason != "":
		return bad(reason)
	case wild && h.addr.IsValid():
		return bad("an address has no subdomains")
	case wild:
		p.suffix = "." + h.name
	case h.addr.IsValid():
		p.addr = h.addr
	default:
		p.name = h.name
	}
	return p, nil
}

func (p pattern) matches(h host) bool {
	switch {
	case p.port != 0 && p.port != h.port:
		return false
	case p.addr.IsValid():
		return p.addr == h.addr
	case h.addr.IsValid():
		return false
	case p.suffix != "":
		return strings.HasSuffix(h.name, p.suffix)
	default:
		return p.name == h.name
	}
}

// grant is how far h may reach; ok is false when the allow list does not name it. A literal address
// in the list opens itself. A full name opens the operator's own networks, as a name of theirs
// resolves to such an address. A wildcard opens only what is public, because whoever may make
// names below the domain chooses the addresses.
func (p policy) grant(h host) (g grant, ok bool) {
	if p.allowPrivate {
		g = grantPrivate
	}
	if len(p.patterns) == 0 {
		return g, true
	}
	for _, pat := range p.patterns {
		if !pat.matches(h) {
			continue
		}
		ok = true
		switch {
		case pat.addr.IsValid():
			g = max(g, grantAny)
		case pat.name != "":
			g = max(g, grantPrivate)
		}
	}
	return g, ok
}

// check parses target and applies the policy as far as it goes without I/O.
func (p policy) check(target delay.Target) (endpoint, error) {
	e, reason := parseTarget(target)
	if reason != "" {
		return endpoint{}, delay.Invalid("target", "%s", reason)
	}
	g, ok := p.grant(e.host)
	if !ok {
		return endpoint{}, delay.Invalid("target", "host is not in webhooks.allow")
	}
	if e.addr.IsValid() {
		if c := classify(e.addr); !g.permits(c) {
			return endpoint{}, delay.Invalid("target", "address is %s, which is not allowed", c.what)
		}
		return e, nil
	}
	if c := classifyName(e.name); !g.permits(c) {
		return endpoint{}, delay.Invalid("target", "host is %s, which is not allowed", c.what)
	}
	return e, nil
}

// classifyName finds the names that are known to lead inside, to refuse them when the message is
// accepted and not when it is due. The check that counts is the one of the address.
func classifyName(name string) class {
	switch name {
	case "metadata", "metadata.goog", "metadata.google.internal", "metadata.azure.internal",
		"instance-data", "instance-data.ec2.internal":
		return class{what: "a cloud metadata name"}
	case "localhost", "ip6-localhost", "ip6-loopback":
		return class{what: "a local name", private: true}
	}
	for _, suffix := range [...]string{".localhost", ".localdomain", ".internal"} {
		if strings.HasSuffix(name, suffix) {
			return class{what: "a local name", private: true}
		}
	}
	return class{}
}
