// SPDX-License-Identifier: Apache-2.0

package certs

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"io"
	"log"
	"math/big"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// authority is a certificate authority of a test.
type authority struct {
	t    testing.TB
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
	next int64
}

func newAuthority(t testing.TB, name string) *authority {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	a := &authority{t: t, key: key, next: 1}
	a.cert = &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name}, IsCA: true,
		NotAfter: time.Now().Add(time.Hour), BasicConstraintsValid: true,
		KeyUsage: x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, a.cert, a.cert, &key.PublicKey, key)
	require.NoError(t, err)
	a.cert, err = x509.ParseCertificate(der)
	require.NoError(t, err)
	return a
}

func (a *authority) pool() *x509.CertPool {
	p := x509.NewCertPool()
	p.AddCert(a.cert)
	return p
}

func (a *authority) write(name string) {
	require.NoError(a.t, os.WriteFile(name, pemOf("CERTIFICATE", a.cert.Raw), 0o600))
}

func pemOf(kind string, der []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der})
}

// issue writes a certificate and its key.
func (a *authority) issue(cert, key string, template x509.Certificate) {
	a.t.Helper()
	a.next++
	template.SerialNumber = big.NewInt(a.next)
	if template.NotAfter.IsZero() {
		template.NotAfter = time.Now().Add(time.Hour)
	}
	template.NotBefore = template.NotAfter.Add(-3 * time.Hour)
	template.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth}
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(a.t, err)
	der, err := x509.CreateCertificate(rand.Reader, &template, a.cert, &private.PublicKey, a.key)
	require.NoError(a.t, err)
	secret, err := x509.MarshalECPrivateKey(private)
	require.NoError(a.t, err)
	require.NoError(a.t, os.WriteFile(cert, pemOf("CERTIFICATE", der), 0o600))
	require.NoError(a.t, os.WriteFile(key, pemOf("EC PRIVATE KEY", secret), 0o600))
}

// host is a server's certificate for the name that tests call.
func host() x509.Certificate { return x509.Certificate{DNSNames: []string{"api.example"}} }

func files(t testing.TB) Files {
	dir := t.TempDir()
	return Files{Cert: filepath.Join(dir, "cert.pem"), Key: filepath.Join(dir, "key.pem")}
}

// serve runs a server with the keeper's material.
func serve(t testing.TB, k *Keeper) *httptest.Server {
	t.Helper()
	srv := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if len(r.TLS.VerifiedChains) > 0 {
			_, _ = io.WriteString(w, r.TLS.VerifiedChains[0][0].Subject.CommonName)
		}
	}))
	srv.TLS = k.Config()
	srv.Config.ErrorLog = log.New(io.Discard, "", 0)
	srv.EnableHTTP2 = true
	srv.StartTLS()
	t.Cleanup(srv.Close)
	return srv
}

// client trusts roots and shows pair, if any.
func client(t testing.TB, roots *x509.CertPool, cert, key string) *http.Client {
	t.Helper()
	conf := &tls.Config{RootCAs: roots, ServerName: "api.example"}
	if cert != "" {
		pair, err := tls.LoadX509KeyPair(cert, key)
		require.NoError(t, err)
		conf.Certificates = []tls.Certificate{pair}
	}
	tr := &http.Transport{TLSClientConfig: conf, ForceAttemptHTTP2: true}
	t.Cleanup(tr.CloseIdleConnections)
	return &http.Client{Transport: tr, Timeout: 10 * time.Second}
}

func get(c *http.Client, url string) (string, error) {
	resp, err := c.Get(url)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	return string(body), err
}

// Material that cannot be used as a whole must not be used in part, and its errors must not hold the
// key (E1, E3).
func TestBroken(t *testing.T) {
	a := newAuthority(t, "root")
	f := files(t)
	a.issue(f.Cert, f.Key, host())
	f.ClientCA = filepath.Join(t.TempDir(), "ca.pem")
	a.write(f.ClientCA)
	good := map[string][]byte{}
	for _, name := range []string{f.Cert, f.Key, f.ClientCA} {
		body, err := os.ReadFile(name)
		require.NoError(t, err)
		good[name] = body
	}
	m, err := Read(f)
	require.NoError(t, err)
	require.NoError(t, m.Fresh(time.Now()))
	require.ErrorIs(t, m.Fresh(time.Now().Add(2*time.Hour)), ErrExpired)
	require.Len(t, m.Authorities, 1)
	require.Equal(t, m.Leaf.NotAfter, NewKeeper(m).Expiry())

	other := files(t)
	a.issue(other.Cert, other.Key, host())
	foreignKey, err := os.ReadFile(other.Key)
	require.NoError(t, err)
	canary := []byte("-----BEGIN EC PRIVATE KEY-----\nY2FuYXJ5a2V5\n-----END EC PRIVATE KEY-----\n")
	for name, bodies := range map[string][][]byte{
		f.Cert:     {nil, []byte("x"), good[f.Key], good[f.Cert][:len(good[f.Cert])/2]},
		f.Key:      {nil, canary, foreignKey, good[f.Cert], good[f.Key][:len(good[f.Key])/2]},
		f.ClientCA: {nil, []byte("x"), good[f.Key], pemOf("CERTIFICATE", []byte("x"))},
	} {
		for i, body := range bodies {
			require.NoError(t, os.WriteFile(name, body, 0o600))
			_, err := Read(f)
			require.Error(t, err, "%s %d", name, i)
			require.NotContains(t, err.Error(), "canary")
			require.NotContains(t, err.Error(), "Y2FuYXJ5")
		}
		require.NoError(t, os.Remove(name))
		_, err := Read(f)
		require.ErrorContains(t, err, "api.tls")
		require.NoError(t, os.WriteFile(name, good[name], 0o600))
	}
	_, err = Read(f)
	require.NoError(t, err)
}

// A server that somebody else could be must not be talked to: another name, another authority, out
// of date, an old protocol (E2).
func TestClientsRefuse(t *testing.T) {
	a, b := newAuthority(t, "root"), newAuthority(t, "other")
	f := files(t)
	a.issue(f.Cert, f.Key, host())
	m, err := Read(f)
	require.NoError(t, err)
	k := NewKeeper(m)
	srv := serve(t, k)
	_, err = get(client(t, a.pool(), "", ""), srv.URL)
	require.NoError(t, err)
	_, err = get(client(t, b.pool(), "", ""), srv.URL)
	require.ErrorContains(t, err, "unknown authority")
	elsewhere := client(t, a.pool(), "", "")
	elsewhere.Transport.(*http.Transport).TLSClientConfig.ServerName = "evil.example"
	_, err = get(elsewhere, srv.URL)
	require.ErrorContains(t, err, "evil.example")
	ancient := client(t, a.pool(), "", "")
	ancient.Transport.(*http.Transport).TLSClientConfig.MaxVersion = tls.VersionTLS11
	ancient.Transport.(*http.Transport).TLSClientConfig.MinVersion = tls.VersionTLS10
	_, err = get(ancient, srv.URL)
	require.ErrorContains(t, err, "protocol version")
	plain, err := http.Get("http" + srv.URL[len("https"):])
	require.NoError(t, err)
	require.NoError(t, plain.Body.Close())
	require.Equal(t, http.StatusBadRequest, plain.StatusCode)

	late := host()
	late.NotAfter = time.Now().Add(-time.Minute)
	a.issue(f.Cert, f.Key, late)
	m, err = Read(f)
	require.NoError(t, err)
	require.ErrorIs(t, m.Fresh(time.Now()), ErrExpired)
	k.Use(m)
	_, err = get(client(t, a.pool(), "", ""), srv.URL)
	require.ErrorContains(t, err, "expired")
}

// A client without a good certificate must not get to the handlers where one is required, and must
// not be taken for somebody where it is not.
func TestClientCertificates(t *testing.T) {
	a, b := newAuthority(t, "root"), newAuthority(t, "other")
	f, shop, forged, old := files(t), files(t), files(t), files(t)
	a.issue(f.Cert, f.Key, host())
	a.issue(shop.Cert, shop.Key, x509.Certificate{Subject: pkix.Name{CommonName: "shop"}})
	b.issue(forged.Cert, forged.Key, x509.Certificate{Subject: pkix.Name{CommonName: "shop"}})
	a.issue(old.Cert, old.Key, x509.Certificate{Subject: pkix.Name{CommonName: "shop"},
		NotAfter: time.Now().Add(-time.Minute)})
	f.ClientCA = filepath.Join(t.TempDir(), "ca.pem")
	a.write(f.ClientCA)
	for _, optional := range []bool{false, true} {
		f.Optional = optional
		m, err := Read(f)
		require.NoError(t, err)
		srv := serve(t, NewKeeper(m))
		name, err := get(client(t, a.pool(), shop.Cert, shop.Key), srv.URL)
		require.NoError(t, err)
		require.Equal(t, "shop", name)
		name, err = get(client(t, a.pool(), "", ""), srv.URL)
		require.Equal(t, optional, err == nil)
		require.Empty(t, name)
		for _, bad := range []Files{forged, old} {
			name, err := get(client(t, a.pool(), bad.Cert, bad.Key), srv.URL)
			// A client of Go does not show what the server does not ask for.
			require.True(t, err != nil || optional && name == "", "%v %q", err, name)
		}
	}
}

// A new certificate must reach new connections at once, and no request may fail while certificates
// are exchanged (E2).
func TestExchange(t *testing.T) {
	a := newAuthority(t, "root")
	f := files(t)
	a.issue(f.Cert, f.Key, host())
	m, err := Read(f)
	require.NoError(t, err)
	k := NewKeeper(m)
	srv := serve(t, k)
	var wg sync.WaitGroup
	var stop atomic.Bool
	var asked, failed atomic.Int64
	for range 3 {
		c := client(t, a.pool(), "", "")
		wg.Go(func() {
			for !stop.Load() {
				if _, err := get(c, srv.URL); err != nil {
					failed.Add(1)
				}
				if asked.Add(1)%7 == 0 {
					c.CloseIdleConnections()
				}
			}
		})
	}
	for range 20 {
		a.issue(f.Cert, f.Key, host())
		m, err := Read(f)
		require.NoError(t, err)
		k.Use(m)
		before := asked.Load()
		require.Eventually(t, func() bool { return asked.Load() > before+5 }, 20*time.Second,
			time.Millisecond)
		conn, err := tls.Dial("tcp", srv.Listener.Addr().String(),
			&tls.Config{RootCAs: a.pool(), ServerName: "api.example"})
		require.NoError(t, err)
		require.Equal(t, m.Leaf.SerialNumber, conn.ConnectionState().PeerCertificates[0].SerialNumber)
		require.NoError(t, conn.Close())
	}
	stop.Store(true)
	wg.Wait()
	require.Zero(t, failed.Load())
}
