// SPDX-License-Identifier: Apache-2.0

package webhook

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"sync/atomic"
	"syscall"
)

// refusedError says that the policy refused every address of a host.
type refusedError struct{ what string }

func (e *refusedError) Error() string { return "address is " + e.what + ", which is not allowed" }

// dialing is one dial: how far it may go, and what became of its addresses. Several are tried,
// some at the same time.
type dialing struct {
	grant   grant
	tried   atomic.Bool
	refused atomic.Pointer[refusedError]
}

type dialingKey struct{}

// dial connects to addr, which the transport took from a checked URL.
func (s *Sink) dial(ctx context.Context, network, addr string) (net.Conn, error) {
	h, err := hostOf(addr)
	if err != nil {
		return nil, err
	}
	g, ok := s.policy.grant(h)
	if !ok {
		return nil, &refusedError{"of a host outside webhooks.allow"}
	}
	d := &dialing{grant: g}
	conn, err := s.dialer.DialContext(context.WithValue(ctx, dialingKey{}, d), network, addr)
	if err != nil {
		// A host with one refused address and one that is down may work later: that is no
		// refusal.
		if refused := d.refused.Load(); refused != nil && !d.tried.Load() {
			return nil, refused
		}
	}
	return conn, err
}

func hostOf(addr string) (host, error) {
	name, port, _, ok := splitHostPort(addr)
	if !ok {
		return host{}, fmt.Errorf("dial %q: host is not valid", addr)
	}
	p, ok := parsePort(port)
	if !ok {
		return host{}, fmt.Errorf("dial %q: port is not valid", addr)
	}
	h, reason := parseHost(host{port: p}, name, strings.HasPrefix(addr, "["))
	if reason != "" {
		return host{}, fmt.Errorf("dial %q: %s", addr, reason)
	}
	return h, nil
}

// control runs after the socket was made and before it connects, with the address that is about to
// be connected to: whatever the resolver answered and however often it changes its mind, what is
// checked is what is used (W1).
func control(ctx context.Context, _, address string, _ syscall.RawConn) error {
	d, ok := ctx.Value(dialingKey{}).(*dialing)
	if !ok {
		panic("BUG: webhook dial without a grant")
	}
	var c class
	if ap, err := netip.ParseAddrPort(address); err != nil {
		c.what = "not valid"
	} else {
		c = classify(ap.Addr())
	}
	if !d.grant.permits(c) {
		err := &refusedError{c.what}
		d.refused.Store(err)
		return err
	}
	d.tried.Store(true)
	return nil
}
