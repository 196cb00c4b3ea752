// SPDX-License-Identifier: Apache-2.0

package metrics

import (
	"net/url"
	"strings"
	"sync"

	"github.com/cicadamq/cicada/delay"
)

// maxLanes bounds the lanes that have a label of their own (P1).
const maxLanes = 1000

// otherLane is the label of the lanes beyond.
const otherLane = "other"

// lanes gives labels. Targets are looked up without a lock; a target seen first takes one.
type lanes struct {
	known sync.Map // delay.Target -> string

	mu      sync.Mutex
	labels  map[string]bool
	targets int
}

// maxTargets bounds the memory of the lookup: one host may have any number of paths.
const maxTargets = 10_000

func (l *lanes) label(target delay.Target) string {
	if v, ok := l.known.Load(target); ok {
		return v.(string)
	}
	label := laneOf(target)
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.labels == nil {
		l.labels = map[string]bool{}
	}
	if !l.labels[label] {
		if len(l.labels) >= maxLanes {
			return otherLane
		}
		label = strings.Clone(label)
		l.labels[label] = true
	}
	if l.targets < maxTargets {
		l.targets++
		l.known.Store(delay.Target(strings.Clone(string(target))), label)
	}
	return label
}

// laneOf is the part of a target that names who receives: paths and queries are not for labels.
func laneOf(target delay.Target) string {
	switch kind := target.Kind(); kind {
	case "pull", "log":
		return strings.ToValidUTF8(string(target), "?")
	case "http", "https":
		u, err := url.Parse(string(target))
		if err != nil || u.Host == "" {
			return otherLane
		}
		return strings.ToValidUTF8(kind+"://"+u.Host, "?")
	default:
		broker, _, _ := strings.Cut(string(target), "/")
		return strings.ToValidUTF8(broker, "?")
	}
}

// maxReason bounds a reason's label.
const maxReason = 32

// reasonLabel is the first word of a reason, if it is one.
func reasonLabel(reason string) string {
	word, _, _ := strings.Cut(reason, " ")
	word = strings.TrimRight(word, ":,;.")
	if word == "" || len(word) > maxReason {
		return otherLane
	}
	for i := range len(word) {
		c := word[i]
		if !(c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c == '_' || c == '-') {
			return otherLane
		}
	}
	return strings.ToLower(word)
}
