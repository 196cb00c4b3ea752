// SPDX-License-Identifier: Apache-2.0

package config

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"

	"github.com/cicadamq/cicada/delay"
)

const (
	// minToken keeps guessable words out.
	minToken       = 16
	maxSigningKeys = 2
)

// tokens reads the clients that show a secret.
func (l *loader) tokens(key string, n *yaml.Node) {
	l.each(key, n, func(path string, item *yaml.Node) {
		var t Token
		l.pairs(path, item, func(path, name string, k, v *yaml.Node) {
			switch name {
			case "name":
				t.Name = l.label(path, k, v)
			case "sha256":
				sum, err := hex.DecodeString(v.Value)
				if err != nil || len(sum) != sha256.Size {
					l.wrong(l.at(k), path, "want 64 hexadecimal digits")
				}
				t.SHA256 = strings.ToLower(v.Value)
			case "token":
				t.SHA256 = l.hashOf(path, k, v)
			case "scopes":
				t.Scopes = l.scopes(path, v)
			case "targets":
				t.Targets = l.targets(path, v)
			default:
				l.wrong(l.at(k), path, "unknown key; want name, sha256, token, scopes, targets")
			}
		})
		if t.SHA256 == "" || len(t.Scopes) == 0 {
			l.wrong(l.at(item), path, "needs scopes and one of token, sha256")
		}
		if slices.ContainsFunc(l.cfg.Tokens, func(o Token) bool { return o.SHA256 == t.SHA256 }) {
			l.wrong(l.at(item), path, "is the token of another entry")
		}
		if t.Name == "" {
			t.Name = fmt.Sprintf("#%d", len(l.cfg.Tokens)+1)
		}
		l.cfg.Tokens = append(l.cfg.Tokens, t)
	})
}

// hashOf is the hash of a token that is given itself, or by reference.
func (l *loader) hashOf(path string, k, v *yaml.Node) string {
	value, err := l.resolve(v.Value)
	if err != nil {
		l.wrong(l.at(k), path, err.Error())
	}
	if len(value) < minToken {
		l.wrongf(l.at(k), path, "is shorter than %d characters", minToken)
	}
	sum := sha256.Sum256([]byte(value))
	return hex.EncodeToString(sum[:])
}

// clients reads the clients that show a certificate.
func (l *loader) clients(key string, n *yaml.Node) {
	l.each(key, n, func(path string, item *yaml.Node) {
		var c Client
		l.pairs(path, item, func(path, name string, k, v *yaml.Node) {
			switch name {
			case "name":
				c.Name = l.label(path, k, v)
			case "scopes":
				c.Scopes = l.scopes(path, v)
			case "targets":
				c.Targets = l.targets(path, v)
			default:
				l.wrong(l.at(k), path, "unknown key; want name, scopes, targets")
			}
		})
		if c.Name == "" || len(c.Scopes) == 0 {
			l.wrong(l.at(item), path, "needs name and scopes")
		}
		if slices.ContainsFunc(l.cfg.Clients, func(o Client) bool { return o.Name == c.Name }) {
			l.wrong(l.at(item), path, "is the name of another entry")
		}
		l.cfg.Clients = append(l.cfg.Clients, c)
	})
}

// label is a name that the audit may show.
func (l *loader) label(path string, k, v *yaml.Node) string {
	if v.Kind != yaml.ScalarNode || !delay.ValidText(v.Value) || len(v.Value) > delay.MaxTargetBytes {
		l.wrong(l.at(k), path, "want a short text without control characters")
	}
	return v.Value
}

// scopes are the words of what a client may do.
func (l *loader) scopes(key string, n *yaml.Node) []string {
	items, _ := l.scalars(key, n)
	for _, s := range items {
		if s != "read" && s != "send" && s != "admin" {
			l.wrongf(l.at(n), key, "want read, send or admin, not %q", s)
		}
	}
	return items
}

// targets are patterns. An empty list would mean no limit where the strictest was meant.
func (l *loader) targets(key string, n *yaml.Node) []string {
	items, ok := l.scalars(key, n)
	if ok && len(items) == 0 {
		l.wrong(l.at(n), key, "the list is empty; leave it out for every target")
	}
	if _, err := delay.NewTargetSet(items); err != nil {
		l.wrong(l.at(n), key, strings.TrimPrefix(err.Error(), "targets: "))
	}
	return items
}

// signingKeys reads the keys that sign webhook calls.
func (l *loader) signingKeys(key string, n *yaml.Node) {
	l.each(key, n, func(path string, item *yaml.Node) {
		var s SigningKey
		l.pairs(path, item, func(path, name string, k, v *yaml.Node) {
			switch name {
			case "id":
				s.ID = v.Value
			case "key":
				value, err := l.resolve(v.Value)
				if err != nil {
					l.wrong(l.at(k), path, err.Error())
				}
				s.Key = Secret(value)
			default:
				l.wrong(l.at(k), path, "unknown key; want id, key")
			}
		})
		if s.ID == "" || s.Key == "" {
			l.wrong(l.at(item), path, "needs id and key")
		}
		l.cfg.Webhooks.Secrets = append(l.cfg.Webhooks.Secrets, s)
	})
	if len(l.cfg.Webhooks.Secrets) > maxSigningKeys {
		l.wrongf(l.at(n), key, "more than %d: one that signs and one that is being replaced",
			maxSigningKeys)
	}
}
