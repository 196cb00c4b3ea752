// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

const (
	readyWithin = 60 * time.Second
	lookEvery   = 10 * time.Millisecond
)

// The names of the two brokers, which are one cluster: targets name them.
const (
	idempotent = "main"
	exactly    = "once"
)

// daemon is a running `cicada serve`.
type daemon struct {
	cmd    *exec.Cmd
	exited chan struct{}
	base   string
	log    string
}

// serve starts the program in a directory of its own; source is a topic of requests, or "".
func (l *lab) serve(ctx context.Context, source string) (*daemon, error) {
	dir, err := os.MkdirTemp(l.dir, "daemon-")
	if err != nil {
		return nil, err
	}
	text := fmt.Sprintf("brokers:\n  %s:\n    kind: kafka\n    seeds: [%q]\n", idempotent, l.seed)
	if source != "" {
		text += fmt.Sprintf("    sources: [{topic: %s, group: %s}]\n", source, filepath.Base(dir))
	}
	text += fmt.Sprintf("  %s:\n    kind: kafka\n    seeds: [%q]\n", exactly, l.seed)
	text += fmt.Sprintf("    sink: {mode: exactly_once, ledger_topic: %s.ledger}\n", filepath.Base(dir))
	file := filepath.Join(dir, "cicada.yaml")
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		return nil, err
	}
	d := &daemon{exited: make(chan struct{}), log: filepath.Join(dir, "log")}
	log, err := os.Create(d.log)
	if err != nil {
		return nil, err
	}
	defer log.Close()
	d.cmd = exec.Command(l.program, "serve", "--config", file, "--bucket", "none", "--listen",
		"127.0.0.1:0", "--data-dir", filepath.Join(dir, "data"), "--log-format", "json")
	d.cmd.Stderr = log
	d.cmd.Env = without(os.Environ(), "CICADA_")
	if err := d.cmd.Start(); err != nil {
		return nil, err
	}
	go func() {
		_ = d.cmd.Wait()
		close(d.exited)
	}()
	if err := d.await(ctx); err != nil {
		d.stop()
		return nil, err
	}
	return d, nil
}

func without(env []string, prefix string) (out []string) {
	for _, v := range env {
		if !strings.HasPrefix(v, prefix) {
			out = append(out, v)
		}
	}
	return out
}

// await waits until it is ready.
func (d *daemon) await(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, readyWithin)
	defer cancel()
	for {
		if addr := d.address(); addr != "" {
			d.base = "http://" + addr
			if _, err := d.accepted(ctx); err == nil {
				return nil
			}
		}
		select {
		case <-d.exited:
			return fmt.Errorf("the daemon ended: %s", d.tail())
		case <-ctx.Done():
			return fmt.Errorf("the daemon is not ready: %w: %s", ctx.Err(), d.tail())
		case <-time.After(lookEvery):
		}
	}
}

// address is in the log line that says that it is ready.
func (d *daemon) address() string {
	f, err := os.Open(d.log)
	if err != nil {
		return ""
	}
	defer f.Close()
	for lines := bufio.NewScanner(f); lines.Scan(); {
		var entry struct{ Msg, Listen string }
		if json.Unmarshal(lines.Bytes(), &entry) == nil && entry.Msg == "ready" {
			return entry.Listen
		}
	}
	return ""
}

// accepted is how many messages it has stored durably since it was made.
func (d *daemon) accepted(ctx context.Context) (int, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, d.base+"/v1/status", nil)
	if err != nil {
		return 0, err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return 0, err
	}
	defer resp.Body.Close()
	var status struct{ Books struct{ Accepted int } }
	if err := json.NewDecoder(resp.Body).Decode(&status); err != nil {
		return 0, fmt.Errorf("status: %w", err)
	}
	return status.Books.Accepted, nil
}

// cpu is how many seconds of CPU it has used; 0 where the system does not tell.
func (d *daemon) cpu() float64 {
	const ticks = 100 // a second, on every Linux
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", d.cmd.Process.Pid))
	if err != nil {
		return 0
	}
	// The name of the program comes second, in brackets, and may hold anything.
	fields := strings.Fields(string(text[bytes.LastIndexByte(text, ')')+1:]))
	const user, system = 11, 12
	if len(fields) <= system {
		return 0
	}
	u, _ := strconv.ParseFloat(fields[user], 64)
	k, _ := strconv.ParseFloat(fields[system], 64)
	return (u + k) / ticks
}

func (d *daemon) tail() string {
	text, _ := os.ReadFile(d.log)
	return string(text[max(0, len(text)-2000):])
}

// stop drains it, so that its data may go.
func (d *daemon) stop() {
	if d == nil {
		return
	}
	_ = d.cmd.Process.Signal(syscall.SIGTERM)
	select {
	case <-d.exited:
	case <-time.After(readyWithin):
		_ = d.cmd.Process.Kill()
		<-d.exited
	}
	_ = os.RemoveAll(filepath.Dir(d.log))
}
