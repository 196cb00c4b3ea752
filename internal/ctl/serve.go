// SPDX-License-Identifier: Apache-2.0

package ctl

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/cicadamq/cicada/scheduler/calendar"
)

const serveHelp = `Run the daemon in the foreground.

  cicada serve
  cicada serve --config cicada.yaml --listen 127.0.0.1:7171

Without a file and flags: data in ./cicada-data, bucket in ./cicada-data/bucket, API on
127.0.0.1:7170. Every flag is also a variable and a key of the file; flag > variable >
file > default. SIGTERM drains and exits with 0. Logs go to stderr.`

// daemonFlags are the settings' flags on a command.
type daemonFlags struct {
	config string
	set    *pflag.FlagSet
	known  []Flag
}

// addDaemonFlags gives cmd the daemon's flags. They are kept as text: internal/config reads them,
// so that a value is refused with the same words wherever it comes from.
func (a *app) addDaemonFlags(cmd *cobra.Command) *daemonFlags {
	d := &daemonFlags{set: cmd.Flags(), known: a.Daemon.Flags}
	config, _ := a.Env("CICADA_CONFIG")
	d.set.StringVar(&d.config, "config", config, "configuration file (CICADA_CONFIG)")
	for _, f := range d.known {
		help := f.Help
		if f.Default != "" && !f.Bool {
			help += " (default " + f.Default + ")"
		}
		switch {
		case f.List:
			d.set.StringArray(f.Name, nil, help)
		default:
			d.set.String(f.Name, "", help)
		}
		if f.Bool {
			d.set.Lookup(f.Name).NoOptDefVal = "true"
		}
	}
	return d
}

// given are the flags that were given, by name.
func (d *daemonFlags) given() map[string]string {
	m := make(map[string]string)
	for _, f := range d.known {
		if !d.set.Changed(f.Name) {
			continue
		}
		if f.List {
			items, err := d.set.GetStringArray(f.Name)
			if err != nil {
				panic("BUG: flag " + f.Name + ": " + err.Error())
			}
			m[f.Name] = strings.Join(items, ",")
			continue
		}
		m[f.Name] = d.set.Lookup(f.Name).Value.String()
	}
	return m
}

func (a *app) serve() *cobra.Command {
	cmd := &cobra.Command{
		Use: "serve", Short: "Run the daemon", Long: serveHelp, Args: args(0, 0, ""),
	}
	flags := a.addDaemonFlags(cmd)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		return a.Daemon.Serve(cmd.Context(), flags.config, flags.given())
	}
	return cmd
}

const configHelp = `Check a configuration file, print the effective one, or make a token.

  cicada config check cicada.yaml
  cicada config print --config cicada.yaml --tier-flush-interval 5s
  cicada config token

A token is printed once, with the hash that api.tokens wants as sha256.`

func (a *app) config() *cobra.Command {
	cmd := &cobra.Command{
		Use: "config", Short: "Check or print the configuration", Long: configHelp,
		Args: args(0, 0, "check, print or token"),
		RunE: func(*cobra.Command, []string) error {
			return usagef("config wants check, print or token")
		},
	}
	check := &cobra.Command{
		Use: "check FILE", Short: "Name file, line and key of every mistake",
		Args: args(1, 1, "one file"),
		RunE: func(_ *cobra.Command, given []string) error {
			if err := a.Daemon.Check(given[0]); err != nil {
				a.say("%v", err)
				return &statusError{exitError}
			}
			a.say("%s: ok", given[0])
			return nil
		},
	}
	show := &cobra.Command{
		Use: "print", Short: "Print the effective configuration, secrets masked",
		Args: args(0, 0, ""),
	}
	flags := a.addDaemonFlags(show)
	show.RunE = func(*cobra.Command, []string) error {
		return a.Daemon.Print(a.Stdout, flags.config, flags.given())
	}
	cmd.AddCommand(check, show, a.configToken())
	return cmd
}

// tokenBytes is the entropy of a token that we make.
const tokenBytes = 24

func (a *app) configToken() *cobra.Command {
	return &cobra.Command{
		Use: "token", Short: "Make a token and its hash", Args: args(0, 0, ""),
		RunE: func(*cobra.Command, []string) error {
			var secret [tokenBytes]byte
			_, _ = rand.Read(secret[:]) // never fails
			token := base64.RawURLEncoding.EncodeToString(secret[:])
			sum := sha256.Sum256([]byte(token))
			hash := hex.EncodeToString(sum[:])
			t := &table{columns: []string{"TOKEN", "SHA256"}}
			t.add(token, map[string]string{"token": token, "sha256": hash}, token, hash)
			return a.print(t, false)
		},
	}
}

func (a *app) version() *cobra.Command {
	return &cobra.Command{
		Use: "version", Short: "Print the version", Args: args(0, 0, ""),
		RunE: func(*cobra.Command, []string) error {
			t := &table{}
			zones := calendar.Version()
			t.add(a.Version, map[string]string{"version": a.Version, "tzdata": zones},
				a.Version, "tzdata "+zones)
			return a.print(t, true)
		},
	}
}
