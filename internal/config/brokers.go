// SPDX-License-Identifier: Apache-2.0

package config

import (
	"regexp"
	"slices"
	"sort"
	"strings"

	"go.yaml.in/yaml/v3"

	"github.com/cicadamq/cicada/delay"
)

// field says what a key below brokers holds.
type field struct {
	words []string         // allowed words; empty is any text
	list  bool             // a list of texts
	must  bool             // may not be left out
	span  bool             // a duration
	flag  bool             // true or false
	items map[string]field // a list of mappings
	below map[string]field // one mapping
}

var (
	tlsFields = map[string]field{
		"ca": {}, "cert": {}, "key": {}, "insecure_skip_verify": {flag: true},
	}
	commitWords = []string{"local", "tier"}
)

// brokerFields is what each kind of broker may hold.
func brokerFields() map[string]map[string]field {
	return map[string]map[string]field{
		"kafka": {
			"kind": {must: true}, "seeds": {list: true, must: true}, "tls": {below: tlsFields},
			"sasl": {below: map[string]field{
				"mechanism": {words: []string{"plain", "scram-sha-256", "scram-sha-512"}},
				"user":      {must: true}, "password": {must: true},
			}},
			"sources": {items: map[string]field{
				"topic": {must: true}, "group": {must: true}, "commit": {words: commitWords},
				"id_from": {words: []string{"header", "key"}}, "reject_topic": {},
			}},
			"sink": {below: map[string]field{
				"mode":         {words: []string{"idempotent", "exactly_once"}},
				"ledger_topic": {}, "window": {span: true},
			}},
		},
		"rocketmq": {
			"kind": {must: true}, "name_servers": {list: true, must: true},
			"access_key": {}, "secret_key": {},
			"guardian": {below: map[string]field{
				"enabled": {flag: true}, "grace": {span: true}, "delay_levels": {flag: true},
				"timers": {flag: true}, "consumer_retries": {flag: true},
			}},
			"sources": {items: map[string]field{
				"topic": {must: true}, "group": {must: true}, "commit": {words: commitWords},
			}},
		},
		"nats": {
			"kind": {must: true}, "urls": {list: true, must: true}, "creds": {},
			"tls": {below: tlsFields},
			"sources": {items: map[string]field{
				"stream": {must: true}, "subject": {must: true}, "commit": {words: commitWords},
			}},
		},
	}
}

var brokerName = regexp.MustCompile(`^[A-Za-z0-9._-]{1,64}$`)

// brokers reads the section that names brokers. The parts that no component uses yet are checked
// all the same, so that a file is right or wrong independently of what is built.
func (l *loader) brokers(key string, n *yaml.Node) {
	kinds := brokerFields()
	l.pairs(key, n, func(path, name string, k, v *yaml.Node) {
		if !brokerName.MatchString(name) {
			l.wrong(l.at(k), path, "a broker's name is 1 to 64 of A-Z a-z 0-9 . _ -")
		}
		kind := childValue(v, "kind")
		fields, ok := kinds[kind]
		if !ok {
			l.wrongf(l.at(k), path+".kind", "want kafka, rocketmq or nats, not %q", kind)
			return
		}
		l.object(path, v, fields)
		l.cfg.Brokers = append(l.cfg.Brokers, Broker{
			Name: name, Kind: kind, Line: k.Line, node: v,
		})
	})
}

// brokerSecrets are the keys below brokers whose values are masked in print.
var brokerSecrets = []string{"password", "secret_key"}

// masked is a copy of n without its secrets and comments.
func masked(n *yaml.Node) *yaml.Node {
	if n.Kind == yaml.AliasNode {
		n = n.Alias
	}
	c := &yaml.Node{Kind: n.Kind, Style: n.Style, Tag: n.Tag, Value: n.Value}
	for i, below := range n.Content {
		if n.Kind == yaml.MappingNode && i%2 == 1 &&
			slices.Contains(brokerSecrets, n.Content[i-1].Value) {
			c.Content = append(c.Content, scalar(stars))
			continue
		}
		c.Content = append(c.Content, masked(below))
	}
	return c
}

func childValue(n *yaml.Node, name string) string {
	for i := 0; n.Kind == yaml.MappingNode && i+1 < len(n.Content); i += 2 {
		if n.Content[i].Value == name {
			return n.Content[i+1].Value
		}
	}
	return ""
}

// object checks a mapping against its fields.
func (l *loader) object(path string, n *yaml.Node, fields map[string]field) {
	given := make(map[string]bool)
	l.pairs(path, n, func(path, name string, k, v *yaml.Node) {
		given[name] = true
		f, ok := fields[name]
		if !ok {
			l.wrongf(l.at(k), path, "unknown key; want %s", strings.Join(names(fields), ", "))
			return
		}
		l.value(path, k, v, f)
	})
	for _, name := range names(fields) {
		if fields[name].must && !given[name] {
			l.wrong(l.at(n), path+"."+name, "is missing")
		}
	}
}

func (l *loader) value(path string, k, v *yaml.Node, f field) {
	switch {
	case f.below != nil:
		l.object(path, v, f.below)
		return
	case f.items != nil:
		l.each(path, v, func(path string, item *yaml.Node) { l.object(path, item, f.items) })
		return
	case f.list:
		if items, ok := l.scalars(path, v); ok && len(items) == 0 {
			l.wrong(l.at(k), path, "the list is empty")
		}
		return
	case v.Kind != yaml.ScalarNode:
		l.wrong(l.at(k), path, "want one value")
		return
	}
	switch {
	case f.span:
		if _, err := delay.ParseDuration(v.Value); err != nil {
			l.wrongf(l.at(k), path, "%q is not a duration such as 500ms or 5s", v.Value)
		}
	case f.flag:
		if v.Value != "true" && v.Value != "false" {
			l.wrongf(l.at(k), path, "want true or false, not %q", v.Value)
		}
	case len(f.words) > 0:
		if !slices.Contains(f.words, v.Value) {
			l.wrongf(l.at(k), path, "want %s, not %q", strings.Join(f.words, " or "), v.Value)
		}
	case f.must && v.Value == "":
		l.wrong(l.at(k), path, "must not be empty")
	}
}

func names(fields map[string]field) []string {
	all := make([]string, 0, len(fields))
	for name := range fields {
		all = append(all, name)
	}
	sort.Strings(all)
	return all
}
