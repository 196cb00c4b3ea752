// SPDX-License-Identifier: Apache-2.0

// Package saved keeps the daemons that the command line remembers by name, in a file that only its
// owner can read: it holds tokens.
package saved

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

// Contexts are the daemons by name, and the one in use.
type Contexts struct {
	Current  string             `json:"current,omitempty"`
	Contexts map[string]Context `json:"contexts"`
}

// Context is how to talk to one daemon. The files are those of client.TLS.
type Context struct {
	Server string `json:"server"`
	Token  string `json:"token,omitempty"`
	CACert string `json:"cacert,omitempty"`
	Cert   string `json:"cert,omitempty"`
	Key    string `json:"key_file,omitempty"`
}

// ErrRelative says that a variable wants an absolute path.
var ErrRelative = errors.New("XDG_CONFIG_HOME is not an absolute path")

// File is the file's name, or "" when the environment does not say where it belongs.
func File(env func(string) (string, bool)) (string, error) {
	dir, _ := env("XDG_CONFIG_HOME")
	if dir == "" {
		home, _ := env("HOME")
		if home == "" {
			return "", nil
		}
		dir = filepath.Join(home, ".config")
	}
	if !filepath.IsAbs(dir) {
		return "", fmt.Errorf("%w: %s", ErrRelative, dir)
	}
	return filepath.Join(dir, "cicada", "contexts.json"), nil
}

// Read reads a file; none is no contexts.
func Read(name string) (Contexts, error) {
	saved := Contexts{Contexts: make(map[string]Context)}
	if name == "" {
		return saved, nil
	}
	body, err := os.ReadFile(name)
	if errors.Is(err, fs.ErrNotExist) {
		return saved, nil
	}
	if err != nil {
		return saved, fmt.Errorf("read contexts: %w", err)
	}
	if err := json.Unmarshal(body, &saved); err != nil {
		return saved, fmt.Errorf("contexts in %s: %w", name, err)
	}
	return saved, nil
}

// Write replaces the file as a whole: a crash leaves the old or the new one.
func Write(name string, saved Contexts) error {
	if name == "" {
		return errors.New("neither XDG_CONFIG_HOME nor HOME is set")
	}
	body, err := json.MarshalIndent(saved, "", "  ")
	if err != nil {
		return fmt.Errorf("write contexts: %w", err)
	}
	if err := os.MkdirAll(filepath.Dir(name), 0o700); err != nil {
		return fmt.Errorf("write contexts: %w", err)
	}
	if err := os.WriteFile(name+".new", append(body, '\n'), 0o600); err != nil {
		return fmt.Errorf("write contexts: %w", err)
	}
	return os.Rename(name+".new", name)
}
