// SPDX-License-Identifier: Apache-2.0

package rocketmq

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"
)

const (
	daemonWithin = time.Minute
	pollEvery    = 20 * time.Millisecond
)

// DaemonOptions configure a Daemon. The zero value of a field is the product's default.
type DaemonOptions struct {
	Program  string // the binary
	Dir      string // its data, configuration and log
	NameAddr string // of the cluster's name server
	User     string // and Password: who it is where access is controlled, "" is nobody
	Password string
	Guardian bool
	Grace    time.Duration
	Source   string   // a topic of requests, "" is none
	Args     []string // more arguments of serve
}

// Daemon is `cicada serve` beside a cluster, with its data in a directory of its own. It is safe
// for concurrent use.
type Daemon struct {
	opts DaemonOptions

	mu     sync.Mutex
	cmd    *exec.Cmd
	exited chan struct{}
	base   string
}

// NewDaemon writes the configuration of a daemon; Start starts it.
func NewDaemon(opts DaemonOptions) (*Daemon, error) {
	var b strings.Builder
	fmt.Fprintf(&b, "brokers:\n  rmq:\n    kind: rocketmq\n    name_servers: [%q]\n", opts.NameAddr)
	if opts.User != "" {
		fmt.Fprintf(&b, "    access_key: %q\n    secret_key: %q\n", opts.User, opts.Password)
	}
	if opts.Guardian {
		fmt.Fprintf(&b, "    guardian: {enabled: true")
		if opts.Grace > 0 {
			fmt.Fprintf(&b, ", grace: %s", opts.Grace)
		}
		b.WriteString("}\n")
	}
	if opts.Source != "" {
		fmt.Fprintf(&b, "    sources: [{topic: %s, group: cicada}]\n", opts.Source)
	}
	if err := os.MkdirAll(opts.Dir, 0o755); err != nil {
		return nil, err
	}
	d := &Daemon{opts: opts}
	return d, os.WriteFile(d.Config(), []byte(b.String()), 0o644)
}

// Config is the path of its configuration.
func (d *Daemon) Config() string { return d.file("cicada.yaml") }

func (d *Daemon) file(name string) string { return filepath.Join(d.opts.Dir, name) }

// Start starts it, if it does not run, and returns when it is ready.
func (d *Daemon) Start() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.cmd != nil {
		return nil
	}
	log, err := os.OpenFile(d.file("log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	defer log.Close()
	from, err := log.Seek(0, io.SeekEnd)
	if err != nil {
		return err
	}
	cmd := exec.Command(d.opts.Program, append([]string{"serve", "--config",
		d.Config(), "--data-dir", d.file("data"), "--listen", "127.0.0.1:0",
		"--log-format", "json"}, d.opts.Args...)...)
	cmd.Stderr, cmd.SysProcAttr = log, childAttr()
	// Nothing that configures the program on this machine may reach it.
	cmd.Env = slices.DeleteFunc(os.Environ(), func(v string) bool {
		return strings.HasPrefix(v, "CICADA_") || strings.HasPrefix(v, "GOMEMLIMIT=")
	})
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("start cicada: %w", err)
	}
	exited := make(chan struct{})
	go func() {
		_ = cmd.Wait()
		close(exited)
	}()
	d.cmd, d.exited = cmd, exited
	for deadline := time.Now().Add(daemonWithin); time.Now().Before(deadline); time.Sleep(pollEvery) {
		if addr := d.listens(from); addr != "" {
			d.base = "http://" + addr
			return nil
		}
		select {
		case <-exited:
			d.cmd = nil
			return fmt.Errorf("cicada ended during its start: %s", d.Log())
		default:
		}
	}
	return fmt.Errorf("cicada was not ready in time: %s", d.Log())
}

// listens is the address in the log line `ready` behind from.
func (d *Daemon) listens(from int64) string {
	text, err := os.ReadFile(d.file("log"))
	if err != nil {
		return ""
	}
	for line := range bytes.Lines(text[min(from, int64(len(text))):]) {
		var entry struct {
			Msg    string `json:"msg"`
			Listen string `json:"listen"`
		}
		if json.Unmarshal(line, &entry) == nil && entry.Msg == "ready" {
			return entry.Listen
		}
	}
	return ""
}

// Kill ends it as a crash does and returns when it is gone.
func (d *Daemon) Kill() { d.end(func(cmd *exec.Cmd) error { return cmd.Process.Kill() }) }

// Stop drains it and returns when it is gone.
func (d *Daemon) Stop() {
	d.end(func(cmd *exec.Cmd) error { return cmd.Process.Signal(os.Interrupt) })
}

func (d *Daemon) end(how func(cmd *exec.Cmd) error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.cmd == nil {
		return
	}
	_ = how(d.cmd)
	<-d.exited
	d.cmd = nil
}

// Log is the end of what it logged.
func (d *Daemon) Log() string {
	const tail = 8 << 10
	text, err := os.ReadFile(d.file("log"))
	if err != nil {
		return err.Error()
	}
	return string(text[max(0, len(text)-tail):])
}

// Books are the counts of its messages.
type Books struct {
	Accepted   int64 `json:"accepted"`
	Pending    int64 `json:"pending"`
	Delivered  int64 `json:"delivered"`
	Suppressed int64 `json:"suppressed"`
	Cancelled  int64 `json:"cancelled"`
	Dead       int64 `json:"dead"`
}

// Books reads them from its API.
func (d *Daemon) Books(ctx context.Context) (Books, error) {
	var status struct {
		Books Books `json:"books"`
	}
	text, err := d.get(ctx, "/v1/status")
	if err == nil {
		err = json.Unmarshal(text, &status)
	}
	return status.Books, err
}

// Metric is the sum of the samples of a metric whose labels, if any, contain with.
func (d *Daemon) Metric(ctx context.Context, name, with string) (sum float64, err error) {
	text, err := d.get(ctx, "/metrics")
	if err != nil {
		return 0, err
	}
	found := false
	for line := range strings.Lines(string(text)) {
		rest, ok := strings.CutPrefix(line, name)
		if !ok || rest[0] != '{' && rest[0] != ' ' || !strings.Contains(rest, with) {
			continue
		}
		var v float64
		if _, err := fmt.Sscan(rest[strings.LastIndexByte(rest, ' ')+1:], &v); err != nil {
			return 0, fmt.Errorf("metric %s: %w", name, err)
		}
		sum, found = sum+v, true
	}
	if !found {
		return 0, fmt.Errorf("metric %s: not there", name)
	}
	return sum, nil
}

func (d *Daemon) get(ctx context.Context, path string) ([]byte, error) {
	d.mu.Lock()
	base := d.base
	d.mu.Unlock()
	if base == "" {
		return nil, errors.New("cicada was never started")
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, base+path, nil)
	if err != nil {
		return nil, err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err == nil && resp.StatusCode != http.StatusOK {
		err = fmt.Errorf("GET %s: %s: %s", path, resp.Status, text)
	}
	return text, err
}
