// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/signal"
	"runtime/debug"
	"strings"
	"syscall"
	"time"

	"go.uber.org/zap"

	"github.com/cicadamq/cicada/broker"
	"github.com/cicadamq/cicada/internal/config"
	"github.com/cicadamq/cicada/internal/ctl"
	"github.com/cicadamq/cicada/internal/daemon"
	"github.com/cicadamq/cicada/internal/daemon/brokers"
	"github.com/cicadamq/cicada/tiered/objstore"
)

// version is set by the linker: -X main.version=v1.2.3.
var version = ""

func main() { os.Exit(run(os.Args[1:])) }

func run(args []string) int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	// After the first signal the default action is back: a second one ends the process (Q2).
	defer context.AfterFunc(ctx, stop)()
	program, err := os.Executable()
	if err != nil {
		fmt.Fprintf(os.Stderr, "cicada: %v\n", err)
		return 1
	}
	in := new(places)
	parts := ctl.Parts{
		Version: versionOf(), Program: program,
		Stdin: os.Stdin, Stdout: os.Stdout, Stderr: os.Stderr,
		OutTerminal: ctl.IsTerminal(os.Stdout), ErrTerminal: ctl.IsTerminal(os.Stderr),
		Env: os.LookupEnv, Now: time.Now, Bucket: in.openBucket,
		Daemon: ctl.Daemon{
			Flags: flags(), Serve: serve, Check: check, Print: printConfig, Places: in.find,
			Brokers: examine,
		},
	}
	return ctl.Run(ctx, parts, args)
}

// versionOf is the linker's word, or what the Go tool recorded.
func versionOf() string {
	if version != "" {
		return version
	}
	info, ok := debug.ReadBuildInfo()
	if !ok || info.Main.Version == "" || info.Main.Version == "(devel)" {
		return "dev"
	}
	return info.Main.Version
}

// revision is the commit that the Go tool recorded, or "".
func revision() string {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return ""
	}
	for _, s := range info.Settings {
		if s.Key == "vcs.revision" {
			return s.Value
		}
	}
	return ""
}

func flags() []ctl.Flag {
	var all []ctl.Flag
	for _, s := range config.Settings() {
		if s.Flag != "" {
			all = append(all, ctl.Flag{
				Name: s.Flag, Default: s.Default, Help: s.Help, Bool: s.Bool, List: s.List,
			})
		}
	}
	return all
}

func load(file string, given map[string]string) (*config.Config, error) {
	return config.Load(config.Sources{
		File: file, ReadFile: os.ReadFile, Env: os.LookupEnv, Flags: given,
	})
}

// examine looks at the brokers of a file.
func examine(ctx context.Context, file string) ([]broker.Finding, error) {
	cfg, err := load(file, nil)
	if err != nil {
		return nil, err
	}
	return brokers.Examine(ctx, cfg, brokers.Options{Version: versionOf(), Now: time.Now}), nil
}

func serve(ctx context.Context, file string, given map[string]string) error {
	cfg, err := load(file, given)
	if err != nil {
		return err
	}
	daemon.Tune(cfg, os.LookupEnv)
	log := daemon.NewLogger(cfg.Log, os.Stderr, ctl.IsTerminal(os.Stderr))
	if unknown := unknownVariables(); len(unknown) > 0 {
		log.Warn("variables that are no settings are ignored", zap.Strings("names", unknown))
	}
	hangup := make(chan os.Signal, 1)
	signal.Notify(hangup, syscall.SIGHUP)
	defer signal.Stop(hangup)
	d, err := daemon.Open(ctx, cfg, daemon.Options{
		Version: versionOf(), Revision: revision(), Logger: log, Now: time.Now,
		Load: func() (*config.Config, error) { return load(file, given) }, Hangup: hangup,
	})
	if err != nil {
		return err
	}
	return d.Run(ctx)
}

// clientVariables are the variables with our prefix that are not settings of the daemon.
const clientVariables = " CICADA_CONFIG CICADA_SERVER CICADA_TOKEN CICADA_CONTEXT " +
	"CICADA_CACERT CICADA_CERT CICADA_KEY_FILE "

// unknownVariables are variables that look like settings. They are not refused, because systems
// such as Kubernetes invent variables from the names of services.
func unknownVariables() []string {
	known := make(map[string]bool)
	for _, s := range config.Settings() {
		known[s.Env] = true
	}
	var unknown []string
	for _, pair := range os.Environ() {
		name, _, _ := strings.Cut(pair, "=")
		if strings.HasPrefix(name, "CICADA_") && !known[name] &&
			!strings.Contains(clientVariables, " "+name+" ") {
			unknown = append(unknown, name)
		}
	}
	return unknown
}

// check reads file alone, with the variables that its secrets name, and returns its mistakes.
func check(file string) error {
	settings := make(map[string]bool)
	for _, s := range config.Settings() {
		settings[s.Env] = true
	}
	_, err := config.Load(config.Sources{
		File: file, ReadFile: os.ReadFile,
		Env: func(name string) (string, bool) {
			if settings[name] {
				return "", false
			}
			return os.LookupEnv(name)
		},
	})
	return err
}

func printConfig(w io.Writer, file string, given map[string]string) error {
	cfg, err := load(file, given)
	if err != nil {
		return err
	}
	return cfg.Print(w)
}

// places are where one command looks: the credentials of the configuration that names the bucket
// do not pass through the command.
type places struct{ keys config.Credentials }

func (p *places) find(
	file string, given map[string]string,
) (storeDir, bucket string, err error) {
	cfg, err := load(file, given)
	if err != nil {
		return "", "", err
	}
	p.keys = cfg.S3
	return daemon.StoreDir(cfg.DataDir), cfg.Bucket.String(), nil
}

func (p *places) openBucket(ctx context.Context, url string) (objstore.Bucket, error) {
	b, err := config.ParseBucket(url)
	if err != nil {
		return nil, fmt.Errorf("bucket %s: %w", url, err)
	}
	return daemon.OpenBucket(ctx, b, p.keys, false)
}
