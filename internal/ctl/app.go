// SPDX-License-Identifier: Apache-2.0

package ctl

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"

	"github.com/cicadamq/cicada/broker"
	"github.com/cicadamq/cicada/internal/ctl/client"
	"github.com/cicadamq/cicada/tiered/objstore"
)

// Parts are what the commands need of the program around them.
type Parts struct {
	Version string
	Program string // path of this program, for bench and demo
	Stdin   io.Reader
	Stdout  io.Writer
	Stderr  io.Writer
	// OutTerminal and ErrTerminal tell whether a person reads the streams.
	OutTerminal, ErrTerminal bool
	Env                      func(name string) (string, bool)
	Now                      func() time.Time
	Daemon                   Daemon
	// Bucket opens the bucket of a URL, for offline commands.
	Bucket func(ctx context.Context, url string) (objstore.Bucket, error)
}

// Daemon is the other half of the program: what serve and config run.
type Daemon struct {
	Flags []Flag
	// Serve runs a daemon until ctx is done. flags holds the flags that were given.
	Serve func(ctx context.Context, file string, flags map[string]string) error
	// Check reads a configuration file and returns its mistakes.
	Check func(file string) error
	// Print writes the effective configuration.
	Print func(w io.Writer, file string, flags map[string]string) error
	// Places are where the effective configuration keeps its data: a directory and a bucket URL.
	Places func(file string, flags map[string]string) (storeDir, bucket string, err error)
	// Brokers looks at the brokers of a configuration file, from here.
	Brokers func(ctx context.Context, file string) ([]broker.Finding, error)
}

// Flag describes a flag of the daemon.
type Flag struct {
	Name, Default, Help string
	Bool                bool // the flag alone means true
	List                bool // repeatable
}

// app is one run of the command line.
type app struct {
	Parts
	flags struct {
		server, token, context string
		tls                    client.TLS
		output                 string
		json                   bool
	}
}

// Run executes args (without the program's name) and returns the exit status.
func Run(ctx context.Context, parts Parts, args []string) int {
	a := &app{Parts: parts}
	root := a.root() //nolint:contextcheck // ExecuteContext gives every command its ctx
	root.SetArgs(args)
	root.SetIn(parts.Stdin)
	root.SetOut(parts.Stdout)
	root.SetErr(parts.Stderr)
	err := root.ExecuteContext(ctx)
	status := exitStatus(err)
	var printed *statusError
	switch {
	case err == nil || errors.As(err, &printed):
	case status == exitUsage:
		fmt.Fprintf(parts.Stderr, "cicada: %v\nRun `cicada help` for the commands.\n", err)
	case status == exitInterrupted:
		fmt.Fprintln(parts.Stderr, "cicada: interrupted")
	default:
		fmt.Fprintf(parts.Stderr, "cicada: %v\n", err)
	}
	return status
}

const rootHelp = `Cicada keeps messages for later and delivers them when they are due.

Commands talk to the daemon at --server (CICADA_SERVER, or the context in use).
Data goes to stdout, messages to stderr. Exit status: 0 ok, 1 error, 2 usage,
3 not found, 4 not allowed, 5 conflict (too late, already exists), 130 interrupted.`

func (a *app) root() *cobra.Command {
	root := &cobra.Command{
		Use: "cicada", Short: "Delay messages, cheaply and for as long as you like",
		Long: rootHelp, SilenceUsage: true, SilenceErrors: true,
	}
	root.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return usagef("%v", err) })
	f := root.PersistentFlags()
	f.StringVar(&a.flags.server, "server", "", "daemon's address (CICADA_SERVER)")
	f.StringVar(&a.flags.token, "token", "", "bearer token (CICADA_TOKEN)")
	f.StringVar(&a.flags.tls.CACert, "cacert", "", "authorities of the daemon (CICADA_CACERT)")
	f.StringVar(&a.flags.tls.Cert, "cert", "", "certificate to show, a PEM file (CICADA_CERT)")
	f.StringVar(&a.flags.tls.Key, "key-file", "", "its private key (CICADA_KEY_FILE)")
	f.StringVar(&a.flags.context, "context", "", "saved context to use (CICADA_CONTEXT)")
	f.StringVarP(&a.flags.output, "output", "o", "table", "table, json, jsonl or id")
	f.BoolVar(&a.flags.json, "json", false, "same as -o json")
	root.AddGroup(&cobra.Group{ID: "run", Title: "Run:"},
		&cobra.Group{ID: "messages", Title: "Messages:"},
		&cobra.Group{ID: "queues", Title: "Queues and targets:"},
		&cobra.Group{ID: "operate", Title: "Operate:"})
	a.group(root, "run", a.serve(), a.demo(), a.bench(), a.config(), a.version())
	a.group(root, "messages", a.send(), a.get(), a.ls(), a.next(), a.count(), a.histogram(),
		a.cancel(), a.reschedule(), a.fire(), a.purge())
	a.group(root, "queues", a.pull(), a.ack(), a.nack(), a.extend(), a.dlq(), a.targets(),
		a.pause(), a.resume())
	a.group(root, "operate", a.status(), a.tier(), a.store(), a.clock(), a.schedule(), a.doctor(),
		a.contexts())
	return root
}

func (a *app) group(root *cobra.Command, id string, commands ...*cobra.Command) {
	for _, c := range commands {
		c.GroupID = id
		root.AddCommand(c)
	}
}

// args makes a wrong number of arguments a usage error.
func args(least, most int, names string) cobra.PositionalArgs {
	return func(cmd *cobra.Command, given []string) error {
		if len(given) < least || most >= 0 && len(given) > most {
			if names == "" {
				return usagef("%s takes no arguments", cmd.CommandPath())
			}
			return usagef("%s wants %s", cmd.CommandPath(), names)
		}
		return nil
	}
}

// defaultServer is where `cicada serve` listens unless told otherwise.
const defaultServer = "127.0.0.1:7170"

// endpoint is the daemon to talk to: flag, variable, context, default.
func (a *app) endpoint() (server string, opts client.Options, err error) {
	server, opts = a.flags.server, client.Options{Token: a.flags.token, TLS: a.flags.tls}
	for variable, into := range map[string]*string{
		"CICADA_SERVER": &server, "CICADA_TOKEN": &opts.Token, "CICADA_CACERT": &opts.TLS.CACert,
		"CICADA_CERT": &opts.TLS.Cert, "CICADA_KEY_FILE": &opts.TLS.Key,
	} {
		if *into == "" {
			*into, _ = a.Env(variable)
		}
	}
	if server != "" {
		return server, opts, nil
	}
	saved, err := a.readContexts()
	if err != nil {
		return "", opts, err
	}
	name := a.flags.context
	if name == "" {
		name, _ = a.Env("CICADA_CONTEXT")
	}
	if name == "" {
		name = saved.Current
	}
	if name == "" {
		return defaultServer, opts, nil
	}
	c, ok := saved.Contexts[name]
	if !ok {
		return "", opts, usagef("there is no context %q; see `cicada context ls`", name)
	}
	if opts.Token == "" {
		opts.Token = c.Token
	}
	if opts.TLS == (client.TLS{}) {
		opts.TLS = client.TLS{CACert: c.CACert, Cert: c.Cert, Key: c.Key}
	}
	return c.Server, opts, nil
}

// dial is the client of the daemon to talk to.
func (a *app) dial() (*client.Client, error) {
	server, opts, err := a.endpoint()
	if err != nil {
		return nil, err
	}
	c, err := client.New(server, opts)
	if err != nil {
		return nil, usagef("%v", err)
	}
	return c, nil
}

// say writes a message to stderr.
func (a *app) say(format string, args ...any) {
	fmt.Fprintf(a.Stderr, format+"\n", args...)
}
