// SPDX-License-Identifier: Apache-2.0

// Package demo tells the whole story in about a minute, with a real daemon as a child process:
//
//	send --> offloaded to the bucket --> some cancelled, some moved --> kill -9, the local store
//	deleted --> started again --> everything delivered from the bucket --> the books
//
// # Invariants
//
//	Y1  What is shown was observed: every message is known by id, and counted when it is pulled.
//	Y2  The story fails (an error) when a message was lost or early, a cancelled one came, or the
//	    books do not balance. Duplicates around the crash are allowed and counted (S6).
//	Y3  The directory is created by the demo or empty, and removed at the end unless it is wanted
//	    or the story failed.
//
// Run starts goroutines and waits for them. When it is killed, the daemon may go on: it listens on
// loopback only, and its directory tells which one it is.
package demo

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/cicadamq/cicada/internal/ctl/child"
	"github.com/cicadamq/cicada/internal/ctl/client"
)

// Options are what a demo needs.
type Options struct {
	Dir      string // created, or empty
	Program  string // path of cicada
	Fast     bool   // a third of the time
	Keep     bool   // leave the directory
	Out      io.Writer
	Terminal bool // redraw in place
	Color    bool
	Now      func() time.Time
}

// script is the timing of a story, counted from its start.
type script struct {
	messages, cancels, moves int
	firstDue, lastDue, crash time.Duration
	flush                    time.Duration
}

func (o Options) script() script {
	if o.Fast {
		return script{
			messages: 3000, cancels: 100, moves: 100, firstDue: 7 * time.Second,
			lastDue: 18 * time.Second, crash: 9 * time.Second, flush: 300 * time.Millisecond,
		}
	}
	return script{
		messages: 20_000, cancels: 500, moves: 500, firstDue: 12 * time.Second,
		lastDue: 50 * time.Second, crash: 20 * time.Second, flush: time.Second,
	}
}

// flags are the daemon's: intervals so short that a minute shows what takes days otherwise.
func (s script) flags(dir string) []string {
	flush := s.flush.String()
	return []string{
		"--data-dir", filepath.Join(dir, "data"),
		"--bucket", "file://" + filepath.Join(dir, "bucket"),
		"--tier-flush-interval", flush, "--tier-min-wait", "1s",
		"--local-horizon", "5s", "--local-drop-lag", flush, "--local-hot-window", "2s",
		"--local-reserve", "0", "--log-format", "json",
	}
}

// queue is where the demo's messages go.
const queue = "demo"

// story is a running demo.
type story struct {
	Options
	script
	c      *client.Client
	daemon *child.Process
	start  time.Time
	truth  *truth
	view   *view
	downAt time.Time // the kill
	backAt time.Time // the next start was ready
	listen string
	child  child.Options
}

// Run tells the story. The error says what failed it.
func Run(ctx context.Context, opts Options) error { return run(ctx, opts, opts.script()) }

func run(ctx context.Context, opts Options, plan script) (err error) {
	dir, err := filepath.Abs(opts.Dir)
	if err != nil {
		return fmt.Errorf("demo directory: %w", err)
	}
	opts.Dir = dir
	if err := prepare(dir); err != nil {
		return err
	}
	defer func() { err = cleanUp(ctx, opts, err) }()
	s := &story{Options: opts, script: plan, truth: newTruth()}
	s.view = newView(s)
	if s.listen, err = child.FreeAddress(ctx); err != nil {
		return err
	}
	s.child = child.Options{
		Program: opts.Program, Args: s.flags(dir), Listen: s.listen, Now: opts.Now,
		LogFile: filepath.Join(dir, "daemon.log"),
	}
	s.c, err = client.New(s.listen, client.Options{Connections: changers + pullers})
	if err != nil {
		return err
	}
	defer s.c.Close()
	return s.tell(ctx)
}

// cleanUp removes the directory, unless it is wanted or can tell why the story failed.
func cleanUp(ctx context.Context, opts Options, err error) error {
	if err != nil && ctx.Err() != nil {
		err = ctx.Err() // whatever it met first
	}
	if opts.Keep {
		return err
	}
	if err != nil && ctx.Err() == nil {
		return fmt.Errorf("%w\nthe daemon's log and data are kept in %s", err, opts.Dir)
	}
	return errors.Join(err, os.RemoveAll(opts.Dir))
}

// prepare makes the directory, or refuses one that holds something (Y3).
func prepare(dir string) error {
	entries, err := os.ReadDir(dir)
	switch {
	case errors.Is(err, os.ErrNotExist):
		return os.MkdirAll(dir, 0o755)
	case err != nil:
		return fmt.Errorf("demo directory: %w", err)
	case len(entries) > 0:
		return fmt.Errorf("%s is not empty; remove it, or choose another with --dir", dir)
	}
	return nil
}

// tell runs the acts one after another beside the pullers and the picture.
func (s *story) tell(ctx context.Context) (err error) {
	if s.daemon, err = child.Start(ctx, s.child); err != nil {
		return err
	}
	defer func() {
		if s.daemon != nil {
			err = errors.Join(err, s.daemon.Stop())
		}
	}()
	s.start = s.Now()
	around, stop := context.WithCancel(ctx)
	var beside sync.WaitGroup
	for range pullers {
		beside.Go(func() { s.pull(around) })
	}
	beside.Go(func() { s.view.run(around) })
	err = s.acts(ctx)
	stop()
	beside.Wait()
	s.view.end()
	if err != nil {
		return err
	}
	return s.verdict(ctx)
}

func (s *story) acts(ctx context.Context) error {
	for _, act := range []struct {
		title string
		do    func(context.Context) error
	}{
		{"sending messages, each acknowledged when it is in the bucket too", s.send},
		{"cancelling some and moving some to another time", s.change},
		{"waiting; far messages leave the local disk, near ones come back", s.untilCrash},
		{"kill -9, and its local store is deleted", s.crashNow},
		{"started again with an empty disk, from the bucket alone", s.restart},
		{"delivering what was in the bucket", s.untilDone},
	} {
		s.view.act(act.title)
		if err := act.do(ctx); err != nil {
			return fmt.Errorf("%s: %w", act.title, err)
		}
	}
	return nil
}

func (s *story) untilCrash(ctx context.Context) error {
	return s.sleepUntil(ctx, s.start.Add(s.crash), nil)
}

func (s *story) crashNow(context.Context) error {
	s.downAt = s.Now()
	d := s.daemon
	s.daemon = nil
	if err := d.Kill(); err != nil {
		return err
	}
	return os.RemoveAll(filepath.Join(s.Dir, "data"))
}

func (s *story) restart(ctx context.Context) error {
	d, err := child.Start(ctx, s.child)
	if err != nil {
		return err
	}
	s.daemon, s.backAt = d, s.Now()
	return nil
}

const (
	// takeover is how many flush intervals a daemon that finds another's bucket waits before it
	// claims messages (rule R11).
	takeover = 3
	// grace is how long after the last due everything has to be here.
	grace = 15 * time.Second
	// settle is how long the pullers go on when everything is here, to see duplicates.
	settle = time.Second
)

func (s *story) untilDone(ctx context.Context) error {
	last := s.start.Add(s.lastDue)
	all := func() bool { return s.truth.missing() == 0 }
	if err := s.sleepUntil(ctx, last.Add(grace), all); err != nil {
		return err
	}
	return s.sleepUntil(ctx, s.Now().Add(settle), nil)
}

// sleepUntil waits until t, until early says that the wait is over, or until ctx is done.
func (s *story) sleepUntil(ctx context.Context, t time.Time, early func() bool) error {
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for s.Now().Before(t) && (early == nil || !early()) {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
		}
	}
	return nil
}
