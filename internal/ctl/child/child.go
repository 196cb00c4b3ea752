// SPDX-License-Identifier: Apache-2.0

// Package child runs a daemon as a child process, for the bench and the demo: the same program,
// started with `serve`, on a free loopback port.
//
//	Start --> ready --> Stop (SIGTERM, drains)  or  Kill (SIGKILL, a crash)
//
// # Invariants
//
//	P1  Start returns a process that answers /readyz, or an error with the end of its log and no
//	    process left over.
//	P2  Stop and Kill return when the process is gone.
//
// A Process is used by one goroutine.
package child

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/cicadamq/cicada/internal/ctl/client"
)

// Options say what to run.
type Options struct {
	Program string   // path of the program
	Args    []string // after `serve --listen ADDR`
	Listen  string   // address to use again after a restart; "" picks a free port
	LogFile string   // receives the daemon's log, appended
	Now     func() time.Time
}

// readyWithin bounds the start: opening ten million messages takes a fraction of it.
const readyWithin = 60 * time.Second

// Process is a running daemon.
type Process struct {
	cmd    *exec.Cmd
	alive  *os.File // reads EOF when the process is gone
	listen string
}

// FreeAddress is a loopback address nobody listens on at this moment.
func FreeAddress(ctx context.Context) (string, error) {
	var lc net.ListenConfig
	l, err := lc.Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return "", fmt.Errorf("find a free port: %w", err)
	}
	addr := l.Addr().String()
	return addr, l.Close()
}

// Start runs a daemon and waits until it is ready.
func Start(ctx context.Context, opts Options) (*Process, error) {
	listen := opts.Listen
	if listen == "" {
		var err error
		if listen, err = FreeAddress(ctx); err != nil {
			return nil, err
		}
	}
	log, err := os.OpenFile(opts.LogFile, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, fmt.Errorf("open daemon's log: %w", err)
	}
	defer func() { _ = log.Close() }() // the child has its own copy
	alive, theirs, err := os.Pipe()
	if err != nil {
		return nil, fmt.Errorf("start daemon: %w", err)
	}
	p := &Process{alive: alive, listen: listen}
	given := append([]string{"serve", "--listen", listen}, opts.Args...)
	p.cmd = exec.Command(opts.Program, given...) //nolint:noctx // Stop and Kill end it
	p.cmd.Stdout, p.cmd.Stderr = theirs, log
	// Ctrl-C is for us: we stop the daemon ourselves.
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	err = p.cmd.Start()
	_ = theirs.Close()
	if err != nil {
		_ = alive.Close()
		return nil, fmt.Errorf("start daemon: %w", err)
	}
	if err := p.ready(ctx, opts.Now); err != nil {
		return nil, errors.Join(fmt.Errorf("%w%s", err, tail(opts.LogFile)), p.Kill())
	}
	return p, nil
}

// ready polls until the daemon accepts requests.
func (p *Process) ready(ctx context.Context, now func() time.Time) error {
	c, err := client.New(p.listen, client.Options{Timeout: time.Second})
	if err != nil {
		return err
	}
	defer c.Close()
	var scratch [1]byte
	for deadline := now().Add(readyWithin); now().Before(deadline); {
		if c.Ready(ctx) == nil {
			return nil
		}
		if err := ctx.Err(); err != nil {
			return err
		}
		// Waits a little, and notices at once when the process ends.
		if err := p.alive.SetReadDeadline(now().Add(10 * time.Millisecond)); err != nil {
			return fmt.Errorf("wait for the daemon: %w", err)
		}
		if _, err := p.alive.Read(scratch[:]); errors.Is(err, io.EOF) {
			return errors.New("the daemon ended during its start")
		}
	}
	return fmt.Errorf("the daemon was not ready within %s", readyWithin)
}

// Server is the daemon's address.
func (p *Process) Server() string { return p.listen }

// Kill ends the process as a crash does.
func (p *Process) Kill() error {
	if err := p.cmd.Process.Kill(); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return fmt.Errorf("kill daemon: %w", err)
	}
	var exit *exec.ExitError
	if err := p.cmd.Wait(); err != nil && !errors.As(err, &exit) {
		return fmt.Errorf("wait for daemon: %w", err)
	}
	return p.alive.Close()
}

// Stop asks the process to end and waits; an exit status other than 0 is an error.
func (p *Process) Stop() error {
	if err := p.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		return fmt.Errorf("stop daemon: %w", err)
	}
	err := p.cmd.Wait()
	if err != nil {
		err = fmt.Errorf("stop daemon: %w", err)
	}
	return errors.Join(err, p.alive.Close())
}

// RSS is the resident memory in bytes, 0 where the system does not tell.
func (p *Process) RSS() int64 {
	return statusBytes(p.cmd.Process.Pid, "VmRSS:")
}

func statusBytes(pid int, field string) int64 {
	body, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), "status"))
	if err != nil {
		return 0
	}
	for line := range strings.Lines(string(body)) {
		if rest, ok := strings.CutPrefix(line, field); ok {
			kb, _, _ := strings.Cut(strings.TrimSpace(rest), " ")
			n, err := strconv.ParseInt(kb, 10, 64)
			if err != nil {
				return 0
			}
			return n << 10
		}
	}
	return 0
}

// DiskUsed sums the files below dir. Files that vanish meanwhile are left out.
func DiskUsed(dir string) int64 {
	var sum int64
	_ = filepath.WalkDir(dir, func(_ string, d os.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return nil //nolint:nilerr // a file that was just removed is no disk used
		}
		if info, err := d.Info(); err == nil {
			sum += info.Size()
		}
		return nil
	})
	return sum
}

// tailBytes is how much of the log an error shows.
const tailBytes = 2 << 10

func tail(name string) string {
	body, err := os.ReadFile(name)
	if err != nil || len(body) == 0 {
		return ""
	}
	body = bytes.TrimSpace(body[max(0, len(body)-tailBytes):])
	return "; its log ends with:\n" + string(body)
}
