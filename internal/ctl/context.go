// SPDX-License-Identifier: Apache-2.0

package ctl

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"github.com/cicadamq/cicada/internal/ctl/client"
)

const contextHelp = `Remember daemons by name.

  cicada context add prod --server https://cicada.example.com:7170 --token ...
  cicada context use prod
  cicada context ls
  cicada context rm prod

Kept in $XDG_CONFIG_HOME/cicada/contexts.json, readable by you only.`

// savedContexts is the file of contexts.
type savedContexts struct {
	Current  string                  `json:"current,omitempty"`
	Contexts map[string]savedContext `json:"contexts"`
}

type savedContext struct {
	Server string `json:"server"`
	Token  string `json:"token,omitempty"`
	CACert string `json:"cacert,omitempty"`
	Cert   string `json:"cert,omitempty"`
	Key    string `json:"key_file,omitempty"`
}

func (a *app) contextsFile() (string, error) {
	dir, _ := a.Env("XDG_CONFIG_HOME")
	if dir == "" {
		home, _ := a.Env("HOME")
		if home == "" {
			return "", nil
		}
		dir = filepath.Join(home, ".config")
	}
	if !filepath.IsAbs(dir) {
		return "", usagef("XDG_CONFIG_HOME=%s is not an absolute path", dir)
	}
	return filepath.Join(dir, "cicada", "contexts.json"), nil
}

func (a *app) readContexts() (savedContexts, error) {
	saved := savedContexts{Contexts: make(map[string]savedContext)}
	name, err := a.contextsFile()
	if err != nil || name == "" {
		return saved, err
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

// writeContexts replaces the file as a whole: a crash leaves the old or the new one.
func (a *app) writeContexts(saved savedContexts) error {
	name, err := a.contextsFile()
	if err != nil {
		return err
	}
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

func (a *app) contexts() *cobra.Command {
	cmd := &cobra.Command{
		Use: "context", Short: "Remember daemons by name", Long: contextHelp,
		Args: args(0, 0, "add, ls, use or rm"),
		RunE: func(*cobra.Command, []string) error { return usagef("context wants add, ls, use or rm") },
	}
	cmd.AddCommand(
		a.contextChange("add", "Remember the daemon of --server and --token", a.contextAdd),
		a.contextChange("use", "Talk to this daemon from now on",
			func(s *savedContexts, name string) error {
				s.Current = name
				return known(s, name)
			}),
		a.contextChange("rm", "Forget a daemon", func(s *savedContexts, name string) error {
			err := known(s, name)
			delete(s.Contexts, name)
			if s.Current == name {
				s.Current = ""
			}
			return err
		}),
		a.contextList())
	return cmd
}

func known(s *savedContexts, name string) error {
	if _, ok := s.Contexts[name]; !ok {
		return usagef("there is no context %q", name)
	}
	return nil
}

func (a *app) contextAdd(s *savedContexts, name string) error {
	if a.flags.server == "" {
		return usagef("context add wants --server")
	}
	if _, err := client.New(a.flags.server, client.Options{TLS: a.flags.tls}); err != nil {
		return usagef("%v", err)
	}
	s.Contexts[name] = savedContext{Server: a.flags.server, Token: a.flags.token,
		CACert: a.flags.tls.CACert, Cert: a.flags.tls.Cert, Key: a.flags.tls.Key}
	if s.Current == "" {
		s.Current = name
	}
	return nil
}

func (a *app) contextChange(verb, short string,
	change func(*savedContexts, string) error,
) *cobra.Command {
	return &cobra.Command{
		Use: verb + " NAME", Short: short, Args: args(1, 1, "one name"),
		RunE: func(_ *cobra.Command, given []string) error {
			saved, err := a.readContexts()
			if err != nil {
				return err
			}
			if err := change(&saved, given[0]); err != nil {
				return err
			}
			return a.writeContexts(saved)
		},
	}
}

func (a *app) contextList() *cobra.Command {
	return &cobra.Command{
		Use: "ls", Short: "List the daemons remembered", Args: args(0, 0, ""),
		RunE: func(*cobra.Command, []string) error {
			saved, err := a.readContexts()
			if err != nil {
				return err
			}
			t := &table{columns: []string{"NAME", "SERVER", "IN USE"}}
			for _, name := range sortedKeys(saved.Contexts) {
				mark := ""
				if name == saved.Current {
					mark = "yes"
				}
				server := saved.Contexts[name].Server
				t.add(name, map[string]any{"name": name, "server": server, "current": mark != ""},
					name, server, mark)
			}
			return a.print(t, false)
		},
	}
}
