// SPDX-License-Identifier: Apache-2.0

package brokers

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	"github.com/cicadamq/cicada/integration/ports"
)

// ErrMissing says that this machine lacks what a broker needs: Java or Maven.
var ErrMissing = errors.New("cannot be had here")

const (
	// startWithin bounds a start on a busy machine, the first one included, which fetches jars.
	startWithin = 4 * time.Minute
	stopWithin  = 2 * time.Minute // RocketMQ takes 5 to 16 s of an idle machine
	pollEvery   = 20 * time.Millisecond
	tailBytes   = 4 << 10
	// exitMissing is the status with which the scripts end when a part is not there.
	exitMissing = 69
)

// Process is a server in a child process.
type Process struct {
	name    string
	dir     string // its log is here
	ready   string // what it logs when it is ready
	command func() *exec.Cmd
	ports   *ports.Ports // held as long as it may be started again

	mu     sync.Mutex
	cmd    *exec.Cmd
	exited chan struct{} // closed when cmd has ended
	status error         // of cmd, once exited is closed
}

// Start starts it, or starts it again, and returns when it is ready.
func (p *Process) Start() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.running() {
		return nil
	}
	log, err := os.OpenFile(p.logPath(), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	defer log.Close()
	from, err := log.Seek(0, io.SeekEnd)
	if err != nil {
		return err
	}
	cmd := p.command()
	cmd.Stdout, cmd.Stderr, cmd.SysProcAttr = log, log, childAttr()
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("start %s: %w", p.name, err)
	}
	exited := make(chan struct{})
	p.cmd, p.exited = cmd, exited
	go func() {
		p.status = cmd.Wait()
		close(exited)
	}()
	return p.await(from)
}

// await returns when the log says ready behind from.
func (p *Process) await(from int64) error {
	for deadline := time.Now().Add(startWithin); time.Now().Before(deadline); {
		if text, err := p.readLog(from); err == nil && bytes.Contains(text, []byte(p.ready)) {
			return nil
		}
		select {
		case <-p.exited:
			err := fmt.Errorf("%s ended during its start: %w: %s", p.name, p.status, p.Log())
			var exit *exec.ExitError
			if errors.As(p.status, &exit) && exit.ExitCode() == exitMissing {
				return fmt.Errorf("%w: %w", ErrMissing, err)
			}
			return err
		case <-time.After(pollEvery):
		}
	}
	_ = p.end(syscall.SIGKILL)
	return fmt.Errorf("%s was not ready within %s: %s", p.name, startWithin, p.Log())
}

// Stop ends it in order and returns when it is gone.
func (p *Process) Stop() error { return p.signalEnd(syscall.SIGTERM) }

// Kill kills it and returns when it is gone. What it wrote stays, synced or not.
func (p *Process) Kill() error { return p.signalEnd(syscall.SIGKILL) }

// Pause holds it: its connections stay open and nobody answers.
func (p *Process) Pause() error {
	if err := p.signal(syscall.SIGSTOP); err != nil {
		return err
	}
	for deadline := time.Now().Add(stopWithin); !stopped(p.cmd.Process.Pid); {
		if time.Now().After(deadline) {
			return fmt.Errorf("%s did not stop within %s", p.name, stopWithin)
		}
		time.Sleep(pollEvery)
	}
	return nil
}

// Continue lets it go on after Pause.
func (p *Process) Continue() error { return p.signal(syscall.SIGCONT) }

// Log is the end of what it logged.
func (p *Process) Log() string {
	text, err := p.readLog(-tailBytes)
	if err != nil {
		return err.Error()
	}
	return string(text)
}

func (p *Process) logPath() string { return filepath.Join(p.dir, p.name+".log") }

// readLog reads from an offset; a negative one counts from the end.
func (p *Process) readLog(from int64) ([]byte, error) {
	text, err := os.ReadFile(p.logPath())
	if err != nil {
		return nil, err
	}
	if from < 0 {
		from = max(0, int64(len(text))+from)
	}
	return text[min(from, int64(len(text))):], nil
}

func (p *Process) running() bool {
	if p.cmd == nil {
		return false
	}
	select {
	case <-p.exited:
		return false
	default:
		return true
	}
}

func (p *Process) signal(sig syscall.Signal) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.running() {
		return fmt.Errorf("%s does not run", p.name)
	}
	return syscall.Kill(-p.cmd.Process.Pid, sig)
}

func (p *Process) signalEnd(sig syscall.Signal) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.running() {
		return nil
	}
	return p.end(sig)
}

// end signals the process and those it started, and waits.
func (p *Process) end(sig syscall.Signal) error {
	group := -p.cmd.Process.Pid
	if err := syscall.Kill(group, sig); err != nil && !errors.Is(err, syscall.ESRCH) {
		return fmt.Errorf("end %s: %w", p.name, err)
	}
	_ = syscall.Kill(group, syscall.SIGCONT) // a paused one hears nothing else
	select {
	case <-p.exited:
		return nil
	case <-time.After(stopWithin):
	}
	_ = syscall.Kill(group, syscall.SIGKILL)
	<-p.exited
	return fmt.Errorf("%s did not end within %s of %s", p.name, stopWithin, sig)
}

// Script is the path of one of the scripts, found from wherever in the repository the test runs.
func Script(name string) (string, error) {
	dir, err := os.Getwd()
	if err != nil {
		return "", err
	}
	for {
		for _, below := range []string{"scripts", "integration/scripts"} {
			path := filepath.Join(dir, below, name)
			if _, err := os.Stat(path); err == nil {
				return path, nil
			}
		}
		up := filepath.Dir(dir)
		if up == dir {
			return "", fmt.Errorf("find the script %s: %w", name, os.ErrNotExist)
		}
		dir = up
	}
}
