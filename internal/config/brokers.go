// SPDX-License-Identifier: Apache-2.0

package config

import (
	"fmt"
	"net"
	"regexp"
	"slices"
	"sort"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"

	"github.com/cicadamq/cicada/delay"
)

// field says what a key below brokers holds.
type field struct {
	words     []string             // allowed words; empty is any text
	list      bool                 // a list of texts
	must      bool                 // may not be left out
	low, high time.Duration        // a duration between them, if high is not 0
	size      [2]int64             // bytes between them, if not 0
	flag      bool                 // true or false
	items     map[string]field     // a list of mappings
	below     map[string]field     // one mapping
	check     func(v string) error // of a text, or of each of a list
}

var (
	tlsFields = map[string]field{
		"ca": {}, "cert": {}, "key": {}, "server_name": {}, "insecure_skip_verify": {flag: true},
	}
	commitWords = []string{"local", "tier"}
)

// brokerFields is what each kind of broker may hold.
func brokerFields() map[string]map[string]field {
	return map[string]map[string]field{
		"kafka": {
			"kind": {must: true}, "seeds": {list: true, must: true, check: hostPort},
			"tls": {below: tlsFields},
			"sasl": {below: map[string]field{
				"mechanism": {must: true, words: []string{"plain", "scram-sha-256", "scram-sha-512"}},
				"user":      {must: true}, "password": {must: true},
			}},
			"sources": {items: map[string]field{
				"topic": {must: true, check: kafkaTopic}, "group": {must: true},
				"commit": {words: commitWords}, "id_from": {words: []string{"header", "key"}},
				"reject_topic":   {check: kafkaTopic},
				"group_protocol": {words: []string{"classic", "consumer"}},
			}},
			"sink": {below: map[string]field{
				"mode":         {words: []string{"idempotent", "exactly_once"}},
				"ledger_topic": {check: kafkaTopic},
				"window":       {low: time.Millisecond, high: time.Second},
				"max_message":  {size: [2]int64{kibibyte, 64 * mebibyte}},
			}},
		},
		"rocketmq": {
			"kind": {must: true}, "name_servers": {list: true, must: true, check: hostPort},
			"access_key": {}, "secret_key": {}, "tls": {below: tlsFields},
			"guardian": {below: map[string]field{
				"enabled": {flag: true}, "grace": {low: time.Second, high: time.Hour},
				"delay_levels": {flag: true}, "timers": {flag: true},
				"consumer_retries": {flag: true}, "retired": {list: true},
			}},
			"sources": {items: map[string]field{
				"topic": {must: true}, "group": {must: true}, "commit": {words: commitWords},
				"reject_topic": {}, "target": {},
			}},
		},
		"nats": {
			"kind": {must: true}, "urls": {list: true, must: true}, "creds": {}, "user": {},
			"password": {}, "token": {}, "tls": {below: tlsFields},
			"sources": {items: map[string]field{
				"stream": {must: true}, "subject": {must: true}, "consumer": {},
				"commit": {words: commitWords}, "reject_subject": {},
			}},
		},
	}
}

var brokerName = regexp.MustCompile(`^[A-Za-z0-9._-]{1,64}$`)

// brokers reads the section that names brokers.
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
		before := len(l.mistakes)
		l.object(path, v, fields)
		b := Broker{Name: name, Kind: kind, Line: k.Line, node: v}
		if len(l.mistakes) == before { // only what has its shape can be understood
			l.broker(path, &b)
		}
		l.cfg.Brokers = append(l.cfg.Brokers, b)
	})
}

// brokerSecrets are the keys below brokers whose values are masked in print.
var brokerSecrets = []string{"password", "secret_key", "token"}

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

// childNode is the value of a key of a mapping, nil if there is none.
func childNode(n *yaml.Node, name string) *yaml.Node {
	if n != nil && n.Kind == yaml.AliasNode {
		n = n.Alias
	}
	for i := 0; n != nil && n.Kind == yaml.MappingNode && i+1 < len(n.Content); i += 2 {
		if n.Content[i].Value == name {
			return n.Content[i+1]
		}
	}
	return nil
}

func childValue(n *yaml.Node, name string) string {
	if v := childNode(n, name); v != nil {
		return v.Value
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
		items, ok := l.scalars(path, v)
		if ok && len(items) == 0 {
			l.wrong(l.at(k), path, "the list is empty")
		}
		for _, item := range items {
			l.checked(path, k, item, f)
		}
		return
	case v.Kind != yaml.ScalarNode:
		l.wrong(l.at(k), path, "want one value")
		return
	}
	switch {
	case f.high > 0:
		switch d, err := delay.ParseDuration(v.Value); {
		case err != nil:
			l.wrongf(l.at(k), path, "%q is not a duration such as 500ms or 5s", v.Value)
		case d < f.low || d > f.high:
			l.wrongf(l.at(k), path, "%s is out of range: %s to %s", v.Value,
				delay.FormatDuration(f.low), delay.FormatDuration(f.high))
		}
	case f.size[1] > 0:
		switch n, err := parseSize(v.Value); {
		case err != nil:
			l.wrong(l.at(k), path, err.Error())
		case n < f.size[0] || n > f.size[1]:
			l.wrongf(l.at(k), path, "%s is out of range: %s to %s", v.Value, formatSize(f.size[0]),
				formatSize(f.size[1]))
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
	default:
		l.checked(path, k, v.Value, f)
	}
}

func (l *loader) checked(path string, k *yaml.Node, v string, f field) {
	if f.check == nil || v == "" && !f.must {
		return
	}
	if err := f.check(v); err != nil {
		l.wrong(l.at(k), path, err.Error())
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

func hostPort(v string) error {
	if host, port, err := net.SplitHostPort(v); err != nil || host == "" || port == "" {
		return fmt.Errorf("want host:port, not %q", v)
	}
	return nil
}

var topicName = regexp.MustCompile(`^[A-Za-z0-9._-]{1,249}$`)

func kafkaTopic(v string) error {
	if !topicName.MatchString(v) || v == "." || v == ".." {
		return fmt.Errorf("want a topic of 1 to 249 of A-Z a-z 0-9 . _ -, not %q", v)
	}
	return nil
}
