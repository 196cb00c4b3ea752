// SPDX-License-Identifier: Apache-2.0

package access

import (
	"crypto/sha256"
	"crypto/subtle"
	"crypto/x509"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/cicadamq/cicada/delay"
)

// The kinds of refusal.
var (
	ErrUnauthenticated = errors.New("unauthenticated")
	ErrDenied          = errors.New("permission denied")
)

// Token is a secret that a client shows as "Authorization: Bearer <secret>". Only its hash is kept.
type Token struct {
	Name    string
	Hash    [sha256.Size]byte
	Scopes  Scope
	Targets *delay.TargetSet // nil: every target
}

// NewToken is the token of a secret, for every target.
func NewToken(name, secret string, scopes Scope) Token {
	return Token{Name: name, Hash: sha256.Sum256([]byte(secret)), Scopes: scopes}
}

// Client is a client that shows a certificate: its common name, or one of its DNS names or URIs, is
// Name.
type Client struct {
	Name    string
	Scopes  Scope
	Targets *delay.TargetSet // nil: every target
}

// Credentials are what a gate admits. With none of them it is open to everybody.
type Credentials struct {
	Tokens  []Token
	Clients []Client
	// Authorities are the certificates that clients' chains may end in.
	Authorities []*x509.Certificate
}

func (c *Credentials) open() bool { return len(c.Tokens) == 0 && len(c.Clients) == 0 }

// admission is what a gate admits at a moment. It is read-only.
type admission struct {
	Credentials
	roots map[[sha256.Size]byte]struct{} // of Authorities
}

// Gate names the callers of requests.
type Gate struct {
	now   func() time.Time
	admit atomic.Pointer[admission]
}

// NewGate makes a gate. now nil is time.Now.
func NewGate(c Credentials, now func() time.Time) *Gate {
	g := &Gate{now: now}
	if g.now == nil {
		g.now = time.Now
	}
	g.admit.Store(newAdmission(c))
	return g
}

func newAdmission(c Credentials) *admission {
	a := &admission{Credentials: c, roots: make(map[[sha256.Size]byte]struct{})}
	for _, cert := range c.Authorities {
		a.roots[sha256.Sum256(cert.Raw)] = struct{}{}
	}
	return a
}

// Allows reports why Set would refuse c, or nil.
func (g *Gate) Allows(c Credentials) error {
	if c.open() && !g.admit.Load().open() {
		return fmt.Errorf("%w: nobody would need credentials any more; that takes a restart",
			delay.ErrInvalid) // V4
	}
	return nil
}

// Set admits c from now on, or refuses it as Allows does.
func (g *Gate) Set(c Credentials) error {
	if err := g.Allows(c); err != nil {
		return err
	}
	g.admit.Store(newAdmission(c))
	return nil
}

// Admit names the caller of r, or refuses it, if it may not do what rule guards: ErrUnauthenticated
// or ErrDenied. The caller is not nil, unless it is not known.
func (g *Gate) Admit(r *http.Request, rule Rule) (*Caller, error) {
	a := g.admit.Load()
	if rule.Scope == 0 || rule.Reach == 0 {
		return nil, fmt.Errorf("%w: no rule allows it", ErrDenied) // V1
	}
	if a.open() || rule.Scope == Public {
		return &Caller{Kind: "anonymous", Scopes: Read | Send | Admin}, nil
	}
	caller, err := a.caller(r, g.now())
	switch {
	case err != nil:
		return nil, err
	case caller.Scopes&(rule.Scope|Admin) == 0:
		return caller, fmt.Errorf("%w: the %s lacks the scope %s", ErrDenied, caller.Kind, rule.Scope)
	case rule.Reach == Whole && caller.Targets != nil:
		return caller, fmt.Errorf("%w: the %s is limited to targets", ErrDenied, caller.Kind)
	}
	return caller, nil
}

// caller is who shows a token, or else a certificate. A token that is wrong is not made good by a
// certificate.
func (a *admission) caller(r *http.Request, now time.Time) (*Caller, error) {
	given := r.Header["Authorization"]
	if len(given) == 0 {
		if c := a.certified(r, now); c != nil {
			return c, nil
		}
		return nil, fmt.Errorf("%w: want Authorization: Bearer <token>", ErrUnauthenticated)
	}
	kind, secret, _ := strings.Cut(given[0], " ")
	if len(given) > 1 || !strings.EqualFold(kind, "bearer") || secret == "" {
		return nil, fmt.Errorf("%w: want Authorization: Bearer <token>", ErrUnauthenticated)
	}
	hash, found := sha256.Sum256([]byte(secret)), -1
	for i := range a.Tokens { // V3: the time of an answer tells nothing
		if subtle.ConstantTimeCompare(hash[:], a.Tokens[i].Hash[:]) == 1 {
			found = i
		}
	}
	if found < 0 {
		return nil, fmt.Errorf("%w: unknown token", ErrUnauthenticated)
	}
	t := &a.Tokens[found]
	return &Caller{Kind: "token", Name: t.Name, Scopes: t.Scopes, Targets: t.Targets}, nil
}

// certified is the client whose certificate r came with, or nil.
func (a *admission) certified(r *http.Request, now time.Time) *Caller {
	if r.TLS == nil || !slices.ContainsFunc(r.TLS.VerifiedChains, func(c []*x509.Certificate) bool {
		return a.trusts(c, now)
	}) {
		return nil
	}
	cert := r.TLS.VerifiedChains[0][0]
	for _, c := range a.Clients {
		if c.Name != "" && named(cert, c.Name) {
			return &Caller{Kind: "certificate", Name: c.Name, Scopes: c.Scopes, Targets: c.Targets}
		}
	}
	return nil
}

// trusts reports whether a chain that was verified when the connection began is still good (V5).
func (a *admission) trusts(chain []*x509.Certificate, now time.Time) bool {
	for _, cert := range chain {
		if now.After(cert.NotAfter) {
			return false
		}
	}
	if len(chain) == 0 {
		return false
	}
	_, ok := a.roots[sha256.Sum256(chain[len(chain)-1].Raw)]
	return ok
}

func named(cert *x509.Certificate, name string) bool {
	if cert.Subject.CommonName == name || slices.Contains(cert.DNSNames, name) {
		return true
	}
	for _, u := range cert.URIs {
		if u.String() == name {
			return true
		}
	}
	return false
}
