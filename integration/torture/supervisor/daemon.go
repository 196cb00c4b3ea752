// SPDX-License-Identifier: Apache-2.0

package supervisor

import (
	"bytes"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/cicadamq/cicada/integration/ports"
	"github.com/cicadamq/cicada/integration/torture/history"
)

// Bounds on a machine that is busy.
const (
	readyWithin = 90 * time.Second
	endsWithin  = 60 * time.Second
	pollEvery   = 10 * time.Millisecond
)

// daemon is one place where a daemon runs: an address and a data directory.
type daemon struct {
	program string
	name    string
	data    string
	args    []string
	env     []string
	logFile string
	ports   *ports.Ports
	url     string
	log     *history.Log

	mu     sync.Mutex
	cmd    *exec.Cmd
	exited chan struct{}
	meant  bool // to end
}

// note writes down what is done to the daemon.
func (d *daemon) note(what, text string) {
	_, _ = d.log.Write(history.Event{What: what, Daemon: d.url, Note: text})
}

// launch starts a process.
func (d *daemon) launch() error {
	out, err := os.OpenFile(d.logFile, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	defer out.Close()
	args := append([]string{
		"serve", "--data-dir", d.data, "--listen", strings.TrimPrefix(d.url, "http://"),
		"--log-format", "json",
	}, d.args...)
	cmd := exec.Command(d.program, args...)
	cmd.Stderr, cmd.Dir, cmd.Env = out, filepath.Dir(d.logFile), d.env
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	exited := make(chan struct{})
	d.mu.Lock()
	defer d.mu.Unlock()
	d.note(history.Launch, "")
	if err := cmd.Start(); err != nil {
		return err
	}
	d.cmd, d.exited, d.meant = cmd, exited, false
	go func() { // ends with the process, which kill waits for
		_ = cmd.Wait()
		d.mu.Lock()
		meant := d.meant
		d.mu.Unlock()
		d.note(history.Exit, fmt.Sprintf("%s, meant: %v", cmd.ProcessState, meant))
		close(exited)
	}()
	return nil
}

// start starts a process and waits until it is ready.
func (d *daemon) start() error {
	from := d.logSize()
	if err := d.launch(); err != nil {
		return err
	}
	return d.ready(from)
}

var errEnded = errors.New("the daemon ended during its start")

func (d *daemon) ready(from int64) error {
	client := http.Client{Timeout: time.Second}
	defer client.CloseIdleConnections()
	for deadline := time.Now().Add(readyWithin); time.Now().Before(deadline); {
		if resp, err := client.Get(d.url + "/readyz"); err == nil {
			resp.Body.Close()
			if resp.StatusCode == http.StatusOK {
				d.note(history.Ready, "")
				return nil
			}
		}
		select {
		case <-d.gone():
			return fmt.Errorf("%w: %s", errEnded, tail(d.logFrom(from)))
		case <-time.After(pollEvery):
		}
	}
	return fmt.Errorf("the daemon was not ready in time: %s", tail(d.logFrom(from)))
}

func (d *daemon) gone() <-chan struct{} {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.exited == nil {
		closed := make(chan struct{})
		close(closed)
		return closed
	}
	return d.exited
}

// running reports whether there is a process.
func (d *daemon) running() bool {
	select {
	case <-d.gone():
		return false
	default:
		return true
	}
}

// intend says that the end of the process is meant, and sends a signal.
func (d *daemon) intend(signal syscall.Signal, what string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.cmd == nil {
		return
	}
	d.meant = true
	d.note(what, "")
	_ = d.cmd.Process.Signal(signal)
}

// kill ends the process as a crash does.
func (d *daemon) kill() {
	if !d.running() {
		return
	}
	d.intend(syscall.SIGKILL, history.Kill)
	<-d.gone()
}

// freeze stops the process as a machine that pauses does; thaw lets it go on.
func (d *daemon) freeze() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.note(history.Freeze, "")
	_ = d.cmd.Process.Signal(syscall.SIGSTOP)
}

func (d *daemon) thaw() {
	d.mu.Lock()
	defer d.mu.Unlock()
	_ = d.cmd.Process.Signal(syscall.SIGCONT)
	d.note(history.Thaw, "")
}

// term drains the process and returns its exit status and how long it took.
func (d *daemon) term() (int, time.Duration, error) {
	began := time.Now()
	d.intend(syscall.SIGTERM, history.Term)
	select {
	case <-d.gone():
	case <-time.After(endsWithin):
		d.kill()
		return -1, time.Since(began), errors.New("the daemon does not end")
	}
	return d.status(), time.Since(began), nil
}

func (d *daemon) status() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.cmd.ProcessState.ExitCode()
}

func (d *daemon) wasMeant() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.meant
}

func (d *daemon) logSize() int64 {
	info, err := os.Stat(d.logFile)
	if err != nil {
		return 0
	}
	return info.Size()
}

func (d *daemon) logFrom(from int64) string {
	text, err := os.ReadFile(d.logFile)
	if err != nil || int64(len(text)) < from {
		return ""
	}
	return string(text[from:])
}

func tail(s string) string { return s[max(0, len(s)-3000):] }

// tool runs a command of the program to its end.
func (d *daemon) tool(args ...string) (string, error) {
	cmd := exec.Command(d.program, args...)
	cmd.Env, cmd.Dir = d.env, filepath.Dir(d.logFile)
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := cmd.Run(); err != nil {
		return out.String(), fmt.Errorf("%s: %w: %s", strings.Join(args, " "), err, tail(out.String()))
	}
	return out.String(), nil
}
