// SPDX-License-Identifier: Apache-2.0

// Package certs holds the certificate of the API and the authorities of its clients, and exchanges
// them while connections go on.
//
//	PEM files --Read--> Material --Keeper.Use--> every handshake from now on
//
// # Invariants
//
//	E1  Material is whole: the key fits the certificate, and nothing of it is used before all of it
//	    could be read. A broken file changes nothing.
//	E2  No connection is made below TLS 1.2, and none is cut by an exchange.
//	E3  No error holds a part of a key.
//
// A Keeper is safe for concurrent use. There is no state to lose.
package certs

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"os"
	"sync/atomic"
	"time"

	"github.com/cicadamq/cicada/delay"
)

// Files are PEM files. ClientCA is optional.
type Files struct {
	Cert, Key string
	ClientCA  string // authorities of clients' certificates
	Optional  bool   // a client may come without a certificate
}

// Material is what Files held.
type Material struct {
	Leaf        *x509.Certificate   // of the server
	Authorities []*x509.Certificate // of the clients
	config      *tls.Config
}

// Read reads the files.
func Read(f Files) (*Material, error) {
	pair, err := tls.LoadX509KeyPair(f.Cert, f.Key)
	if err != nil {
		return nil, fmt.Errorf("api.tls: %w", err)
	}
	m := &Material{Leaf: pair.Leaf}
	m.config = &tls.Config{
		Certificates: []tls.Certificate{pair}, MinVersion: tls.VersionTLS12,
		NextProtos: []string{"h2", "http/1.1"},
	}
	if f.ClientCA == "" {
		return m, nil
	}
	if m.Authorities, err = readAuthorities(f.ClientCA); err != nil {
		return nil, fmt.Errorf("api.tls.client_ca: %w", err)
	}
	m.config.ClientCAs = x509.NewCertPool()
	for _, ca := range m.Authorities {
		m.config.ClientCAs.AddCert(ca)
	}
	m.config.ClientAuth = tls.RequireAndVerifyClientCert
	if f.Optional {
		m.config.ClientAuth = tls.VerifyClientCertIfGiven
	}
	return m, nil
}

func readAuthorities(name string) ([]*x509.Certificate, error) {
	body, err := os.ReadFile(name)
	if err != nil {
		return nil, err
	}
	var all []*x509.Certificate
	for block, rest := pem.Decode(body); block != nil; block, rest = pem.Decode(rest) {
		if block.Type != "CERTIFICATE" {
			continue
		}
		cert, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, fmt.Errorf("%s: certificate %d: %w", name, len(all)+1, err)
		}
		all = append(all, cert)
	}
	if len(all) == 0 {
		return nil, fmt.Errorf("%w: %s holds no certificate", delay.ErrInvalid, name)
	}
	return all, nil
}

// ErrExpired says that a certificate could be read and helps nobody any more.
var ErrExpired = errors.New("certificate has expired")

// Fresh is nil, or ErrExpired when the server's certificate is not valid any more at now.
func (m *Material) Fresh(now time.Time) error {
	if now.After(m.Leaf.NotAfter) {
		return fmt.Errorf("api.tls.cert: %w: %s", ErrExpired, m.Leaf.NotAfter.UTC().Format(time.RFC3339))
	}
	return nil
}

// Keeper hands the material in use to the handshakes.
type Keeper struct{ current atomic.Pointer[Material] }

// NewKeeper uses m.
func NewKeeper(m *Material) *Keeper {
	k := &Keeper{}
	k.current.Store(m)
	return k
}

// Use exchanges the material: for every handshake from now on.
func (k *Keeper) Use(m *Material) { k.current.Store(m) }

// Expiry is when the server's certificate expires.
func (k *Keeper) Expiry() time.Time { return k.current.Load().Leaf.NotAfter }

// Config is the configuration of a listener whose handshakes use the material of their moment.
func (k *Keeper) Config() *tls.Config {
	return &tls.Config{
		MinVersion: tls.VersionTLS12,
		NextProtos: []string{"h2", "http/1.1"},
		GetConfigForClient: func(*tls.ClientHelloInfo) (*tls.Config, error) {
			return k.current.Load().config, nil
		},
	}
}
