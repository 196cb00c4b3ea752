// SPDX-License-Identifier: Apache-2.0

package delay

import (
	"net/url"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// A pattern that selects more than it says lets one client into another's queues and hosts.
func TestTargetPattern(t *testing.T) {
	for _, c := range []struct {
		pattern  string
		yes, not []string
	}{
		{
			"pull:orders", []string{"pull:orders"},
			[]string{"pull:orders2", "pull:Orders", "pull:order", "log:orders", "", "pull:"},
		},
		{
			"pull:orders*", []string{"pull:orders", "pull:orders.eu", "pull:orders*"},
			[]string{"pull:order", "xpull:orders", "pull:x-orders", "http://pull:orders"},
		},
		{
			"pull:*.eu.*", []string{"pull:a.eu.b", "pull:.eu.", "pull:.eu.eu.x"},
			[]string{"pull:a.eu", "pull:eu.b", "log:a.eu.b"},
		},
		{"pull:*", []string{"pull:a"}, []string{"log:a", "http://pull.example/"}},
		{"*", []string{"pull:a", "https://x.example/", "log:"}, []string{""}},
		{"kafka:main/*", []string{"kafka:main/orders"}, []string{"kafka:other/main/x", "kafka:main"}},
		{
			"https://*.example.com/*",
			[]string{
				"https://a.example.com/", "https://a.b.example.com/x?y=z", "https://A.EXAMPLE.com",
				"https://a.example.com:443/x", "https://a.example.com?x", "https://a.example.com/../x",
			},
			[]string{
				"https://example.com/", "https://.example.com/", "http://a.example.com/",
				"https://a.example.com:8443/", "https://evil.com/.example.com/",
				"https://evil.com/a.example.com/", "https://evil.com?.example.com/",
				"https://evil.com#.example.com/", "https://evil.com\\.example.com/",
				"https://evil.com@a.example.com/", "https://a.example.com@evil.com/",
				"https://a.example.com.evil.com/", "https://evilexample.com/",
				"https://evil.com%2f.example.com/", "https://a.example.com:/", "https:///x",
				"HTTPS://a.example.com/", "https:a.example.com/", "https://a.example.com /",
			},
		},
		{
			"https://api.example/hooks/*",
			[]string{
				"https://api.example/hooks/", "https://api.example/hooks/a/b?c=/../d",
				"https://api.example/hooks/%20", "https://api.example/hooks/a..b/...",
			},
			[]string{
				"https://api.example/hooks", "https://api.example/hooksx/",
				"https://api.example/hooks/../admin", "https://api.example/hooks/..",
				"https://api.example/hooks/./x", "https://api.example/hooks/%2e%2e/admin",
				"https://api.example/hooks/..%2fadmin", "https://api.example/hooks/%252e%252E/admin",
				"https://api.example/hooks/..;x=1/admin", "https://api.example/hooks/..%5cadmin",
				"https://api.example/hooks/%zz", "https://api.example/hooks/%25252525252e",
				"https://api.example/x/hooks/a",
			},
		},
		{
			"http://127.0.0.1:*/ok", []string{"http://127.0.0.1:1/ok", "http://127.0.0.1/ok"},
			[]string{"http://127.0.0.1:1/ok?x", "http://127.0.0.1:1/", "http://127.0.0.2:1/ok"},
		},
		{
			"http://[::1]:8080", []string{"http://[::1]:8080/a", "http://[::1]:8080"},
			[]string{"http://[::1]/a", "http://[::2]:8080/a", "http://::1:8080/a"},
		},
		{"https://*", []string{"https://x.example/a"}, []string{"http://x.example/a", "https://"}},
	} {
		p, err := ParseTargetPattern(c.pattern)
		require.NoError(t, err, c.pattern)
		require.Equal(t, c.pattern, p.String())
		for _, target := range c.yes {
			require.True(t, p.Match(Target(target)), "%s %s", c.pattern, target)
		}
		for _, target := range c.not {
			require.False(t, p.Match(Target(target)), "%s %s", c.pattern, target)
		}
	}
	require.False(t, TargetPattern{}.Match("pull:a"))
	require.False(t, TargetPattern{}.Match(""))
}

// A misspelt pattern must stop the start, not select nothing or everything.
func TestBadTargetPatterns(t *testing.T) {
	for _, text := range []string{
		"", "orders", "*:orders", "p*:orders", ":orders", "**", "pull:a\nb", "https:", "https:*",
		"https://", "https:///x", "https://a*.example.com/", "https://a.*.com/", "https://*.*.com/",
		"https://u@a.example/", "https://a.example/#x", "https://a b/", "https://ä.example/",
		"https://a.example:/", "https://**/", strings.Repeat("pull:", 1000),
	} {
		_, err := NewTargetSet([]string{"pull:good", text})
		require.ErrorIs(t, err, ErrInvalid, "%q", text)
	}
	_, err := NewTargetSet(make([]string, maxPatterns+1))
	require.ErrorIs(t, err, ErrInvalid)
}

// No patterns are no limit; a set never holds the target that is not known.
func TestTargetSet(t *testing.T) {
	all, err := NewTargetSet(nil)
	require.NoError(t, err)
	require.Nil(t, all)
	require.True(t, all.Has("pull:a"))
	require.True(t, all.Has(""))
	some, err := NewTargetSet([]string{"pull:a", "https://*.example/*"})
	require.NoError(t, err)
	require.True(t, some.Has("pull:a"))
	require.True(t, some.Has("https://x.example/y"))
	require.False(t, some.Has("pull:b"))
	require.False(t, some.Has(""))
}

// FuzzTargetPattern: no text may crash the parser, and a host below the pattern's is the only one
// that net/url sees in what the pattern selects.
func FuzzTargetPattern(f *testing.F) {
	f.Add("https://*.example.com/*", "https://a.example.com/x")
	f.Add("https://*.example.com/*", "https://evil.com/.example.com/")
	f.Add("pull:*", "pull:a")
	f.Add("http://[::1]:*/a*b", "http://[::1]:1/ab")
	trusted, err := ParseTargetPattern("https://*.example.com/*")
	require.NoError(f, err)
	f.Fuzz(func(t *testing.T, pattern, target string) {
		if p, err := ParseTargetPattern(pattern); err == nil {
			p.Match(Target(target))
		}
		if !trusted.Match(Target(target)) {
			return
		}
		if u, err := url.Parse(target); err == nil {
			require.True(t, strings.HasSuffix(strings.ToLower(u.Hostname()), ".example.com"), target)
			require.Equal(t, "https", u.Scheme)
		}
	})
}
