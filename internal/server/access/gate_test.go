// SPDX-License-Identifier: Apache-2.0

package access

import (
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/hex"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/cicadamq/cicada/delay"
)

const secret = "correct-horse-battery-staple"

func request(authorization ...string) *http.Request {
	r := httptest.NewRequest(http.MethodGet, "/", nil)
	if len(authorization) > 0 {
		r.Header["Authorization"] = authorization
	}
	return r
}

// What looks nearly like a token, or is what an attacker has (the hash of the configuration, an old
// token, a token of another scheme), must not get in (V3).
func TestBadTokens(t *testing.T) {
	g := NewGate(Credentials{Tokens: []Token{
		NewToken("app", secret, Read), NewToken("ops", "another-token-entirely", Admin),
	}}, nil)
	sum := sha256.Sum256([]byte(secret))
	hash := hex.EncodeToString(sum[:])
	none := base64.RawURLEncoding.EncodeToString([]byte(`{"alg":"none"}`))
	bad := [][]string{
		{}, {""}, {" "}, {"Bearer"}, {"Bearer "}, {"bearer  "}, {"Bearer\t" + secret}, {secret},
		{"Bearer  " + secret}, {" Bearer " + secret}, {"Bearer " + secret + " "},
		{"Bearer " + secret + "\n"}, {"Bearer " + secret[:len(secret)-1]}, {"Bearer " + secret + "x"},
		{"Bearer " + strings.ToUpper(secret)}, {"Bearer x" + secret}, {"Bearer \"" + secret + "\""},
		{"Bearer '" + secret + "'"}, {"Bearer " + hash}, {"Bearer " + strings.ToUpper(hash)},
		{"Bearer " + string(sum[:])}, {"Bearer " + base64.StdEncoding.EncodeToString([]byte(secret))},
		{"Bearer sha256:" + hash}, {"Bearer token=" + secret}, {"Bearer " + url.QueryEscape(secret+"=")},
		{"Bearer " + secret + "," + secret}, {"Bearer " + secret + ", Basic eDp5"},
		{"Basic " + base64.StdEncoding.EncodeToString([]byte("x:"+secret))}, {"Basic " + secret},
		{"Digest " + secret}, {"Token " + secret}, {"BearerX " + secret}, {"Bearer: " + secret},
		{"Bearer=" + secret}, {"Bearer null"}, {"Bearer undefined"}, {"Bearer *"}, {"Bearer true"},
		{"Bearer ' or 1=1 --"}, {"Bearer ../../etc/passwd"}, {"Bearer app"}, {"Bearer app:" + secret},
		{"Bearer " + none + ".e30."}, {"Bearer " + none + ".eyJzY29wZSI6ImFkbWluIn0." + hash},
		{"Bearer " + strings.Replace(secret, "o", "\u043e", 1)}, {"Bearer " + secret + "\x00"},
		{"Bearer " + strings.Repeat(secret, 100)}, {"Bearer bad", "Bearer " + secret},
		{"Bearer " + secret, "Bearer bad"}, {"Bearer " + secret, "Bearer " + secret}, {"", "Bearer " + secret},
	}
	require.GreaterOrEqual(t, len(bad), 40)
	for _, h := range bad {
		caller, err := g.Admit(request(h...), Rule{Read, Targets})
		require.ErrorIs(t, err, ErrUnauthenticated, "%q", h)
		require.Nil(t, caller)
		require.NotContains(t, err.Error(), secret)
	}
	for _, place := range []func(*http.Request){
		func(r *http.Request) { r.URL.RawQuery = "access_token=" + secret },
		func(r *http.Request) { r.Header.Set("Cookie", "token="+secret) },
		func(r *http.Request) { r.Header.Set("X-Api-Key", secret) },
		func(r *http.Request) { r.Header.Set("Proxy-Authorization", "Bearer "+secret) },
		func(r *http.Request) { r.SetBasicAuth("app", secret) },
	} {
		r := request()
		place(r)
		_, err := g.Admit(r, Rule{Read, Targets})
		require.ErrorIs(t, err, ErrUnauthenticated)
	}
	for _, scheme := range []string{"Bearer ", "bearer ", "BEARER "} {
		caller, err := g.Admit(request(scheme+secret), Rule{Read, Targets})
		require.NoError(t, err)
		require.Equal(t, "token app", caller.String())
		require.False(t, caller.Operator())
	}
}

// A route that somebody adds without a thought about who may call it must be closed (V1), and a gate
// must not open because a list of tokens came out empty (V4).
func TestDenyByDefault(t *testing.T) {
	open := NewGate(Credentials{}, nil)
	for _, rule := range []Rule{{}, {Scope: Read}, {Reach: Nothing}} {
		_, err := open.Admit(request(), rule)
		require.ErrorIs(t, err, ErrDenied, "%+v", rule)
	}
	caller, err := open.Admit(request(), Rule{Admin, Whole})
	require.NoError(t, err)
	require.Equal(t, "anonymous", caller.String())
	require.False(t, caller.Operator())

	one := Credentials{Tokens: []Token{NewToken("app", secret, Send)}}
	require.NoError(t, open.Set(one), "an open gate may close")
	_, err = open.Admit(request(), Rule{Read, Targets})
	require.ErrorIs(t, err, ErrUnauthenticated)
	require.ErrorIs(t, open.Set(Credentials{}), delay.ErrInvalid)
	_, err = open.Admit(request(), Rule{Read, Targets})
	require.ErrorIs(t, err, ErrUnauthenticated, "still closed")
	_, err = open.Admit(request(), Rule{Public, Nothing})
	require.NoError(t, err)
	require.NoError(t, open.Set(Credentials{Tokens: []Token{NewToken("app", "fresh", Send)}}))
	_, err = open.Admit(request("Bearer "+secret), Rule{Send, Targets})
	require.ErrorIs(t, err, ErrUnauthenticated, "a token that was taken away")
	caller, err = open.Admit(request("Bearer fresh"), Rule{Admin, Targets})
	require.ErrorIs(t, err, ErrDenied)
	require.Equal(t, "token app", caller.String(), "the audit wants to know who tried")
}

func TestScopeWords(t *testing.T) {
	for _, word := range []string{"read", "send", "admin"} {
		scope, ok := ParseScope(word)
		require.True(t, ok)
		require.Equal(t, word, scope.String())
	}
	_, ok := ParseScope("public")
	require.False(t, ok)
}

// shown is a request over a connection with a verified certificate.
func shown(leaf, root *x509.Certificate, authorization ...string) *http.Request {
	r := request(authorization...)
	r.TLS = &tls.ConnectionState{
		PeerCertificates: []*x509.Certificate{leaf},
		VerifiedChains:   [][]*x509.Certificate{{leaf, root}},
	}
	return r
}

// A certificate opens what its name was given, and only while its authority is trusted and it has
// not expired; a connection may be older than both (V5).
func TestCertificates(t *testing.T) {
	now := time.Unix(1_800_000_000, 0)
	later := now.Add(time.Hour)
	root := &x509.Certificate{Raw: []byte("root"), NotAfter: later}
	uri, err := url.Parse("spiffe://cluster/ns/shop")
	require.NoError(t, err)
	leaf := func(name string, dns ...string) *x509.Certificate {
		return &x509.Certificate{Raw: []byte(name), Subject: pkix.Name{CommonName: name}, DNSNames: dns,
			NotAfter: later}
	}
	only, err := delay.NewTargetSet([]string{"pull:shop*"})
	require.NoError(t, err)
	may := Credentials{
		Authorities: []*x509.Certificate{root},
		Tokens:      []Token{NewToken("ops", secret, Admin)},
		Clients: []Client{
			{Name: "shop", Scopes: Send, Targets: only}, {Name: "bill.example", Scopes: Read},
			{Name: uri.String(), Scopes: Admin},
		},
	}
	g := NewGate(may, func() time.Time { return now })
	look := Rule{Read, Targets}
	caller, err := g.Admit(shown(leaf("shop"), root), Rule{Send, Targets})
	require.NoError(t, err)
	require.Equal(t, "certificate shop", caller.String())
	require.True(t, caller.Targets.Has("pull:shop1"))
	_, err = g.Admit(shown(leaf("shop"), root), look)
	require.ErrorIs(t, err, ErrDenied)
	_, err = g.Admit(shown(leaf("shop"), root), Rule{Read | Send, Whole})
	require.ErrorIs(t, err, ErrDenied)
	_, err = g.Admit(shown(leaf("x", "bill.example"), root), look)
	require.NoError(t, err)
	spiffe := leaf("y")
	spiffe.URIs = []*url.URL{uri}
	caller, err = g.Admit(shown(spiffe, root), Rule{Admin, Whole})
	require.NoError(t, err)
	require.True(t, caller.Operator())

	other := &x509.Certificate{Raw: []byte("other"), NotAfter: later}
	old := leaf("bill.example")
	old.NotAfter = now.Add(-time.Second)
	unverified := shown(leaf("bill.example"), root)
	unverified.TLS.VerifiedChains = nil
	for what, r := range map[string]*http.Request{
		"no connection of TLS": request(), "not verified": unverified,
		"unknown name":          shown(leaf("shop2"), root),
		"no name":               shown(leaf(""), root),
		"other authority":       shown(leaf("bill.example"), other),
		"expired":               shown(old, root),
		"a wrong token besides": shown(leaf("bill.example"), root, "Bearer wrong"),
	} {
		_, err := g.Admit(r, look)
		require.ErrorIs(t, err, ErrUnauthenticated, what)
	}
	caller, err = g.Admit(shown(leaf("bill.example"), root, "Bearer "+secret), Rule{Admin, Whole})
	require.NoError(t, err)
	require.Equal(t, "token ops", caller.String(), "who shows a token is asked for the token")

	// Taken away while connections live on: the name, then the authority.
	may.Clients = may.Clients[:1]
	require.NoError(t, g.Set(may))
	_, err = g.Admit(shown(leaf("x", "bill.example"), root), look)
	require.ErrorIs(t, err, ErrUnauthenticated)
	may.Authorities = []*x509.Certificate{other}
	require.NoError(t, g.Set(may))
	_, err = g.Admit(shown(leaf("shop"), root), Rule{Send, Targets})
	require.ErrorIs(t, err, ErrUnauthenticated)
}
