// SPDX-License-Identifier: Apache-2.0

package server

import (
	"crypto/sha256"
	"crypto/subtle"
	"fmt"
	"net/http"
	"strings"
)

// Scope is what a token may do. Scopes are a set.
type Scope uint8

// The scopes. Admin includes the others.
const (
	// ScopeRead looks: messages, counts, targets, status, metrics.
	ScopeRead Scope = 1 << iota
	// ScopeSend is for producers and consumers: send, cancel, reschedule, fire, pull, settle.
	ScopeSend
	// ScopeAdmin purges, pauses, retries and deletes dead letters, confirms the clock.
	ScopeAdmin
	// scopePublic needs no token: health checks.
	scopePublic
)

var scopeNames = [...]string{"read", "send", "admin"}

// ParseScope reads the word of the configuration.
func ParseScope(word string) (Scope, bool) {
	for i, name := range scopeNames {
		if name == word {
			return 1 << i, true
		}
	}
	return 0, false
}

// String is the word of the configuration for a single scope.
func (s Scope) String() string {
	for i, name := range scopeNames {
		if s == 1<<i {
			return name
		}
	}
	return "public"
}

// Token is a secret that a client shows as "Authorization: Bearer <secret>". Only its hash is kept.
type Token struct {
	Hash   [sha256.Size]byte
	Scopes Scope
}

// NewToken is the token of a secret.
func NewToken(secret string, scopes Scope) Token {
	return Token{Hash: sha256.Sum256([]byte(secret)), Scopes: scopes}
}

// authorize refuses r unless it may do what needs scope (W6). All tokens are compared, in constant
// time, so that the time of an answer tells nothing.
func (s *Server) authorize(r *http.Request, scope Scope) error {
	if len(s.opts.Tokens) == 0 || scope == scopePublic {
		return nil
	}
	kind, secret, _ := strings.Cut(r.Header.Get("Authorization"), " ")
	if !strings.EqualFold(kind, "bearer") || secret == "" {
		return fmt.Errorf("%w: want Authorization: Bearer <token>", errUnauthenticated)
	}
	hash := sha256.Sum256([]byte(secret))
	var granted Scope
	for i := range s.opts.Tokens {
		t := &s.opts.Tokens[i]
		if subtle.ConstantTimeCompare(hash[:], t.Hash[:]) == 1 {
			granted |= t.Scopes
		}
	}
	switch {
	case granted == 0:
		return fmt.Errorf("%w: unknown token", errUnauthenticated)
	case granted&(scope|ScopeAdmin) == 0:
		return fmt.Errorf("%w: the token lacks the scope %s", errPermissionDenied, scope)
	}
	return nil
}
