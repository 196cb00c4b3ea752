// SPDX-License-Identifier: Apache-2.0

package webhook

import "net/netip"

// grant is what the policy lets a host reach.
type grant uint8

const (
	grantPublic  grant = iota // addresses of the public internet
	grantPrivate              // also the operator's own networks
	grantAny                  // the literal address that the operator wrote down
)

// class is a kind of address that is not the public internet.
type class struct {
	what    string
	private bool // a grantPrivate reaches it
}

// permits reports whether a host with grant g may reach an address of class c. An empty class is
// the public internet.
func (g grant) permits(c class) bool {
	return c.what == "" || g == grantAny || g == grantPrivate && c.private
}

// special lists what is not the public internet, the first match wins: the special-purpose
// registries of IANA, and the addresses at which clouds hand out credentials, which not even
// webhooks.allow_private opens. Of IPv6 only 2000::/3 is public, so that translation prefixes
// (NAT64) and whatever is given out later are refused until they are understood.
var special = []struct {
	prefix netip.Prefix
	class
}{
	{netip.MustParsePrefix("169.254.169.0/24"), class{"a cloud metadata address", false}},
	{netip.MustParsePrefix("169.254.170.0/24"), class{"a cloud metadata address", false}},
	{netip.MustParsePrefix("100.100.100.200/32"), class{"a cloud metadata address", false}},
	{netip.MustParsePrefix("168.63.129.16/32"), class{"a cloud metadata address", false}},
	{netip.MustParsePrefix("fd00:ec2::/32"), class{"a cloud metadata address", false}},
	{netip.MustParsePrefix("fd20:ce::/32"), class{"a cloud metadata address", false}},

	{netip.MustParsePrefix("127.0.0.0/8"), class{"loopback", true}},
	{netip.MustParsePrefix("10.0.0.0/8"), class{"private", true}},
	{netip.MustParsePrefix("172.16.0.0/12"), class{"private", true}},
	{netip.MustParsePrefix("192.168.0.0/16"), class{"private", true}},
	{netip.MustParsePrefix("100.64.0.0/10"), class{"carrier-grade NAT", true}},
	{netip.MustParsePrefix("169.254.0.0/16"), class{"link-local", true}},
	{netip.MustParsePrefix("0.0.0.0/8"), class{"unspecified", false}},
	{netip.MustParsePrefix("192.0.0.0/24"), class{"reserved", false}},
	{netip.MustParsePrefix("192.0.2.0/24"), class{"reserved", false}},
	{netip.MustParsePrefix("192.88.99.0/24"), class{"a 6to4 relay", false}},
	{netip.MustParsePrefix("198.18.0.0/15"), class{"reserved", false}},
	{netip.MustParsePrefix("198.51.100.0/24"), class{"reserved", false}},
	{netip.MustParsePrefix("203.0.113.0/24"), class{"reserved", false}},
	{netip.MustParsePrefix("224.0.0.0/4"), class{"multicast", false}},
	{netip.MustParsePrefix("240.0.0.0/4"), class{"reserved", false}},

	{netip.MustParsePrefix("::1/128"), class{"loopback", true}},
	{netip.MustParsePrefix("::/128"), class{"unspecified", false}},
	{netip.MustParsePrefix("fc00::/7"), class{"private", true}},
	{netip.MustParsePrefix("fe80::/10"), class{"link-local", true}},
	{netip.MustParsePrefix("ff00::/8"), class{"multicast", false}},
	{netip.MustParsePrefix("64:ff9b::/32"), class{"a NAT64 address", false}},
	{netip.MustParsePrefix("2001::/32"), class{"a Teredo address", false}},
	{netip.MustParsePrefix("2001::/23"), class{"reserved", false}},
	{netip.MustParsePrefix("2001:db8::/32"), class{"reserved", false}},
	{netip.MustParsePrefix("2002::/16"), class{"a 6to4 address", false}},
	{netip.MustParsePrefix("3fff::/20"), class{"reserved", false}},
}

var globalUnicast = netip.MustParsePrefix("2000::/3")

// classify is the class of addr. An IPv4 address in an IPv6 coat is what it is inside.
func classify(addr netip.Addr) class {
	addr = addr.Unmap().WithZone("")
	for _, s := range special {
		if s.prefix.Contains(addr) {
			return s.class
		}
	}
	if !addr.IsValid() || addr.Is6() && !globalUnicast.Contains(addr) {
		return class{what: "reserved"}
	}
	return class{}
}
