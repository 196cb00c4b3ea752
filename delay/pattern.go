// SPDX-License-Identifier: Apache-2.0

package delay

import (
	"errors"
	"net/url"
	"slices"
	"strings"
)

// Limits of a set of patterns.
const (
	maxPatterns = 1_000
	// maxEscapes is how often a path may be escaped upon itself before it is taken for an attack.
	maxEscapes = 4
)

// TargetPattern selects targets. For queues, topics and logs it is a text in which a star stands
// for any characters: pull:orders*. For webhooks the star cannot leave its part of the URL:
// https://*.example.com/hooks/* has a host below example.com, the default port, and a path below
// /hooks/. The zero value selects nothing.
type TargetPattern struct {
	text string
	all  bool // "*"
	web  *webPattern
}

// webPattern is the pattern of an http or https target.
type webPattern struct {
	scheme  string
	anyHost bool
	suffix  string // of "*.example.com": ".example.com"
	host    string // exact, lower case
	anyPort bool
	port    string
	path    string // "" is every path
}

// ParseTargetPattern reads a pattern. The error says what is wrong, without the name of a field.
func ParseTargetPattern(text string) (TargetPattern, error) {
	p := TargetPattern{text: text}
	kind, rest, ok := strings.Cut(text, ":")
	switch {
	case text == "*":
		p.all = true
		return p, nil
	case text == "" || len(text) > MaxTargetBytes || !ValidText(text):
		return p, errors.New("want 1 byte to 4 KiB without control characters")
	case !ok || kind == "" || strings.Contains(kind, "*"):
		return p, errors.New("want a kind of target before the colon: pull:orders*, or * alone")
	case kind != "http" && kind != "https":
		return p, nil
	}
	var err error
	p.web, err = parseWebPattern(kind, rest)
	return p, err
}

func parseWebPattern(scheme, rest string) (*webPattern, error) {
	rest, ok := strings.CutPrefix(rest, "//")
	host, port, path, good := splitWeb(scheme, rest)
	w := &webPattern{scheme: scheme, host: host, port: port, path: path}
	if !ok || !good {
		return nil, errors.New("want http(s)://host, with an optional :port and /path")
	}
	if path == "/*" || !strings.ContainsAny(rest, "/?") {
		w.path = ""
	}
	w.anyPort = port == "*"
	switch below, wild := strings.CutPrefix(host, "*."); {
	case host == "*":
		w.anyHost = true
	case strings.Contains(below, "*"):
		return nil, errors.New("the star of a host stands alone or before its first dot")
	case wild:
		w.suffix = "." + below
	}
	return w, nil
}

// splitWeb takes what follows scheme:// apart. The host is in lower case, the port never empty and
// the path, which holds the query, begins with a slash. ok is false for what is no plain URL.
func splitWeb(scheme, rest string) (host, port, path string, ok bool) {
	for i := range len(rest) {
		if c := rest[i]; c <= ' ' || c >= 0x7f || c == '\\' || c == '#' {
			return "", "", "", false
		}
	}
	host, path = rest, "/"
	if i := strings.IndexAny(rest, "/?"); i >= 0 {
		if host, path = rest[:i], rest[i:]; path[0] == '?' {
			path = "/" + path
		}
	}
	port = map[string]string{"http": "80", "https": "443"}[scheme]
	if i := strings.LastIndexByte(host, ':'); i > strings.LastIndexByte(host, ']') {
		host, port = host[:i], host[i+1:]
	}
	good := host != "" && port != "" && !strings.ContainsAny(host, "@%") &&
		(strings.HasPrefix(host, "[") || !strings.Contains(host, ":"))
	return strings.ToLower(host), port, path, good
}

// String is the pattern as it was written.
func (p TargetPattern) String() string { return p.text }

// Match reports whether the pattern selects t.
func (p TargetPattern) Match(t Target) bool {
	switch {
	case p.all:
		return t != ""
	case p.web != nil:
		return p.web.match(string(t))
	default:
		return p.text != "" && matchStars(p.text, string(t))
	}
}

func (w *webPattern) match(t string) bool {
	rest, ok := strings.CutPrefix(t, w.scheme+"://")
	if !ok {
		return false
	}
	host, port, path, ok := splitWeb(w.scheme, rest)
	switch {
	case !ok || !w.anyPort && port != w.port:
		return false
	case !w.anyHost && w.suffix == "" && host != w.host:
		return false
	case w.suffix != "" && (!strings.HasSuffix(host, w.suffix) || len(host) == len(w.suffix)):
		return false
	}
	return w.path == "" || matchStars(w.path, path) && !leaves(path)
}

// leaves reports whether a path may mean another place to its receiver than it says: a dot segment,
// escaped or not, leads out of what a pattern allows.
func leaves(path string) bool {
	path, _, _ = strings.Cut(path, "?")
	for range maxEscapes {
		for segment := range strings.FieldsFuncSeq(path, func(r rune) bool {
			return r == '/' || r == '\\'
		}) {
			name, _, _ := strings.Cut(segment, ";")
			if name == "." || name == ".." {
				return true
			}
		}
		plain, err := url.PathUnescape(path)
		if err != nil {
			return true
		}
		if plain == path {
			return false
		}
		path = plain
	}
	return true
}

// matchStars reports whether text is pattern, in which each star stands for any characters.
func matchStars(pattern, text string) bool {
	first, rest, star := strings.Cut(pattern, "*")
	if !star {
		return pattern == text
	}
	text, ok := strings.CutPrefix(text, first)
	for ok {
		part, after, more := strings.Cut(rest, "*")
		if !more {
			return strings.HasSuffix(text, part)
		}
		var found bool
		if _, text, found = strings.Cut(text, part); !found {
			return false
		}
		rest = after
	}
	return false
}

// TargetSet is the targets that one of its patterns selects; nil is every target. It is read-only
// and safe for concurrent use.
type TargetSet struct{ patterns []TargetPattern }

// NewTargetSet makes a set of patterns. None of them are nil, which is every target. The error is
// a *FieldError for "targets" that names the pattern.
func NewTargetSet(texts []string) (*TargetSet, error) {
	if len(texts) == 0 {
		return nil, nil
	}
	if len(texts) > maxPatterns {
		return nil, Invalid("targets", "more than %d patterns", maxPatterns)
	}
	s := &TargetSet{patterns: make([]TargetPattern, len(texts))}
	for i, text := range texts {
		var err error
		if s.patterns[i], err = ParseTargetPattern(text); err != nil {
			return nil, Invalid("targets", "%q: %s", text, err)
		}
	}
	return s, nil
}

// Has reports whether t is in the set. A set that is not nil never holds the empty target.
func (s *TargetSet) Has(t Target) bool {
	return s == nil || t != "" &&
		slices.ContainsFunc(s.patterns, func(p TargetPattern) bool { return p.Match(t) })
}
