// SPDX-License-Identifier: Apache-2.0

package client

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"math/big"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/cicadamq/cicada/delay"
)

// A password that is not sent, a wrong one that is let in, or a certificate that nobody looks at:
// each is found by the first stranger.
func TestConnects(t *testing.T) {
	cert, pool := certificate(t)
	cluster, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.EnableSASL(),
		kfake.TLS(&tls.Config{Certificates: []tls.Certificate{cert}, MinVersion: tls.VersionTLS12}),
		kfake.Superuser("SCRAM-SHA-256", "u256", "p"), kfake.Superuser("SCRAM-SHA-512", "u512", "p"),
		kfake.Superuser("PLAIN", "plain", "p"))
	require.NoError(t, err)
	defer cluster.Close()
	trust := &tls.Config{RootCAs: pool, MinVersion: tls.VersionTLS12}
	for _, c := range []struct {
		name string
		tls  *tls.Config
		sasl SASL
		ok   bool
	}{
		{"plain", trust, SASL{Plain, "plain", "p"}, true},
		{"scram-sha-256", trust, SASL{ScramSHA256, "u256", "p"}, true},
		{"scram-sha-512", trust, SASL{ScramSHA512, "u512", "p"}, true},
		{"wrong password", trust, SASL{ScramSHA512, "u512", "q"}, false},
		{"nobody", trust, SASL{}, false},
		{"no trust", &tls.Config{MinVersion: tls.VersionTLS12}, SASL{Plain, "plain", "p"}, false},
	} {
		cfg, err := Config{
			Broker: "main", Seeds: cluster.ListenAddrs(), TLS: c.tls, SASL: c.sasl, Version: "v1.2+x",
		}.Complete()
		require.NoError(t, err, c.name)
		cl, err := cfg.Client(kgo.RequestRetries(0), kgo.RetryTimeout(2*time.Second))
		require.NoError(t, err, c.name)
		require.Equal(t, c.ok, cl.Ping(t.Context()) == nil, c.name)
		cl.Close()
	}
}

func certificate(t *testing.T) (tls.Certificate, *x509.CertPool) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour), IsCA: true,
		BasicConstraintsValid: true, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		DNSNames: []string{"localhost"},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	require.NoError(t, err)
	leaf, err := x509.ParseCertificate(der)
	require.NoError(t, err)
	pool := x509.NewCertPool()
	pool.AddCert(leaf)
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, pool
}

// What can never work must be found without I/O, and defaults be there.
func TestComplete(t *testing.T) {
	good := Config{Broker: "main", Seeds: []string{"k:1"}}
	c, err := good.Complete()
	require.NoError(t, err)
	require.Equal(t, DefaultDialTimeout, c.DialTimeout)
	require.Equal(t, "cicada", c.ClientID)
	require.NotNil(t, c.Now)
	require.NotNil(t, c.Logger)
	for _, spoil := range []func(c *Config){
		func(c *Config) { c.Broker = "" },
		func(c *Config) { c.Seeds = []string{""} },
		func(c *Config) { c.RequestTimeout = -1 },
		func(c *Config) { c.SASL.Mechanism = "x" },
		func(c *Config) { c.SASL.Mechanism = ScramSHA256 },
	} {
		bad := good
		spoil(&bad)
		_, err := bad.Complete()
		require.ErrorIs(t, err, delay.ErrInvalid)
	}
}

// A topic that no broker can have must be refused when it is named, and no other.
func TestCheckTopic(t *testing.T) {
	for _, ok := range []string{"a", "a.b_c-D9", strings.Repeat("x", maxTopicBytes)} {
		require.NoError(t, CheckTopic(ok), ok)
	}
	for _, bad := range []string{
		"", ".", "..", "a b", "a/b", "ä", strings.Repeat("x", maxTopicBytes+1),
	} {
		require.Error(t, CheckTopic(bad), bad)
	}
}

// A pause that shrinks to nothing, or overflows, would keep a core or a broker busy.
func TestBackoff(t *testing.T) {
	last := time.Duration(0)
	for tries := range 200 {
		d := Backoff(tries)
		require.GreaterOrEqual(t, d, max(last, minBackoff))
		require.LessOrEqual(t, d, maxBackoff)
		last = d
	}
	require.Equal(t, maxBackoff, last)
}
