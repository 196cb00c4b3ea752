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
