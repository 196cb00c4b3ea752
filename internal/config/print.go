// SPDX-License-Identifier: Apache-2.0

package config

import (
	"bytes"
	"fmt"
	"io"
	"strings"

	"go.yaml.in/yaml/v3"
)

// Print writes c as a file that Load reads back (G4), secrets masked (G3).
func (c *Config) Print(w io.Writer) error {
	root := &yaml.Node{Kind: yaml.MappingNode}
	for _, row := range Settings() {
		put(root, strings.Split(row.Key, "."), row, row.get(c))
	}
	if len(c.Tokens) > 0 {
		attach(root, "api", "tokens", c.tokenNodes())
	}
	if len(c.Clients) > 0 {
		attach(root, "api", "clients", c.clientNodes())
	}
	if len(c.Webhooks.Secrets) > 0 {
		attach(root, "webhooks", "secrets", c.signingNodes())
	}
	if len(c.Brokers) > 0 {
		all := &yaml.Node{Kind: yaml.MappingNode}
		for _, b := range c.Brokers {
			all.Content = append(all.Content, scalar(b.Name), masked(b.node))
		}
		root.Content = append(root.Content, scalar("brokers"), all)
	}
	var out bytes.Buffer
	enc := yaml.NewEncoder(&out)
	enc.SetIndent(2)
	if err := enc.Encode(root); err != nil {
		return fmt.Errorf("print configuration: %w", err)
	}
	_, err := w.Write(out.Bytes())
	return err
}

// put sets one leaf, making the mappings above it.
func put(n *yaml.Node, path []string, row Setting, v string) {
	for _, name := range path[:len(path)-1] {
		n = child(n, name)
	}
	leaf := scalar(v)
	if row.List {
		leaf = &yaml.Node{Kind: yaml.SequenceNode, Style: yaml.FlowStyle}
		for item := range strings.SplitSeq(v, ",") {
			if item != "" {
				leaf.Content = append(leaf.Content, scalar(item))
			}
		}
	}
	leaf.LineComment = row.Help
	n.Content = append(n.Content, scalar(path[len(path)-1]), leaf)
}

func child(n *yaml.Node, name string) *yaml.Node {
	for i := 0; i+1 < len(n.Content); i += 2 {
		if n.Content[i].Value == name {
			return n.Content[i+1]
		}
	}
	m := &yaml.Node{Kind: yaml.MappingNode}
	n.Content = append(n.Content, scalar(name), m)
	return m
}

func attach(root *yaml.Node, section, name string, v *yaml.Node) {
	n := child(root, section)
	n.Content = append(n.Content, scalar(name), v)
}

func (c *Config) tokenNodes() *yaml.Node {
	all := &yaml.Node{Kind: yaml.SequenceNode}
	for _, t := range c.Tokens {
		m := mapping("name", t.Name, "sha256", t.SHA256)
		grant(m, t.Scopes, t.Targets)
		all.Content = append(all.Content, m)
	}
	return all
}

func (c *Config) clientNodes() *yaml.Node {
	all := &yaml.Node{Kind: yaml.SequenceNode}
	for _, cl := range c.Clients {
		m := mapping("name", cl.Name)
		grant(m, cl.Scopes, cl.Targets)
		all.Content = append(all.Content, m)
	}
	return all
}

// grant adds what an entry may do and where.
func grant(m *yaml.Node, scopes, targets []string) {
	put := func(name string, items []string) {
		n := &yaml.Node{Kind: yaml.SequenceNode, Style: yaml.FlowStyle}
		for _, s := range items {
			n.Content = append(n.Content, scalar(s))
		}
		m.Content = append(m.Content, scalar(name), n)
	}
	put("scopes", scopes)
	if len(targets) > 0 {
		put("targets", targets)
	}
}

func (c *Config) signingNodes() *yaml.Node {
	all := &yaml.Node{Kind: yaml.SequenceNode}
	for _, s := range c.Webhooks.Secrets {
		all.Content = append(all.Content, mapping("id", s.ID, "key", s.Key.String()))
	}
	return all
}

func mapping(pairs ...string) *yaml.Node {
	m := &yaml.Node{Kind: yaml.MappingNode}
	for _, s := range pairs {
		m.Content = append(m.Content, scalar(s))
	}
	return m
}

func scalar(v string) *yaml.Node {
	n := &yaml.Node{Kind: yaml.ScalarNode, Value: v}
	if v == "" {
		n.Style = yaml.DoubleQuotedStyle
	}
	return n
}

// NeedRestart names the settings in which two configurations differ and which are read at the start
// only. Tokens, clients, signing keys and the contents of the files of api.tls are read again.
func NeedRestart(old, fresh *Config) []string {
	var keys []string
	for _, row := range Settings() {
		if !row.Secret && row.get(old) != row.get(fresh) {
			keys = append(keys, row.Key)
		}
	}
	if old.S3 != fresh.S3 {
		keys = append(keys, "tier.s3")
	}
	if !sameBrokers(old.Brokers, fresh.Brokers) {
		keys = append(keys, "brokers")
	}
	return keys
}

// Table is the settings as a Markdown table, for docs/operations.md.
func Table() string {
	var b strings.Builder
	b.WriteString("| key | flag | variable | default | meaning |\n|---|---|---|---|---|\n")
	for _, row := range Settings() {
		fmt.Fprintf(&b, "| `%s` | %s | `%s` | %s | %s |\n", row.Key, code("--", row.Flag), row.Env,
			code("", row.Default), strings.ReplaceAll(row.Help, "|", "\\|"))
	}
	return b.String()
}

func code(prefix, v string) string {
	if v == "" {
		return ""
	}
	return "`" + prefix + v + "`"
}
