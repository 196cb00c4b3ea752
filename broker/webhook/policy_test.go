// SPDX-License-Identifier: Apache-2.0

package webhook

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"net/url"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/cicadamq/cicada/broker"
	"github.com/cicadamq/cicada/delay"
)

// hostile are targets that must be refused when they are accepted. %d is the port of a canary that
// listens on loopback: many of these lead there in one parser or another.
var hostile = []string{
	// literal addresses of the inside
	"http://127.0.0.1:%d/", "http://127.1.2.3:%d/", "http://127.255.255.254:%d/",
	"http://0.0.0.0:%d/", "http://0.1.2.3:%d/", "http://10.0.0.1:%d/", "http://172.16.0.1:%d/",
	"http://172.31.255.255:%d/", "http://192.168.1.1:%d/", "http://100.64.0.1:%d/",
	"http://169.254.1.1:%d/", "http://169.254.169.254:%d/latest/meta-data/",
	"http://169.254.170.2:%d/", "http://100.100.100.200:%d/", "http://168.63.129.16:%d/",
	"http://192.0.0.192:%d/", "http://192.0.2.1:%d/", "http://192.88.99.1:%d/",
	"http://198.18.0.1:%d/", "http://224.0.0.1:%d/", "http://239.255.255.250:%d/",
	"http://240.0.0.1:%d/", "http://255.255.255.255:%d/",
	"http://[::1]:%d/", "http://[::]:%d/", "http://[fc00::1]:%d/", "http://[fd12:3456::1]:%d/",
	"http://[fe80::1]:%d/", "http://[fe80::1%%25lo]:%d/", "http://[fec0::1]:%d/",
	"http://[ff02::1]:%d/", "http://[::127.0.0.1]:%d/", "http://[::ffff:127.0.0.1]:%d/",
	"http://[::ffff:7f00:1]:%d/", "http://[::ffff:169.254.169.254]:%d/",
	"http://[::ffff:8.8.8.8]:%d/", "http://[0:0:0:0:0:ffff:7f00:0001]:%d/",
	"http://[64:ff9b::a9fe:a9fe]:%d/", "http://[64:ff9b:1::7f00:1]:%d/",
	"http://[2002:7f00:1::]:%d/", "http://[2001:0:7f00:1::]:%d/", "http://[2001:db8::1]:%d/",
	"http://[fd00:ec2::254]:%d/", "http://[fd20:ce::254]:%d/", "http://[100::1]:%d/",
	// other spellings of loopback
	"http://2130706433:%d/", "http://0x7f000001:%d/", "http://0X7F000001:%d/",
	"http://017700000001:%d/", "http://127.1:%d/", "http://127.0.1:%d/", "http://0177.0.0.1:%d/",
	"http://0x7f.0.0.1:%d/", "http://127.0.0.0x1:%d/", "http://127.0.0.01:%d/", "http://0:%d/",
	"http://0x:%d/", "http://127.0.0.1.:%d/", "http://1.2.3.4.5:%d/", "http://256.0.0.1:%d/",
	"http://%%31%%32%%37.0.0.1:%d/", "http://127。0。0。1:%d/", "http://①②⑦.0.0.1:%d/",
	"http://[127.0.0.1]:%d/", "http://127.0.0.1%%00:%d/",
	// names of the inside
	"http://localhost:%d/", "http://LOCALHOST:%d/", "http://localhost.:%d/",
	"http://x.localhost:%d/", "http://ip6-localhost:%d/", "http://localhost.localdomain:%d/",
	"http://metadata.google.internal:%d/", "http://metadata:%d/", "http://instance-data:%d/",
	"http://host.docker.internal:%d/",
	// URLs that parsers read differently
	"http://example.com@127.0.0.1:%d/", "http://127.0.0.1:%d@example.com/",
	"http://user:hunter2@example.com:%d/", "http://@127.0.0.1:%d/",
	"http://example.com\\@127.0.0.1:%d/", "http://127.0.0.1:%d\\.example.com/",
	"http://127.0.0.1:%d#example.com", "http://example.com:%d/#127.0.0.1", "http://:%d/",
	"http://?x=%d", "http:///127.0.0.1:%d", "http:127.0.0.1:%d/", "http:/127.0.0.1:%d/",
	"//127.0.0.1:%d/", "HTTP://127.0.0.1:%d/", "ftp://127.0.0.1:%d/", "gopher://127.0.0.1:%d/",
	"file:///etc/passwd?%d", "http://exa mple.com:%d/", "http://example.com:%d/a b",
	"http://example.com:%d/\r\nx-evil: 1", "http://example.com:%d/\x00", "http://ex\tample.com:%d/",
	"http://example.com:%d:80/", "http://example.com:0%d/", "http://example.com:+%d/",
	"http://[::1:%d/", "http://::1:%d/", "http://[]:%d/", "http://example..com:%d/",
	"http://-example.com:%d/", "http://exam$ple.com:%d/", "http://example.com:%d%%20/",
}

// Any of these that slips through is a way into the operator's network (W1). None may be accepted,
// and none may open a connection even when it was accepted by another version.
func TestHostileTargets(t *testing.T) {
	c := newCanary(t)
	s := newSink(t, Options{Resolver: resolver(t, always("127.0.0.1", "::1"))})
	targets := []string{
		"", "http", "http://", "http://example.com:0/", "http://example.com:65536/",
		"http://example.com:/", "http://" + strings.Repeat("a", 64) + ".com/",
		"http://" + strings.Repeat("a.", 127) + "com/", "https://example.com/" +
			strings.Repeat("a", delay.MaxTargetBytes),
	}
	for _, h := range hostile {
		targets = append(targets, fmt.Sprintf(h, c.port))
	}
	require.Greater(t, len(targets), 100)
	for _, target := range targets {
		var field *delay.FieldError
		require.ErrorAs(t, s.Check(delay.Target(target)), &field, "%q", target)
		require.Equal(t, "target", field.Field)
		require.NotContains(t, field.Error(), "hunter2")
		r := one(t, s, sample(target))
		require.Equal(t, broker.Rejected, r.Outcome, "%q: %s", target, r.Reason)
	}
	require.Zero(t, c.conns.Load(), "a connection was opened")
}

// Ordinary targets must not be refused for looking odd.
func TestGoodTargets(t *testing.T) {
	s := newSink(t, Options{})
	for _, target := range []string{
		"http://example.com", "https://example.com/", "https://EXAMPLE.com:8443/a/b?c=d&e=%20f",
		"https://example.com/a%2Fb", "https://xn--bcher-kva.example/", "https://a_b.example/~x",
		"http://8.8.8.8/", "http://8.8.8.8:8080/x", "https://[2606:4700::1111]/",
		"https://[2606:4700::1111]:8443/x", "https://example.com?x=y@z", "https://example.com/a@b:c",
		"https://dead.beef/", "https://0x7f.example/", "https://1.example/", "https://3com/",
	} {
		require.NoError(t, s.Check(delay.Target(target)), "%q", target)
	}
}

// A name is only as good as the address it has when it is connected to: a resolver that answers
// something public first and something of the inside later must not get a connection (W1).
func TestRebinding(t *testing.T) {
	for _, inside := range []string{
		"127.0.0.1", "::1", "10.1.2.3", "169.254.169.254", "::ffff:127.0.0.1", "64:ff9b::7f00:1",
		"fd00:ec2::254", "0.0.0.0", "::",
	} {
		c := newCanary(t)
		s := newSink(t, Options{Resolver: resolver(t, always(inside))})
		target := fmt.Sprintf("http://rebind.example:%d/", c.port)
		require.NoError(t, s.Check(delay.Target(target)))
		for range 2 {
			r := one(t, s, sample(target))
			require.Equal(t, broker.Rejected, r.Outcome, "%s: %s", inside, r.Reason)
			require.Contains(t, r.Reason, "not allowed")
		}
		require.Zero(t, c.conns.Load(), "%s was connected to", inside)
	}
}

// The resolver changes its mind between two lookups: an earlier good answer must not be remembered
// as a licence for the name.
func TestRebindingLater(t *testing.T) {
	c := newCanary(t)
	var answers atomic.Int64
	s := newSink(t, Options{
		Resolver: resolver(t, func(int) []string {
			if answers.Add(1) <= 2 { // A and AAAA of the first lookup
				return []string{"8.8.8.8"}
			}
			return []string{"127.0.0.1"}
		}),
	})
	s.dialer.ControlContext = func(ctx context.Context, n, addr string, r syscall.RawConn) error {
		if err := control(ctx, n, addr, r); err != nil {
			return err
		}
		return errors.New("the test does not connect to " + addr)
	}
	target := fmt.Sprintf("http://rebind.example:%d/", c.port)
	require.Equal(t, broker.Retry, one(t, s, sample(target)).Outcome)
	require.Equal(t, broker.Rejected, one(t, s, sample(target)).Outcome)
	require.Zero(t, c.conns.Load())
}

// A name in the list is trusted with the operator's networks but never with a cloud's credentials:
// who runs the name may not be the operator.
func TestNameNeverReachesMetadata(t *testing.T) {
	s := newSink(t, Options{
		Allow:        []string{"partner.example", "*.example", "metadata.google.internal"},
		AllowPrivate: true,
		Resolver:     resolver(t, always("169.254.169.254", "fd00:ec2::254")),
	})
	for _, target := range []string{"http://partner.example/", "http://a.example/"} {
		require.Equal(t, broker.Result{
			Outcome: broker.Rejected,
			Reason:  "address is a cloud metadata address, which is not allowed",
		}, one(t, s, sample(target)))
	}
	require.Error(t, s.Check("http://metadata.google.internal/"))
}

// Both answers of one lookup are tried: the good address must not open the way to the bad one, and
// a host of which one address is merely down may work later.
func TestMixedAddresses(t *testing.T) {
	srv := serve(t, func(http.ResponseWriter, *http.Request) {})
	u, err := url.Parse(srv.URL)
	require.NoError(t, err)
	s := newSink(t, Options{
		Allow:    []string{"mixed.example"}, // opens private addresses, not metadata
		Resolver: resolver(t, always("169.254.169.254", "127.0.0.1")),
	})
	r := one(t, s, sample("http://mixed.example:"+u.Port()+"/"))
	require.Equal(t, broker.Delivered, r.Outcome, r.Reason)
	srv.Close()
	s.transport.CloseIdleConnections()
	r = one(t, s, sample("http://mixed.example:"+u.Port()+"/"))
	require.Equal(t, broker.Retry, r.Outcome, r.Reason)
}

// The allow list must let through what it names, and no more.
func TestAllow(t *testing.T) {
	const reach, closed = "reach", "closed"
	srv := serve(t, func(http.ResponseWriter, *http.Request) {})
	port := netip.MustParseAddrPort(srv.Listener.Addr().String()).Port()
	for _, c := range []struct {
		allow   string
		private bool
		target  string
		want    string // reach, closed at accept, or the reason at connect
	}{
		{"127.0.0.1", false, "http://127.0.0.1:%d/", reach},
		{"127.0.0.1:%d", false, "http://127.0.0.1:%d/", reach},
		{"127.0.0.1:1", false, "http://127.0.0.1:%d/", closed},
		{"::ffff:127.0.0.1", false, "http://127.0.0.1:%d/", reach},
		{"127.0.0.1", false, "http://127.0.0.2:%d/", closed},
		{"127.0.0.1", false, "http://hook.example:%d/", closed},
		{"", true, "http://127.0.0.1:%d/", reach},
		{"", true, "http://hook.example:%d/", reach},
		{"", true, "http://169.254.169.254:%d/", closed},
		{"", true, "http://metadata.google.internal:%d/", closed},
		{"", true, "http://0.0.0.0:%d/", closed},
		{"", true, "http://[::ffff:127.0.0.1]:%d/", closed},
		{"hook.example", false, "http://hook.example:%d/", reach},
		{"Hook.Example:%d", false, "http://HOOK.example:%d/", reach},
		{"hook.example", false, "http://a.hook.example:%d/", closed},
		{"hook.example", false, "http://127.0.0.1:%d/", closed},
		{"localhost", false, "http://localhost:%d/", reach},
		{"*.hook.example", true, "http://a.b.hook.example:%d/", reach},
		{"*.hook.example", true, "http://hook.example:%d/", closed},
		{"*.hook.example", true, "http://evilhook.example:%d/", closed},
		{
			"*.hook.example", false, "http://a.hook.example:%d/",
			"address is loopback, which is not allowed",
		},
	} {
		opts := Options{AllowPrivate: c.private, Resolver: resolver(t, always("127.0.0.1"))}
		if c.allow != "" {
			opts.Allow = []string{strings.ReplaceAll(c.allow, "%d", fmt.Sprint(port))}
		}
		s := newSink(t, opts)
		target := fmt.Sprintf(c.target, port)
		if c.want == closed {
			require.ErrorIs(t, s.Check(delay.Target(target)), delay.ErrInvalid, "%+v", c)
			require.Equal(t, broker.Rejected, one(t, s, sample(target)).Outcome)
			continue
		}
		require.NoError(t, s.Check(delay.Target(target)), "%+v", c)
		r := one(t, s, sample(target))
		if c.want == reach {
			require.Equal(t, broker.Delivered, r.Outcome, "%+v: %s", c, r.Reason)
			continue
		}
		require.Equal(t, broker.Result{Outcome: broker.Rejected, Reason: c.want}, r, "%+v", c)
	}
}

// A literal in the list opens what nothing else does: the operator wrote it down.
func TestAllowLiteral(t *testing.T) {
	for _, addr := range []string{"169.254.169.254", "[fd00:ec2::254]:80", "fd00:ec2::254"} {
		s := newSink(t, Options{Allow: []string{addr}})
		host := strings.TrimSuffix(addr, ":80")
		if strings.Contains(host, "::") && host[0] != '[' {
			host = "[" + host + "]"
		}
		require.NoError(t, s.Check(delay.Target("http://"+host+"/")))
	}
}

// A misspelt pattern must stop the start, not silently allow nothing or everything.
func TestBadPatterns(t *testing.T) {
	for _, text := range []string{
		"", "*", "*.", "*.*.com", "a.*", "http://example.com", "example.com/", "example.com:",
		"example.com:0", "example.com:x", "10.0.0.0/8", "*.1.2.3.4", "[::1", "[::1]x", "127.1",
		"a b", "user@example.com", "example.com.", "fe80::1%eth0", ":80",
	} {
		_, err := New(Options{Allow: []string{"good.example", text}})
		require.ErrorIs(t, err, delay.ErrInvalid, "%q", text)
	}
}

// The table of address classes at the edges of its ranges.
func TestClassify(t *testing.T) {
	for text, what := range map[string]string{
		"9.255.255.255": "", "10.0.0.0": "private", "11.0.0.0": "", "100.63.255.255": "",
		"100.64.0.0": "carrier-grade NAT", "100.127.255.255": "carrier-grade NAT",
		"100.128.0.0": "", "126.255.255.255": "", "128.0.0.0": "", "172.15.255.255": "",
		"172.32.0.0": "", "169.254.169.254": "a cloud metadata address",
		"169.254.0.1": "link-local", "192.167.255.255": "", "192.169.0.0": "",
		"223.255.255.255": "", "224.0.0.0": "multicast", "255.255.255.255": "reserved",
		"::ffff:10.0.0.1": "private", "::ffff:8.8.8.8": "", "::": "unspecified",
		"2000::": "", "2001:1ff:ffff::": "reserved", "2001:200::": "", "2606:4700::1": "",
		"4000::": "reserved", "1fff:ffff::": "reserved", "fe80::1%eth0": "link-local",
		"64:ff9b::808:808": "a NAT64 address", "2002::1": "a 6to4 address",
		"2001::1": "a Teredo address", "fd00::1": "private",
	} {
		require.Equal(t, what, classify(netip.MustParseAddr(text)).what, text)
	}
	require.Equal(t, "reserved", classify(netip.Addr{}).what)
}

// FuzzCheck: no text may crash the parser, and what is accepted must mean the same to net/url and
// must not be an address of the inside in any spelling.
func FuzzCheck(f *testing.F) {
	for _, h := range hostile {
		f.Add(strings.ReplaceAll(strings.ReplaceAll(h, "%d", "80"), "%%", "%"))
	}
	f.Add("https://example.com:8443/a/b?c=d")
	f.Add("https://[2606:4700::1111]:8443/x")
	s, err := New(Options{})
	require.NoError(f, err)
	f.Fuzz(func(t *testing.T, text string) {
		e, err := s.policy.check(delay.Target(text))
		if err != nil {
			require.ErrorIs(t, err, delay.ErrInvalid)
			return
		}
		u, err := url.Parse(text)
		require.NoError(t, err)
		require.Nil(t, u.User)
		require.Empty(t, u.Fragment)
		if e.addr.IsValid() {
			require.Equal(t, e.addr, netip.MustParseAddr(u.Hostname()))
			require.Empty(t, classify(e.addr).what)
		} else {
			require.Equal(t, e.name, strings.ToLower(u.Hostname()))
			require.False(t, strings.HasSuffix(e.name, "localhost"))
		}
		h, err := hostOf(fmt.Sprintf("%s:%d", strings.TrimSuffix(u.Host, ":"+u.Port()), e.port))
		require.NoError(t, err)
		require.Equal(t, e.host, h, "the dialer sees another host")
	})
}

// FuzzPattern: no pattern may crash the parser, and a good one matches the host it spells.
func FuzzPattern(f *testing.F) {
	for _, text := range []string{"*.a.example:80", "[::1]:80", "::1", "a", "127.0.0.1:1", "[", "*"} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		p, err := parsePattern(text)
		if err != nil {
			require.ErrorIs(t, err, delay.ErrInvalid)
			return
		}
		h := host{name: p.name, addr: p.addr, port: max(p.port, 1)}
		if p.suffix != "" {
			h.name = "x" + p.suffix
		}
		require.True(t, p.matches(h))
		h.port++
		require.Equal(t, p.port == 0, p.matches(h))
	})
}
