// SPDX-License-Identifier: Apache-2.0

package ctl

import (
	"github.com/spf13/cobra"

	"github.com/cicadamq/cicada/internal/ctl/client"
	"github.com/cicadamq/cicada/internal/ctl/saved"
)

const contextHelp = `Remember daemons by name.

  cicada context add prod --server https://cicada.example.com:7170 --token ...
  cicada context use prod
  cicada context ls
  cicada context rm prod

Kept in $XDG_CONFIG_HOME/cicada/contexts.json, readable by you only.`

func (a *app) readContexts() (saved.Contexts, error) {
	name, err := saved.File(a.Env)
	if err != nil {
		return saved.Contexts{}, usagef("%v", err)
	}
	return saved.Read(name)
}

func (a *app) writeContexts(all saved.Contexts) error {
	name, err := saved.File(a.Env)
	if err != nil {
		return usagef("%v", err)
	}
	return saved.Write(name, all)
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
			func(s *saved.Contexts, name string) error {
				s.Current = name
				return known(s, name)
			}),
		a.contextChange("rm", "Forget a daemon", func(s *saved.Contexts, name string) error {
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

func known(s *saved.Contexts, name string) error {
	if _, ok := s.Contexts[name]; !ok {
		return usagef("there is no context %q", name)
	}
	return nil
}

func (a *app) contextAdd(s *saved.Contexts, name string) error {
	if a.flags.server == "" {
		return usagef("context add wants --server")
	}
	if _, err := client.New(a.flags.server, client.Options{TLS: a.flags.tls}); err != nil {
		return usagef("%v", err)
	}
	s.Contexts[name] = saved.Context{Server: a.flags.server, Token: a.flags.token,
		CACert: a.flags.tls.CACert, Cert: a.flags.tls.Cert, Key: a.flags.tls.Key}
	if s.Current == "" {
		s.Current = name
	}
	return nil
}

func (a *app) contextChange(verb, short string,
	change func(*saved.Contexts, string) error,
) *cobra.Command {
	return &cobra.Command{
		Use: verb + " NAME", Short: short, Args: args(1, 1, "one name"),
		RunE: func(_ *cobra.Command, given []string) error {
			all, err := a.readContexts()
			if err != nil {
				return err
			}
			if err := change(&all, given[0]); err != nil {
				return err
			}
			return a.writeContexts(all)
		},
	}
}

func (a *app) contextList() *cobra.Command {
	return &cobra.Command{
		Use: "ls", Short: "List the daemons remembered", Args: args(0, 0, ""),
		RunE: func(*cobra.Command, []string) error {
			all, err := a.readContexts()
			if err != nil {
				return err
			}
			t := &table{columns: []string{"NAME", "SERVER", "IN USE"}}
			for _, name := range sortedKeys(all.Contexts) {
				mark := ""
				if name == all.Current {
					mark = "yes"
				}
				server := all.Contexts[name].Server
				t.add(name, map[string]any{"name": name, "server": server, "current": mark != ""},
					name, server, mark)
			}
			return a.print(t, false)
		},
	}
}
