// SPDX-License-Identifier: Apache-2.0

package ctl

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"

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
func (a *app) endpoint() (server, token string, err error) {
	server, token = a.flags.server, a.flags.token
	if server == "" {
		server, _ = a.Env("CICADA_SERVER")
	}
	if token == "" {
		token, _ = a.Env("CICADA_TOKEN")
	}
	if server != "" {
		return server, token, nil
	}
	saved, err := a.readContexts()
	if err != nil {
		return "", "", err
	}
	name := a.flags.context
	if name == "" {
		name, _ = a.Env("CICADA_CONTEXT")
	}
	if name == "" {
		name = saved.Current
	}
	if name == "" {
		return defaultServer, token, nil
	}
	c, ok := saved.Contexts[name]
	if !ok {
		return "", "", usagef("there is no context %q; see `cicada context ls`", name)
	}
	if token == "" {
		token = c.Token
	}
	return c.Server, token, nil
}

// dial is the client of the daemon to talk to.
func (a *app) dial() (*client.Client, error) {
	server, token, err := a.endpoint()
	if err != nil {
		return nil, err
	}
	c, err := client.New(server, client.Options{Token: token})
	if err != nil {
		return nil, usagef("%v", err)
	}
	return c, nil
}

// say writes a message to stderr.
func (a *app) say(format string, args ...any) {
	fmt.Fprintf(a.Stderr, format+"\n", args...)
}
