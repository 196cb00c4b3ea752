// SPDX-License-Identifier: Apache-2.0

package config

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"strings"

	"go.yaml.in/yaml/v3"
)

// file walks the YAML tree node by node: a struct decoder would stop at the first mistake or lose
// its line (G2).
func (l *loader) file(body []byte) {
	dec := yaml.NewDecoder(bytes.NewReader(body))
	var doc yaml.Node
	err := dec.Decode(&doc)
	if errors.Is(err, io.EOF) {
		return // an empty file is a file without settings
	}
	if err != nil {
		l.wrong(l.src.File, "", strings.TrimPrefix(err.Error(), "yaml: "))
		return
	}
	var second yaml.Node
	if err := dec.Decode(&second); !errors.Is(err, io.EOF) {
		l.wrong(l.src.File, "", "holds more than one document")
		return
	}
	if len(doc.Content) == 1 {
		l.tree("", doc.Content[0])
	}
}

// at is the place of a node.
func (l *loader) at(n *yaml.Node) string { return fmt.Sprintf("%s:%d", l.src.File, n.Line) }

// pairs calls fn for each key and value of a mapping, reporting everything that is not one.
func (l *loader) pairs(key string, n *yaml.Node, fn func(path, name string, k, v *yaml.Node)) {
	if n.Kind == yaml.AliasNode {
		n = n.Alias
	}
	if n.Kind == yaml.ScalarNode && n.Tag == "!!null" {
		return // "api:" with nothing below
	}
	if n.Kind != yaml.MappingNode {
		l.wrong(l.at(n), key, "want keys and values below it")
		return
	}
	seen := make(map[string]int)
	for i := 0; i+1 < len(n.Content); i += 2 {
		k, v := n.Content[i], n.Content[i+1]
		path := k.Value
		if key != "" {
			path = key + "." + k.Value
		}
		if line, twice := seen[k.Value]; twice {
			l.wrongf(l.at(k), path, "is given twice; first on line %d", line)
			continue
		}
		seen[k.Value] = k.Line
		fn(path, k.Value, k, v)
	}
}

func (l *loader) tree(key string, n *yaml.Node) {
	l.pairs(key, n, func(path, _ string, k, v *yaml.Node) {
		row, leaf := l.rows[path]
		switch {
		case leaf:
			l.leaf(row, k, v)
		case path == "brokers":
			l.brokers(path, v)
		case path == "api.tokens":
			l.tokens(path, v)
		case path == "api.clients":
			l.clients(path, v)
		case path == "webhooks.secrets":
			l.signingKeys(path, v)
		case l.isSection(path):
			l.tree(path, v)
		default:
			l.wrong(l.at(k), path, l.unknown(path))
		}
	})
}

func (l *loader) isSection(path string) bool {
	for key := range l.rows {
		if strings.HasPrefix(key, path+".") {
			return true
		}
	}
	return false
}

// slips is how many edits away a key may be to be suggested.
const slips = 3

// unknown words the mistake of an unknown key, with the nearest known one.
func (l *loader) unknown(path string) string {
	best, bestAt := "", slips+1
	for key := range l.rows {
		if len(path) > len(key)+slips {
			continue // a long key would cost its length times each of ours
		}
		d := distance(path, key)
		if d < bestAt || d == bestAt && best != "" && key < best {
			best, bestAt = key, d
		}
	}
	if best == "" {
		return "unknown key"
	}
	return "unknown key; did you mean " + best + "?"
}

func (l *loader) leaf(row *Setting, k, v *yaml.Node) {
	if v.Kind == yaml.AliasNode {
		v = v.Alias
	}
	if row.List && v.Kind == yaml.SequenceNode {
		items, ok := l.scalars(row.Key, v)
		if ok {
			l.set(row, l.at(k), strings.Join(items, ","))
		}
		return
	}
	if v.Kind != yaml.ScalarNode {
		l.wrong(l.at(k), row.Key, "want one value")
		return
	}
	value := v.Value
	if v.Tag == "!!null" {
		value = ""
	}
	l.set(row, l.at(k), value)
}

func (l *loader) scalars(key string, n *yaml.Node) ([]string, bool) {
	if n.Kind != yaml.SequenceNode {
		l.wrong(l.at(n), key, "want a list")
		return nil, false
	}
	var items []string
	for _, item := range n.Content {
		if item.Kind != yaml.ScalarNode || strings.Contains(item.Value, ",") {
			l.wrong(l.at(item), key, "want a list of plain values")
			return nil, false
		}
		items = append(items, item.Value)
	}
	return items, true
}

// each calls fn for each item of a list, with a path such as brokers.main.sources[0].
func (l *loader) each(key string, n *yaml.Node, fn func(path string, item *yaml.Node)) {
	if n.Kind != yaml.SequenceNode {
		l.wrong(l.at(n), key, "want a list")
		return
	}
	for i, item := range n.Content {
		fn(fmt.Sprintf("%s[%d]", key, i), item)
	}
}

// distance counts the single-character edits between a and b.
func distance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			cost := 1
			if a[i] == b[j] {
				cost = 0
			}
			diagonal, row[j+1] = row[j+1], min(diagonal+cost, row[j]+1, row[j+1]+1)
		}
	}
	return row[len(b)]
}
