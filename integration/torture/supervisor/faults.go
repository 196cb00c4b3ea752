// SPDX-License-Identifier: Apache-2.0

package supervisor

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/cicadamq/cicada/integration/torture/history"
)

// Faults is every fault that a run may draw from.
func Faults() []string {
	return []string{"kill", "stop", "disk", "bucket", "clock", "restore", "term", "client"}
}

// isolatedWithin is how soon a daemon that was paused or cut off for too long, and may not go on
// without an answer from the bucket, ends itself.
const isolatedWithin = 5 * time.Second

// drainSlack is how much longer than the drain an end may take on a machine that is busy.
const drainSlack = 25 * time.Second

// startsAtMost bounds the attempts at a start while the store is in trouble.
const startsAtMost = 20

// trouble lets faults happen until the time is over.
func (r *run) trouble(ctx context.Context) error {
	deadline := time.Now().Add(r.opts.For)
	told := time.Now()
	for n := 0; time.Now().Before(deadline) && ctx.Err() == nil; n++ {
		if err := r.wait(ctx, time.Duration(100+r.rng.IntN(1200))*time.Millisecond); err != nil {
			return err
		}
		if len(r.opts.Faults) == 0 {
			return errNoFaults
		}
		fault := r.opts.Faults[r.rng.IntN(len(r.opts.Faults))]
		if err := r.make(ctx, fault); err != nil {
			r.fail("%s: %v", fault, err)
			return nil
		}
		if time.Since(told) > 5*time.Second {
			told = time.Now()
			r.say("%s left, %d faults, last %s", time.Until(deadline).Round(time.Second), n+1, fault)
		}
	}
	return ctx.Err()
}

// wait waits, and starts a daemon that ended.
func (r *run) wait(ctx context.Context, length time.Duration) error {
	for deadline := time.Now().Add(length); time.Now().Before(deadline); {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-r.daemon().gone():
			if !r.mayEnd() && time.Since(r.thawed) > isolatedWithin {
				r.fail("the daemon ended by itself: %s", tail(r.daemon().logFrom(0)))
			}
			if err := r.restart(); err != nil {
				r.fail("start: %v", err)
				return nil
			}
		case <-time.After(20 * time.Millisecond):
		}
	}
	return nil
}

// mayEnd reports whether the daemon that has ended may have: because it was made to, because the
// store or the disk is in trouble, or because its bucket did not answer for three flush intervals
// and it may not go on then (R11). Those are less than a second, in which a busy machine may let
// neither of them run.
func (r *run) mayEnd() bool {
	d := r.daemon()
	if r.has("stop") && strings.Contains(lastLine(d.logFrom(0)), "tier.isolated is stop") {
		r.notes = append(r.notes, "the bucket did not answer in time, and the daemon stopped")
		return true
	}
	return r.hurt || d.wasMeant()
}

func lastLine(text string) string {
	text = strings.TrimRight(text, "\n")
	return text[strings.LastIndexByte(text, '\n')+1:]
}

// restart starts the daemon, as often as it takes.
func (r *run) restart() (err error) {
	for n := range startsAtMost {
		err = r.daemon().start()
		if err == nil {
			return nil
		}
		if !errors.Is(err, errEnded) || !r.mayEnd() {
			r.daemon().kill()
			return err
		}
		if n > 2 {
			r.heal()
		}
	}
	return err
}

// make makes one fault, and ends with a daemon that runs.
func (r *run) make(ctx context.Context, fault string) error {
	switch fault {
	case "kill":
		return r.killed()
	case "restore":
		return r.lost()
	case "term":
		return r.drained()
	case "stop":
		return r.stopped(ctx)
	case "bucket":
		return r.cut(ctx)
	case "clock":
		return r.stepped(ctx)
	case "disk":
		return r.filled(ctx)
	case "client":
		return r.replaced()
	}
	return fmt.Errorf("no fault is called %q", fault)
}

// killed kills the daemon, now and then while it starts again.
func (r *run) killed() error {
	r.daemon().kill()
	for range 3 {
		if r.rng.IntN(3) != 0 {
			break
		}
		if err := r.daemon().launch(); err != nil {
			return err
		}
		time.Sleep(time.Duration(r.rng.IntN(150)) * time.Millisecond)
		r.daemon().kill()
	}
	return r.restart()
}

// lost takes the data directory away.
func (r *run) lost() error {
	d := r.daemon()
	d.kill()
	if err := os.RemoveAll(d.data); err != nil {
		return err
	}
	d.note(history.Lost, "")
	return r.restart()
}

// drained ends the daemon by SIGTERM.
func (r *run) drained() error {
	status, took, err := r.daemon().term()
	if err != nil {
		return err
	}
	if status != 0 || took > shutdownTimeout+drainSlack {
		r.fail("SIGTERM: exit status %d after %s: %s", status, took, tail(r.daemon().logFrom(0)))
	}
	return r.restart()
}

// stopped pauses the process, and sometimes another daemon takes the shard meanwhile.
func (r *run) stopped(ctx context.Context) error {
	old := r.daemon()
	old.freeze()
	pause := time.Duration(500+r.rng.IntN(4000)) * time.Millisecond
	if r.opts.For > time.Minute && r.rng.IntN(5) == 0 {
		pause += time.Duration(r.rng.IntN(15)) * time.Second
	}
	if r.rng.IntN(3) != 0 {
		sleep(ctx, pause)
		old.thaw()
		r.thawed = time.Now()
		return nil
	}
	sleep(ctx, pause/4)
	old.mu.Lock()
	old.meant = true
	old.mu.Unlock()
	r.now = 1 - r.now
	r.daemon().note(history.Takeover, "")
	if err := r.restart(); err != nil {
		return err
	}
	if err := r.point(); err != nil {
		return err
	}
	sleep(ctx, pause)
	old.thaw()
	select {
	case <-old.gone():
		if status := old.status(); status != 1 {
			r.fail("the old owner ended with status %d: %s", status, tail(old.logFrom(0)))
		}
	case <-time.After(endsWithin):
		r.fail("the old owner goes on: %s", tail(old.logFrom(0)))
		old.kill()
	}
	return nil
}

// cut troubles the way to the bucket.
func (r *run) cut(ctx context.Context) error {
	if r.net == nil {
		r.skip("bucket", "a bucket in a directory has no network")
		return nil
	}
	r.hurt = true
	r.daemon().note(history.Cut, "")
	if r.rng.IntN(3) == 0 {
		r.net.Dead.Store(true)
	} else {
		r.net.Calm.Store(false)
	}
	err := r.wait(ctx, time.Duration(500+r.rng.IntN(4000))*time.Millisecond)
	r.heal()
	return err
}

// heal ends every trouble of the bucket and the disk.
func (r *run) heal() {
	if r.net != nil && (r.net.Dead.Load() || !r.net.Calm.Load()) {
		r.net.Dead.Store(false)
		r.net.Calm.Store(true)
		r.daemon().note(history.Heal, "")
		r.thawed = time.Now()
	}
	if r.full {
		_ = os.Remove(r.filler)
		r.full = false
		r.daemon().note(history.Room, "")
	}
	r.hurt = false
}

// stepped steps the clocks: one of them, or both as after a suspend. Steps are clearly below or
// above what a daemon follows at once.
func (r *run) stepped(ctx context.Context) error {
	sizes := []time.Duration{
		time.Second, 4 * time.Second, time.Minute, time.Hour, 26 * time.Hour, 70 * time.Hour,
	}
	by := sizes[r.rng.IntN(len(sizes))] + time.Duration(r.rng.IntN(400))*time.Millisecond
	wall, boot := r.wall, r.boot
	switch r.rng.IntN(6) {
	case 0, 1:
		wall += by
	case 2:
		wall -= by
	case 3:
		wall, boot = wall+by, boot+by // suspended
	case 4:
		wall = 0 // somebody repairs it
	case 5:
		wall, boot = wall-by, boot+by
	}
	if wall > 100*time.Hour || wall < -100*time.Hour {
		wall = 0
	}
	if err := r.setClocks(wall, boot); err != nil {
		return err
	}
	if r.rng.IntN(2) == 0 {
		return nil
	}
	return r.wait(ctx, clockHold+time.Second)
}

// filled leaves no room on the disk for a while.
func (r *run) filled(ctx context.Context) error {
	file, err := os.Create(r.filler)
	if err != nil {
		return err
	}
	r.hurt, r.full = true, true
	r.daemon().note(history.Full, "")
	block := make([]byte, 1<<20)
	for range diskBytes >> 20 {
		if _, err := file.Write(block); err != nil {
			break // full
		}
	}
	if err := file.Close(); err != nil && r.opts.Progress != nil {
		r.say("filler: %v", err)
	}
	err = r.wait(ctx, time.Duration(500+r.rng.IntN(2500))*time.Millisecond)
	r.heal()
	return err
}

// replaced kills a client in the middle of its work and hires another.
func (r *run) replaced() error {
	i := r.rng.IntN(len(r.crew))
	c := r.crew[i]
	_ = c.cmd.Process.Kill()
	_ = c.cmd.Wait()
	r.crew = append(r.crew[:i], r.crew[i+1:]...)
	return r.hire()
}

func sleep(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}
