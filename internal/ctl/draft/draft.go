// SPDX-License-Identifier: Apache-2.0

// Package draft makes the parts of a message from what a command line gives.
//
// Its functions keep nothing, and read no more of a body than a message may have.
package draft

import (
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"unicode/utf8"

	"github.com/cicadamq/cicada/delay"
)

// Field is a field of POST /v1/messages and its flag.
type Field struct{ Flag, Field, Help string }

// TextFields are the fields of POST /v1/messages that a flag of the same name fills as text.
var TextFields = [...]Field{
	{"target", "target", "pull:<queue>, http(s)://…, log:"},
	{"delay", "delay", "from now: 10s, 1h30m, 2d, 1w"},
	{"at", "deliver_at", "RFC 3339 with offset, or epoch milliseconds"},
	{"id", "id", "your id; repeating it is safe"},
	{"key", "key", "routing key"},
	{"ttl", "ttl", "expire when not delivered by due + ttl"},
	{"not-after", "not_after", "expire at this instant"},
	{"spread", "spread", "deliver at a stable random point in [due, due + spread]"},
	{"durability", "durability", "local or tier"},
	{"max-wait", "max_wait", "with --replace: the due may not move beyond first due + this"},
	{"backoff", "backoff", "first pause between attempts"},
	{"mode", "mode", "at_least_once, at_most_once or exactly_once"},
	{"schedule", "schedule", "again and again: five or six cron fields, @daily, @every 5m"},
	{"tz", "time_zone", "with --schedule: IANA zone, such as Europe/Berlin (default UTC)"},
	{"misfire", "misfire", "with --schedule: missed firings fire_once (default), fire_all or skip"},
	{"until", "until", "with --schedule: no firing after this instant"},
	{"jitter", "jitter", "with --schedule: every firing is late by the same part of it"},
}

// NumberFields are likewise those that are numbers.
var NumberFields = [...]Field{
	{"max-attempts", "max_attempts", "give up after this many attempts"},
	{"misfire-limit", "misfire_limit", "with --misfire fire_all: at most so many, 1 to 1000"},
	{"count", "count", "with --schedule: end after so many firings"},
}

// Headers reads NAME=VALUE, each name once.
func Headers(given []string) (map[string]string, error) {
	m := make(map[string]string, len(given))
	for _, h := range given {
		name, value, ok := strings.Cut(h, "=")
		if _, twice := m[name]; !ok || name == "" || twice {
			return nil, fmt.Errorf("--header %q: want NAME=VALUE, each name once", h)
		}
		m[name] = value
	}
	return m, nil
}

// Body sets the body of message m to arg, to what stdin has (-), or to a file (@NAME).
func Body(m map[string]any, stdin io.Reader, arg string) error {
	body, err := read(stdin, arg)
	if err != nil {
		return err
	}
	if utf8.Valid(body) {
		m["body"] = string(body)
	} else {
		m["body_base64"] = base64.StdEncoding.EncodeToString(body)
	}
	return nil
}

func read(from io.Reader, arg string) ([]byte, error) {
	switch {
	case arg == "-":
	case strings.HasPrefix(arg, "@"):
		file, err := os.Open(arg[1:])
		if err != nil {
			return nil, fmt.Errorf("read body: %w", err)
		}
		defer func() { _ = file.Close() }()
		from = file
	default:
		return []byte(arg), nil
	}
	body, err := io.ReadAll(io.LimitReader(from, delay.MaxBodyBytes+1))
	if err != nil {
		return nil, fmt.Errorf("read body: %w", err)
	}
	if len(body) > delay.MaxBodyBytes {
		return nil, errors.New("the body is larger than 4 MiB")
	}
	return body, nil
}
