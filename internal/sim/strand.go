// SPDX-License-Identifier: Apache-2.0

package sim

import (
	"iter"
	"time"

	"github.com/cicadamq/cicada/internal/sim/swarm"
)

// strand is one call under way: a request of a client, a delivery, a flush. It is a coroutine: it
// runs only while the world waits for it, until it yields or ends (invariant W1).
type strand struct {
	name  string
	kind  swarm.Op
	node  *node         // whose process it runs in
	syncs bool          // it may wait for the disk itself, so the disk must not hold syncs back
	until time.Duration // it sleeps until this instant by the boot clock
	next  func() (struct{}, bool)
	stop  func()
	yield func(struct{}) bool
	dead  bool
}

// crashed unwinds a strand whose process has died (W1: nobody else resumes it).
type crashed struct{}

// spawn starts f as a strand and lets it run until it yields first.
func (w *World) spawn(name string, kind swarm.Op, f func()) {
	s := &strand{
		name: name, kind: kind, node: w.node, syncs: kind == swarm.Poll || kind == swarm.Drain,
	}
	s.next, s.stop = iter.Pull(func(yield func(struct{}) bool) {
		s.yield = yield
		defer func() {
			if r := recover(); r != nil {
				if _, ok := r.(crashed); !ok {
					panic(r)
				}
			}
		}()
		f()
	})
	w.strands = append(w.strands, s)
	w.resume(s)
}

// resume lets s run until it yields or ends.
func (w *World) resume(s *strand) {
	before, whose := w.current, w.node
	w.current, w.node = s, s.node
	if s.syncs {
		w.settleDisk()
	}
	w.turn++
	_, more := s.next()
	w.current, w.node = before, whose
	if more {
		return
	}
	for i := range w.strands {
		if w.strands[i] == s {
			w.strands = append(w.strands[:i:i], w.strands[i+1:]...)
			return
		}
	}
}

// yield gives the turn back to the world.
func (w *World) yield() {
	s := w.current
	if s == nil {
		panic("BUG: yield outside a strand")
	}
	if s.dead || !s.yield(struct{}{}) {
		s.dead = true
		panic(crashed{})
	}
}

// sleep yields until the boot clock has moved by d.
func (w *World) sleep(d time.Duration) {
	s := w.current
	s.until = w.boot + d
	for w.boot < s.until {
		w.yield()
	}
}

// kill ends the doomed strands where they stand, as the death of a process does. The one that
// asks lives on.
func (w *World) kill(doomed func(*strand) bool) {
	self, all := w.current, w.strands
	w.strands = nil
	for _, s := range all {
		if s == self || !doomed(s) {
			w.strands = append(w.strands, s)
		}
	}
	for _, s := range all {
		if s != self && doomed(s) {
			w.current = s
			s.stop()
		}
	}
	w.current = self
}

// ready lists the strands that may run now.
func (w *World) ready(dst []*strand) []*strand {
	for _, s := range w.strands {
		if s.until <= w.boot && !s.node.frozen {
			dst = append(dst, s)
		}
	}
	return dst
}
